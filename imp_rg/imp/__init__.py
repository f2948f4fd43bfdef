"""The scheme: iterative magnitude pruning as T = F o M, level by level."""
