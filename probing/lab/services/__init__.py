"""Servers of the lab, one a file: configured and started in a run's private machine, without systemd."""
