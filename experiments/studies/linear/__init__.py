"""Parts of `experiments.linear`: groups of blocks, the page."""
