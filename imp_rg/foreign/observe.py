"""Companion observables of a run on disk: one row a seed, level, block and observable.

In: a `ForeignRun`. Out: ``observables.csv`` as a frame.
"""

from collections.abc import Callable

import pandas as pd

from imp_rg.foreign.run import ForeignRun
from imp_rg.imp.observables import LevelWeights, observable_rows, observe_level


def observe_run(run: ForeignRun, on_level: Callable[[str, int], None]) -> pd.DataFrame:
    """Computes the observables of every level.

    Args:
      run: A run of several levels.
      on_level: Told seed and level when one is done.

    Returns:
      Rows of `observable_rows`. The other seed of `jaccard_seed` is the next one.

    References:
      House definitions, `imp_rg.imp.observables.OBSERVABLES`.
    """
    rows = []
    num_seeds = len(run.layout.seeds)
    # Flax kernels end in the output units, PyTorch weights begin with them.
    unit_axis = -1 if all(name.endswith("kernel") for name in run.prunable) else 0
    for i, seed in enumerate(run.layout.seeds):
        rewind = run.open_rewind(i)
        for level in range(len(run.layout.levels[i])):
            opened = run.open_level(i, level)
            values = observe_level(
                run.names,
                run.blocks.block_of,
                len(run.blocks.names),
                LevelWeights(opened.weight, run.masks_of(i, level)),
                rewind=None if rewind is None else rewind.weight,
                previous=run.masks_of(i, level - 1) if level else None,
                other_seed=run.masks_of((i + 1) % num_seeds, level) if num_seeds > 1 else None,
                unit_axis=unit_axis,
            )
            rows += observable_rows(run.seed_names[i], level, run.blocks.names, values)
            on_level(seed, level)
    return pd.DataFrame(rows)
