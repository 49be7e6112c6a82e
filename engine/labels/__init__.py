"""Probe labels: which packets belong to which probe, and what that probe is.

Belongs here: label files, their rules, and probe ids. Does not: how a lab or a foreign data set makes such files
(probing/).

file.py     reads a label file: rows into rules
table.py    its rows as plain values, from CSV or Parquet
rules.py    which packets belong to which probe; what probe ids mean
slices.py   the labels that metrics carry
probes.py   probe labels on the bus
"""
