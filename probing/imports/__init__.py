"""Label files for captures that others made.

Belongs here: one file a data set. Does not: the lab's own labels.

detgen.py            DetGen's captures; detgen_scenarios.py what their names mean
cicids.py            CICIDS-2017
label_files.py       what both write
cli.py               the commands
"""
