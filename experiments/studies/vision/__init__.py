"""Parts of `experiments.vision_flow` and `vision_exponents`: tasks, cells, tables, the page."""
