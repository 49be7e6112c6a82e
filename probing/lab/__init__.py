"""The traffic lab: real servers and clients in network namespaces, a link with configured faults, labels of each
connection.

settings.py      the settings of lab files
catalog.py       scenarios and corpora by name; a corpus as a list of runs
isolation.py     a private machine for each run
trace.py         delivery traces
hosts.py         hosts of a run
link/            the link between them
load.py          load of the server, set and measured
session.py       one sample; the protocols of services and clients
run.py           one run, from fresh hosts to captures and label rows
attribution.py   users, and the label row of each connection
labels.py        the label columns
vantage.py       captures at a vantage, from the log of the link
frames.py        what the link did to each frame of a capture
worker.py        a process that does runs
campaign.py      a corpus in the making: workers, finished and missing runs
assemble.py      from the folders of runs to one corpus
check.py         what the lab needs from a machine, and what it does to it
cli.py           the commands
registry.py      which file holds which server and client
"""
