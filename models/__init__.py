"""Arithmetic: arrays in, scores out. Knows no packet and no bus.

autoencoder.py  the denoising-free autoencoder of KitNET, one at a time (reference) and in a batch
feature_map.py  which features go to which autoencoder
kitnet.py       KitNET: ensemble, output layer, phases
threshold.py    score -> alarm
bundle.py       a model on disk: safetensors arrays, config, provenance
"""
