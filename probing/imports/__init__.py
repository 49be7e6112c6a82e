"""Label files for captures that others made.

Belongs here: one file a data set. Does not: the lab's own labels.

detgen.py            DetGen's captures; detgen_scenarios.py: the meaning of their names
detgen_attacks.py    which of their connections are attacks
connections.py       the connections of a capture as rows
cicids.py            CICIDS-2017
label_files.py       the label file that both write
cli.py               the commands
"""
