"""Parts of `experiments.pretrain`: settings, methods, the loop."""
