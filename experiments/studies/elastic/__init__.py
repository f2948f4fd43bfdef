"""Parts of `experiments.elastic`: settings, trained cells, scores, tables, the page."""
