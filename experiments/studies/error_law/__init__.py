"""The page of `experiments.error_law`."""
