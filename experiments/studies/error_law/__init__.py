"""The exponent of the error, Eq. 15: fits of runs and tables, and their page."""
