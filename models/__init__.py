"""Arithmetic: arrays in, scores out. Knows no packet and no bus.

autoencoder.py     the autoencoder of KitNET in plain form: the reference, and how weights are handed over
feature_map.py     which features go to which autoencoder
kitnet.py          KitNET: ensemble, output layer, phases
kitnet_kernels.py  its arrays, and scoring with samples as SIMD lanes
kitnet_learn.py    its learning step with autoencoders as SIMD lanes
lanes.py           a line of numbers as one value in compiled code
threshold.py       score -> alarm
bundle.py          a model on disk: safetensors arrays, config, provenance
"""
