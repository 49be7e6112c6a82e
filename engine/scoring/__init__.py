"""Models over packets: scores and alarms of connections.

Belongs here: one file for each model, and the code that all models share. Does not: arithmetic without packets
(models/), or the sinks of rows (consumer/).

detector.py   all state of one partition; building.py builds one from the configuration
scorer.py     packet scores of any model -> scores and alarms of connections
kind.py       the interface of a kind of model
kinds.py      the kinds of model, a file each
start.py      how scoring with a bundle starts: carried streams, or a warm-up
passes.py     features, computed once for all models with the same configuration
batch.py      records and scores for the sinks; columns.py turns them into tables
trace.py      chosen connections packet by packet
"""
