"""Labelled traffic as tables.

Belongs here: reading, joining, splitting. Does not: making traffic.

corpus.py   a corpus: its label rows, which connection is which row, parts of it
"""
