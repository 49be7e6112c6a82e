"""The traffic lab: real servers and clients in network namespaces, a link whose faults are set, labels of each
connection.

settings.py      what lab files may say
catalog.py       scenarios and corpora by name; a corpus as a list of runs
isolation.py     a private machine for each run
hosts.py         hosts of a run
link/            the link between them
load.py          load of the server, set and measured
session.py       one sample; what services and clients must be able to do
run.py           one run, from fresh hosts to captures and label rows
attribution.py   whose connection it is: users, and label rows
labels.py        the label columns
vantage.py       captures at a vantage, from the log of the link
worker.py        a process that does runs
campaign.py      a corpus in the making: workers, what is done, what is missing
assemble.py      from the folders of runs to one corpus
check.py         what the lab needs of a machine, and what it may do to it
cli.py           the commands
registry.py      which file holds which server and client
"""
