"""Companion observables of a run of our own, written level by level.

In: states before and after a level. Out: rows of ``observables.csv``.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from experiments.trunk.assemble import Setup
from experiments.trunk.config import Config
from imp_rg.imp.observables import LevelWeights, observable_rows, observe_level
from imp_rg.imp.operator import ImpState
from imp_rg.imp.replicates import unstack
from imp_rg.pytree import leaf_paths, to_flat
from imp_rg.runs.files import read_csv, write_csv


def record_observables(
    config: Config, setup: Setup, path: Path, rows: np.ndarray, imp: ImpState, before: ImpState
) -> None:
    """Adds one level to the table; what a killed start left of it is replaced.

    Args:
      config: Settings.
      setup: What they determine.
      path: ``observables.csv``.
      rows: Positions of the active replicates on the seed axis.
      imp: Their states after the level.
      before: States of the same replicates before it.
    """
    level = int(imp.level[0])
    now, earlier = unstack(imp), unstack(before)
    masks = [to_flat(one.masks) for one in now]
    found = []
    for i, row in enumerate(rows):
        values = observe_level(
            leaf_paths(setup.shapes),
            setup.blocks.block_of,
            len(setup.blocks.names),
            LevelWeights(to_flat(now[i].variables.params).__getitem__, masks[i].__getitem__),
            rewind=to_flat(now[i].rewind.params).__getitem__,
            previous=to_flat(earlier[i].masks).__getitem__ if level else None,
            other_seed=masks[(i + 1) % len(masks)].__getitem__ if len(masks) > 1 else None,
            unit_axis=-1,
        )
        found += observable_rows(config.seed_list[row], level, setup.blocks.names, values)
    frame = pd.DataFrame(found)
    if level and path.exists():
        there = read_csv(path)
        frame = pd.concat([there[there["level"] < level], frame])
    write_csv(path, frame)
