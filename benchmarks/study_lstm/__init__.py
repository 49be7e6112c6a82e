"""Which faults of a link cost an LSTM its detection of SQL injection, and which way of preparing packets gains it back?

    python -m benchmarks.study_lstm --corpora FOLDER --out FOLDER [--size full|ci] [--jobs 2]

DESIGN.md is what was decided beforehand. Traffic, nets and scores are kept under --out, so that a run that was stopped
goes on.

data.py      corpora as sequences of tokens, in parts
nets.py      nets trained, several at a time
judging.py   scores, cells of the table and differences
labels.py    which label goes with misclassification
figures.py   the figures; benchmarks/lstm_tables.py  the tables of docs/study-lstm.md
"""
