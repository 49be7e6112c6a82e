"""Servers of the lab, a file each: configured and started in a run's private machine, without systemd."""
