"""Labelled traffic as tables.

Belongs here: reading, joining, splitting. Does not: making traffic.

corpus.py         a corpus: capture, labels and manifest, read back and checked
labels.py         its label rows
conversations.py  rows and records with the same two ends
join.py           which connection is which row
split.py          parts of a corpus
columns.py        columns of tables as arrays
"""
