"""Probe labels: which packets belong to which probe, and what that probe is.

Belongs here: label files, the rules they give, and probe ids. Does not: how a lab or a foreign data set makes such
files (probing/).

file.py     a label file, the rules it gives and the packets they match; the labels that metrics carry
probes.py   probe labels on the bus
"""
