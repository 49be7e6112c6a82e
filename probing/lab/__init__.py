"""The traffic lab: real servers and clients in network namespaces, a link whose faults are set, labels of each
connection.

settings.py      what lab files may say
catalog.py       scenarios and corpora by name; a corpus as a list of runs
isolation.py     a private machine for each run
hosts.py         hosts of a run
link.py          the link between them (link_kernels.py: its loop)
session.py       one sample; what services and clients must be able to do
run.py           one run, from fresh hosts to captures and label rows
labels.py        the label columns, and the rows of a run
vantage.py       captures at a vantage, from the log of the link
registry.py      which file holds which server and client
"""
