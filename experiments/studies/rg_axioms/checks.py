"""The checks of `experiments.rg_axioms` that apply operators: outcomes, composition, symmetry.

In: the experiment's config. Out: one row a check.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from rich.console import Console

from experiments.trunk.assemble import Setup, prepare
from experiments.trunk.config import Config as RunConfig
from experiments.trunk.state import run_keys
from imp_rg.imp.operator import ImpState
from imp_rg.imp.projection import (
    commutes_with_permutation,
    differing_leaves,
    outcome_shares,
    prune_in_steps,
)
from imp_rg.imp.prune import prune_schedule
from imp_rg.imp.replicates import stack, unstack
from imp_rg.imp.saliency import magnitude
from imp_rg.pytree import ones_masks

ONE_OUTCOME = "same key and data order: one outcome"
COMMUTES = "M commutes with permutations within tensors"
COMPOSES = "M in small steps equals M at once, to the bit"


def check_operators(config: Any, folder: Path) -> pd.DataFrame:
    """Applies T to the dense state repeatedly and M in steps.

    Args:
      config: Of `experiments.rg_axioms`.
      folder: Where the runs lie.

    Returns:
      Columns check, holds, detail.
    """
    division = max(config.divisions)
    settings = dataclasses.replace(config.run_config(division, folder), seeds=1)
    setup = _prepare(settings)
    data, keys = setup.train_data, run_keys(settings)
    initial = stack([setup.init(jax.random.key(0))])
    dense, _ = setup.scheme.step(keys, setup.scheme.start(keys, initial, data), data)
    again = [setup.scheme.step(keys, dense, data)[0] for _ in range(config.repeats)]
    shares = outcome_shares(again)
    other_keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    other_order = setup.scheme.step(other_keys, dense, data)[0]
    driver = "scan" if setup.execution.driver == "dispatch" else "dispatch"
    twin = _prepare(dataclasses.replace(settings, driver=driver, replicates="loop"))
    other_driver = twin.scheme.step(keys, dense, data)[0]
    return pd.DataFrame(
        [
            {
                "check": ONE_OUTCOME,
                "holds": len(shares) == 1,
                "detail": f"{config.repeats} applications of T to one state, shares of their "
                f"outcomes: {', '.join(f'{share:.2g}' for share in shares)}",
            },
            _same("another key: the same state", again[0], other_order),
            _same(f"driver {driver} for {setup.execution.driver}: the same state", again[0],
                  other_driver),
            *_mask_checks(config, setup, dense),
        ]
    )  # fmt: skip


def _prepare(settings: RunConfig) -> Setup:
    """Everything a run needs, without its display."""
    setup = prepare(settings, Console(quiet=True))
    setup.progress.start_level(0, 1.0, [0])
    return setup


def _same(check: str, a: ImpState, b: ImpState) -> dict[str, Any]:
    """Whether two states agree in every bit, and how far their weights are apart."""
    differing = differing_leaves(a, b)
    pairs = zip(jax.tree.leaves(a.variables), jax.tree.leaves(b.variables), strict=True)
    largest = max(float(jnp.max(jnp.abs(x - y))) for x, y in pairs)
    masks = zip(jax.tree.leaves(a.masks), jax.tree.leaves(b.masks), strict=True)
    moved = sum(int(jnp.sum(x != y)) for x, y in masks)
    detail = f"largest difference of a weight {largest:.2g}, {moved} mask entries differ"
    return {"check": check, "holds": not differing, "detail": detail}


def _mask_checks(config: Any, setup: Setup, dense: ImpState) -> list[dict[str, Any]]:
    """M o M = M at c^2 at every matched density, and M does not look at places."""
    params = unstack(dense.variables.params)[0]
    scores, masks = magnitude(jax.random.key(0), params, dense.masks), ones_masks(params)
    options = {"prunable": setup.blocks.prunable, "prune_fn": setup.scheme.prune}
    division = max(config.divisions)
    counts = np.asarray(setup.scheme.schedule)[1:]
    is_equal = []
    for last in range(division, len(counts) + 1, division):
        steps = prune_in_steps(scores, masks, num_remove=counts[:last], **options)
        total = counts[:last].sum(axis=0)[None]
        is_equal.append(not differing_leaves(
            steps, prune_in_steps(scores, masks, num_remove=total, **options)))  # fmt: skip
    commutes = commutes_with_permutation(
        jax.random.key(1), scores, masks, num_remove=counts[0], **options
    )
    detail = f"{sum(is_equal)} of {len(is_equal)} densities, without refinement"
    return [
        {"check": COMPOSES, "holds": all(is_equal), "detail": detail},
        _counts_agree(config, setup),
        {
            "check": COMMUTES,
            "holds": commutes,
            "detail": "one random permutation of the trained weights of each tensor",
        },
    ]


def _counts_agree(config: Any, setup: Setup) -> dict[str, Any]:
    """Largest difference of the kept weights at matched densities: rounding of counts."""
    total, kept = sum(setup.blocks.sizes), []
    for division in config.divisions:
        prune = config.run_config(division, Path()).prune
        schedule = prune_schedule((total,), prune, num_levels=config.levels * division + 1)
        kept.append((total - schedule.sum(axis=1).cumsum())[::division])
    apart = int(np.ptp(kept, axis=0).max())
    detail = f"at most {apart} of {total:,} weights apart at a matched density"
    check = "counts of small steps add up to those of large ones"
    return {"check": check, "holds": apart <= 2 * max(config.divisions), "detail": detail}
