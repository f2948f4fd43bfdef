"""Parts of `experiments.ising`: sampling, plans, tables, the page."""
