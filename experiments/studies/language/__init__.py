"""Parts of `experiments.language_flow` and `language_init`: settings, tasks, tables, the page."""
