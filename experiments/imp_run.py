"""The run behind `experiments.imp_flow`: level by level, resumable, then tables and page.

In: a config and its `Setup`. Out: a run folder (`imp_rg.io.runs`).
"""

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from experiments import cli
from experiments.setup import Setup
from imp_rg.flow import FlowPoint, flow_point
from imp_rg.imp.controls import null_flow, null_sources, shuffle_masks
from imp_rg.imp.levels import run_level
from imp_rg.imp.operator import ImpState
from imp_rg.imp.record import RunRecord, empty_record
from imp_rg.imp.replicates import num_usable_cores, stack, unstack
from imp_rg.io import tables
from imp_rg.io.checkpoints import Checkpoints
from imp_rg.io.files import read_json, write_csv, write_json
from imp_rg.io.runs import TABLES, RunFolder, config_hash, describe_environment
from imp_rg.io.tickets import write_ticket
from imp_rg.pytree import from_flat, leaf_paths, to_flat
from imp_rg.report import LEAD_COLUMNS, lead_rows, write_report
from imp_rg.rg import gaussian_null_flow
from imp_rg.types import Batch, Keys, Params

if TYPE_CHECKING:
    from experiments.imp_flow import Config

AS_IS: Any = {"highlight": False, "markup": False, "soft_wrap": True}
"""How text with paths is printed: brackets are no markup, a long line stays one."""

NULLS = ("gaussian", "init", "oneshot", "random")


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


def is_finished(folder: RunFolder) -> bool:
    """Whether all levels and their tables are there."""
    needed = (folder.environment, *map(folder.table, TABLES))
    is_whole = all(path.exists() for path in needed)
    return is_whole and read_json(folder.environment).get("finished", False)


def run_levels(
    config: "Config",
    setup: Setup,
    folder: RunFolder,
    console: Console,
    *,
    command: str,
    began: float,
) -> None:
    """Runs the levels that are missing; after each one everything it gave is on disk."""
    _warn_of_cores(folder, console)
    checkpoints = Checkpoints(folder.checkpoints)
    keys = _run_keys(config)
    train_data = Batch(jnp.asarray(setup.images.x_train), jnp.asarray(setup.images.y_train))
    test_data = Batch(jnp.asarray(setup.images.x_test), jnp.asarray(setup.images.y_test))
    restored = _restore(config, setup, folder, checkpoints, console)
    level, state = restored or (-1, _start(config, setup, keys, train_data))
    earlier = float(np.nansum(state.record.seconds))

    def describe(is_finished: bool) -> None:
        seconds = earlier + time.monotonic() - began
        environment = describe_environment(command=command, seconds=seconds)
        write_json(folder.environment, environment | {"finished": is_finished})

    describe(is_finished=False)
    with setup.progress as progress:
        while level < config.levels and len(state.active):
            if cli.interrupted.is_set():
                raise KeyboardInterrupt
            level += 1
            density = setup.num_kept[level] / setup.num_kept[0]
            progress.start_level(level, density, list(state.active))
            level_began = time.monotonic()
            imp, level_record = run_level(
                setup.scheme, keys[state.active], state.imp, train_data, test_data
            )
            state.record.put(level, state.active, level_record, time.monotonic() - level_began)
            is_finite = np.asarray(level_record.is_finite)
            _name_failed(config, state.active[~is_finite], level, console)
            state = _drop_failed(state._replace(imp=imp), is_finite)
            _record_nulls(config, setup, keys, state, level, train_data)
            progress.end_level(float(np.mean(level_record.test_metric)))
            _save(config, setup, folder, checkpoints, level, state)
    if not len(state.active):
        console.print(f"warning: no replicate is left after level {level}; the run ends here")
    checkpoints.close()
    write_tables(config, setup, folder, state.record)
    flow = state.record.trajectory(setup.blocks, setup.num_kept)
    spectrum = tables.spectrum_frame(flow, ci_level=config.ci_level)
    write_csv(folder.table("spectrum"), spectrum)
    describe(is_finished=True)


def _warn_of_cores(folder: RunFolder, console: Console) -> None:
    """Another number of cores changes the last bits of sums on a CPU."""
    if not folder.environment.exists():
        return
    before, now = read_json(folder.environment)["cores"], num_usable_cores()
    if before != now:
        console.print(
            f"warning: begun on {before} cores, continued on {now}: last bits may differ",
            highlight=False,
        )


def report(folder: RunFolder, console: Console) -> None:
    """Draws figures and page from the tables, and prints the lead table."""
    page = write_report(folder.path)
    table = Table(*LEAD_COLUMNS)
    for row in lead_rows(pd.read_csv(folder.table("spectrum"))):
        table.add_row(*row.cells)
    console.print(table)
    console.print(f"report: {page}", **AS_IS)


def _run_keys(config: "Config") -> Keys:
    return _split_seeds(config)[:, 1]


def _split_seeds(config: "Config") -> Any:
    """Two keys a replicate: for the initial weights and for the run, [seed 2]."""
    seeds = jnp.array(config.seed_list)
    return jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(seeds)


def _start(config: "Config", setup: Setup, run_keys: Keys, train_data: Batch) -> RunState:
    """Initial variables, the rewind point, and the null that needs no weights."""
    init_fn = jax.jit(lambda key: setup.model.init(key, setup.input_shape))
    initial = stack([init_fn(key) for key in _split_seeds(config)[:, 0]])
    record = empty_record(
        num_seeds=config.seeds,
        num_levels=config.levels + 1,
        num_blocks=len(setup.blocks.names),
        num_leaves=len(setup.blocks.block_of),
        nulls=(*NULLS, *config.null),
    )
    _record_gaussian(record, setup, initial.params)
    imp = setup.scheme.start(run_keys, initial, train_data)
    return RunState(imp=imp, active=np.arange(config.seeds), record=record)


def _record_gaussian(record: RunRecord, setup: Setup, initial: Params) -> None:
    """Closed form from the size and the initial standard deviation of each prunable tensor."""
    block_of = np.array(setup.blocks.block_of)
    prunable = np.flatnonzero(block_of >= 0)
    leaves = jax.device_get(jax.tree.leaves(initial))
    for seed in range(len(leaves[0])):
        null = gaussian_null_flow(
            np.array([leaves[k][seed].size for k in prunable]),
            np.array([leaves[k][seed].std() for k in prunable], float),
            block_of[prunable],
            setup.num_kept / setup.num_kept[0],
        )
        unpruned = sum(np.abs(leaves[k][seed]).sum() for k in np.flatnonzero(block_of < 0))
        flow = FlowPoint(null.magnitude, null.surviving, null.magnitude.sum(axis=1) + unpruned)
        record.put_null("gaussian", seed, slice(None), flow)


def _record_nulls(
    config: "Config", setup: Setup, keys: Keys, state: RunState, level: int, train_data: Batch
) -> None:
    """Nulls of this level: all levels of those that prune once, this one of those that retrain."""
    rows = state.active
    if level == 0:
        for row, key, imp in zip(rows, keys[rows], unstack(state.imp), strict=True):
            sources = null_sources(imp.rewind.params, imp.variables.params)
            for name, source in sources.items():
                flow = null_flow(
                    jax.random.fold_in(key, config.levels + 1),
                    source,
                    blocks=setup.blocks,
                    schedule=setup.scheme.schedule,
                    prune_fn=setup.scheme.prune,
                )
                state.record.put_null(name, row, slice(None), jax.device_get(flow))
    if "shuffled" in config.null and len(rows):
        flow = _shuffled_flow(config, setup, keys[rows], state.imp, train_data)
        state.record.put_null("shuffled", rows, level, jax.device_get(flow))


def _shuffled_flow(
    config: "Config", setup: Setup, keys: Keys, imp: ImpState, train_data: Batch
) -> FlowPoint:
    """Trains under the masks of this level, permuted within each tensor; fields [seed block]."""
    keys = jax.vmap(lambda key, level: jax.random.fold_in(key, config.levels + 2 + level))(
        keys, imp.level
    )
    masks = jax.vmap(lambda key, masks: shuffle_masks(key, masks, setup.blocks.prunable))(
        keys, imp.masks
    )
    variables, _ = setup.scheme.retrain(keys, imp.rewind, masks, train_data)
    return jax.vmap(lambda params, masks: flow_point(params, masks, blocks=setup.blocks))(
        variables.params, masks
    )


def _name_failed(config: "Config", failed: np.ndarray, level: int, console: Console) -> None:
    for row in failed:
        seed = config.seed_list[row]
        console.print(f"warning: seed {seed} stops at level {level}: its loss is not finite")


def _drop_failed(state: RunState, is_finite: np.ndarray) -> RunState:
    """Leaves replicates with a non-finite loss behind."""
    if is_finite.all():
        return state
    imp = jax.tree.map(lambda x: x[np.flatnonzero(is_finite)], state.imp)
    return state._replace(imp=imp, active=state.active[is_finite])


def _save(
    config: "Config",
    setup: Setup,
    folder: RunFolder,
    checkpoints: Checkpoints,
    level: int,
    state: RunState,
) -> None:
    """Tickets first, then the checkpoint that vouches for them, then tables."""
    settings = read_json(folder.config)
    for row, imp in zip(state.active, unstack(state.imp), strict=True):
        seed = config.seed_list[row]
        metadata = {
            "config_hash": config_hash(settings),
            "seed": str(seed),
            "level": str(level),
            "density": str(setup.num_kept[level] / setup.num_kept[0]),
        }
        write_ticket(folder.ticket(seed, level), imp.rewind, imp.masks, metadata)
    if len(state.active):
        checkpoints.save(level, to_flat(state))
    write_tables(config, setup, folder, state.record)


def write_tables(config: "Config", setup: Setup, folder: RunFolder, record: RunRecord) -> None:
    """Writes the tables of all levels so far."""
    flow = record.trajectory(setup.blocks, setup.num_kept)
    steps = config.train.num_steps - config.train.first_step
    seeds, leaves = config.seed_list, leaf_paths(setup.shapes)
    write_csv(folder.table("flow"), tables.flow_frame(flow, seeds))
    write_csv(folder.table("null_flow"), tables.null_frame(flow, seeds))
    write_csv(folder.table("metrics"), tables.metrics_frame(record, flow, seeds, steps, leaves))
    write_csv(folder.table("timing"), tables.timing_frame(record, seeds))


def _restore(
    config: "Config", setup: Setup, folder: RunFolder, checkpoints: Checkpoints, console: Console
) -> tuple[int, RunState] | None:
    """The newest sound checkpoint; says what it is and what was wrong with newer ones."""
    restored = checkpoints.restore()
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


def _template(config: "Config", setup: Setup) -> RunState:
    """A `RunState` of the right structure; its leaves mean nothing."""
    variables = jax.eval_shape(lambda: setup.model.init(jax.random.key(0), setup.input_shape))
    record = empty_record(
        num_seeds=1, num_levels=1, num_blocks=1, num_leaves=1, nulls=(*NULLS, *config.null)
    )
    imp = ImpState(
        level=jnp.int32(0), variables=variables, masks=variables.params, rewind=variables
    )
    return RunState(imp=imp, active=np.arange(1), record=record)
