"""What a run carries from level to level, and how it starts, is saved and comes back.

In: a config and its `Setup`. Out: a `RunState`.
"""

import io
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from experiments.shell.study import AS_IS
from experiments.trunk.assemble import Setup
from experiments.trunk.config import Config
from experiments.trunk.nulls import NULLS, record_gaussian
from imp_rg.imp.mesh import from_lead
from imp_rg.imp.operator import ImpState
from imp_rg.imp.record import RunRecord, empty_record
from imp_rg.imp.replicates import stack
from imp_rg.pytree import from_flat
from imp_rg.runs.checkpoints import Checkpoints
from imp_rg.types import Keys


class RunState(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      imp: States of the active replicates, stacked.
      active: Their positions on the seed axis.
      record: Results so far.
    """

    imp: ImpState
    active: np.ndarray
    record: RunRecord


def run_keys(config: Config) -> Keys:
    """One key a replicate, the same at every level and after every restart."""
    return _split_seeds(config)[:, 1]


def _split_seeds(config: Config) -> Any:
    """Two keys a replicate: for the initial weights and for the run, [seed 2]."""
    seeds = jnp.array(config.seed_list)
    return jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(seeds)


def start(config: Config, setup: Setup, keys: Keys) -> RunState:
    """Initial variables, the rewind point, and the null that needs no weights."""
    init_fn = jax.jit(setup.init)
    initial = stack([init_fn(key) for key in _split_seeds(config)[:, 0]])
    record = empty_record(
        num_seeds=config.seeds,
        num_levels=config.levels + 1,
        num_blocks=len(setup.blocks.names),
        num_leaves=len(setup.blocks.block_of),
        nulls=(*NULLS, *config.null),
    )
    record_gaussian(record, setup, initial.params)
    imp = setup.scheme.start(keys, initial, setup.train_data)
    return RunState(imp=imp, active=np.arange(config.seeds), record=record)


def drop_failed(state: RunState, is_finite: np.ndarray) -> RunState:
    """Leaves replicates with a non-finite loss behind."""
    if is_finite.all():
        return state
    imp = jax.tree.map(lambda x: x[np.flatnonzero(is_finite)], state.imp)
    return state._replace(imp=imp, active=state.active[is_finite])


def restore(
    config: Config, setup: Setup, checkpoints: Checkpoints, console: Console
) -> tuple[int, RunState] | None:
    """The newest sound checkpoint; says what it is and what was wrong with newer ones."""
    restored = _from_lead(checkpoints.restore())
    for problem in checkpoints.problems:
        console.print(f"warning: {problem}; going back to the one before", **AS_IS)
    if restored is None:
        if checkpoints.problems:
            console.print("warning: no sound checkpoint is left; starting from the beginning")
        return None
    level, flat = restored
    console.print(f"continuing after level {level}", highlight=False)
    state: RunState = from_flat(flat, _template(config, setup))
    record = jax.tree.map(np.array, state.record)
    return level, RunState(
        imp=jax.tree.map(jnp.asarray, state.imp), active=np.asarray(state.active), record=record
    )


def _from_lead(restored: tuple[int, dict[str, np.ndarray]] | None):
    """What the lead restored, on every process."""
    if jax.process_count() == 1:
        return restored
    level, flat = restored or (-1, {})
    arrays: dict[str, Any] = flat | {"level": np.array(level)}
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    with np.load(io.BytesIO(from_lead(packed.getvalue()))) as found:
        flat = dict(found)
    level = int(flat.pop("level"))
    return (level, flat) if flat else None


def _template(config: Config, setup: Setup) -> RunState:
    """A `RunState` of the right structure; its leaves mean nothing."""
    variables = jax.eval_shape(setup.init, jax.random.key(0))
    record = empty_record(
        num_seeds=1, num_levels=1, num_blocks=1, num_leaves=1, nulls=(*NULLS, *config.null)
    )
    imp = ImpState(
        level=jnp.int32(0), variables=variables, masks=variables.params, rewind=variables
    )
    return RunState(imp=imp, active=np.arange(1), record=record)
