"""Models over packets: what a connection's score is, and when it alarms.

Belongs here: one file a model, and what all models share. Does not: arithmetic that knows no packet (models/), or where
rows go (consumer/).

detector.py   all state of one partition; building.py makes one of what is configured
scorer.py     packet scores of any model -> scores and alarms of connections
kind.py       what the engine must know of a kind of model
kinds.py      the kinds there are, a file each
passes.py     features, computed once for all models that ask for the same
batch.py      records and scores on their way out; columns.py makes tables of them
trace.py      chosen connections packet by packet
"""
