"""KitNET: an ensemble of small autoencoders and one over their scores.

kitnet.py          the model and its phases
feature_map.py     the features of each autoencoder
score_kernels.py   its arrays, and scoring with samples as SIMD lanes
learn.py           its learning step with autoencoders as SIMD lanes
"""
