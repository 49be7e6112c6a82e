"""Clients of the lab, a file each: what a program does for each activity."""
