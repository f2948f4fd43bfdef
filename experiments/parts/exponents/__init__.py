"""The page of `experiments.exponents`."""
