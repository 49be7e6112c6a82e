"""The parts of bench_detection.

streams.py    packets of captures; pauses put in, traffic of other hosts merged in
variants.py   which detectors are compared, and which of them this version lacks
scoring.py    detectors that learn from some packets and score others, by packet and by connection
parts.py      scored packets or connections of one class, and rows of the table that two of them make
features.py   the best single feature
sources.py    captures and corpora that the evaluations read
cases.py      the evaluations
text.py       their tables
summary.py    sentences with figures from the rows
known.py      scorers whose results are known
quick.py      a small case whose answers are known
"""
