"""The world <-> blocks and bytes.

Belongs here: files, interfaces, brokers, endpoints. Does not: a feature or a model.

files/          captures and outputs on disk
live/           interfaces
bus/            the embedded bus and Apache Kafka
prometheus.py   /metrics exposition
kernels.py      how kernels are compiled
"""
