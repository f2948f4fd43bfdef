"""Tickets: what survives of a network, and how it moves to other tasks and other depths."""
