"""Models over packets: what a connection's score is, and when it alarms.

Belongs here: one file a model, and what all models share. Does not: arithmetic that knows no packet (models/), or where
rows go (consumer/).

detector.py   all state of one partition
kitsune.py    AfterImage, KitNET and a threshold
columns.py    ScoreBatch -> columns
"""
