"""Experiments: `python -m experiments.NAME`; each module's docstring is its lab book."""
