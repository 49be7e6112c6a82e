"""Labelled traffic as tables.

Belongs here: reading, joining, splitting, checking, mixing. Does not: making traffic.

corpus.py         a corpus: capture, labels and manifest, read back and checked
labels.py         its label rows
conversations.py  rows and records with the same two ends
join.py           which connection is which row
split.py          parts of a corpus
columns.py        columns of tables as arrays
labelled.py       labelled connections, of the lab or of others
traffic.py        a capture as connections and their packets
measures.py       single columns of connections
giveaways.py      whether one of them tells attacks
aliases.py        labels that go together
copies.py         near-duplicates
divided.py        whether a split keeps apart what must be apart
check.py          all of these questions about a corpus
findings.py       their answers
check_text.py     the report as text
mix.py            a corpus in a background capture
background.py     what a background has: time, hosts, ports
mapping.py        where the runs of a corpus go in it
rewriting.py      frames with other addresses, ports and checksums
cli.py            `wiresonde corpus`
mix_cli.py        `wiresonde lab mix`
"""
