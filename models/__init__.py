"""Arithmetic: arrays in, scores out.

Belongs here: everything that is useful without a packet in sight. Does not: packets, the bus, the configuration file.

kitnet/        KitNET
lstm.py        an LSTM over the packets of each connection
lanes.py       a line of numbers as one value in compiled code
kernels.py     how kernels are compiled
threshold.py   score -> alarm
bundle.py      a model on disk: safetensors arrays, config, provenance
"""
