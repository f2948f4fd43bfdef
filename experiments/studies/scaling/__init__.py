"""Parts of `experiments.scaling`: checks, tables, the page."""
