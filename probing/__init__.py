"""The researcher's half: make labelled traffic, train on it, probe detectors with it. A sensor does not need it."""
