"""Keeps the virtual machines of a group of hosts running, and never runs one twice."""
