"""Parts of `experiments.projection`: checks, tables, the page."""
