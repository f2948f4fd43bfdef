"""Parts of `experiments.transfer`: tasks, cells, predictors, tables, the page."""
