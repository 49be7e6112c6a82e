"""The world <-> blocks and bytes.

Belongs here: files, interfaces, brokers, endpoints. Does not: features or models.

files/          captures and outputs on disk
live/           network interfaces
bus/            the embedded bus and Apache Kafka
prometheus.py   the /metrics endpoint
kernels.py      how kernels are compiled
"""
