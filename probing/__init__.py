"""The researcher's half: make labelled traffic, train on it, probe detectors with it.

Belongs here: what a sensor does not need. Does not: anything that scores packets.

lab/       real servers and clients in private machines, over a link with configured faults
imports/   label files for DetGen's and CICIDS-2017's captures
corpus/    labelled traffic as tables
training/  models that learn from labels
analysis/  what labelled scores say of a detector
"""
