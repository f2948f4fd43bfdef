"""The IMP run on which most studies stand: settings, assembly, levels, nulls, observables."""
