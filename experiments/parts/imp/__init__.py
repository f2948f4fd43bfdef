"""Parts of `experiments.imp_flow`, which other experiments run too: settings, levels, nulls."""
