"""Clients of the lab, one a file: a program's work for each activity."""
