"""Models that learn from labels, which only the researcher's half has.

Belongs here: sequences of tokens, networks, training, the bundles that come of it. Does not: scoring.

sequences.py   labelled connections as sequences of tokens
parts.py       which of them are learned from, validate, calibrate
recipe.py      settings of training
batches.py     connections of each step
network.py     the LSTM in torch
train.py       training of one network
checkpoint.py  training interrupted
curve.py       the learning curve as JSON and picture
bundle.py      a network as a bundle
job.py         corpora in, bundles out
cli.py         `wiresonde train sequence`
"""
