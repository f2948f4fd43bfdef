"""Parts of `experiments.rg_axioms`: checks, tables, the page."""
