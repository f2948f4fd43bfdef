"""Transfer experiments with a planted cause, as the folders that the command leaves.

Exponents and layer-wise shares of the tasks are unrelated by construction; the loss of a ticket
follows the distance of one of them, or of neither.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.studies.transfer.findings import write_findings
from imp_rg.blocks import BlockPartition
from imp_rg.flow import FlowPoint, FlowTrajectory
from imp_rg.runs import tables
from imp_rg.runs.files import read_csv, write_csv, write_json
from imp_rg.runs.folder import ticket_path
from imp_rg.runs.tickets import write_ticket
from imp_rg.types import Variables

LAYERS = 4
NUM_LEVELS = 11
DENSITY = 0.64 ** np.arange(NUM_LEVELS)
TIME = -np.log(DENSITY)
DENSE, OWN, RANDOM = 96.0, 90.0, 70.0


@dataclass(frozen=True, kw_only=True)
class World:
    """What the experiment shall look like.

    Attributes:
      cause: What the loss follows: sigma, share or nothing.
      num_tasks: Tasks.
      num_seeds: Replicates.
      levels: Compared levels.
      more_levels: Levels at which tickets were trained, too.
      is_saturated: Whether random masks do as well as the dense network.
      slope: Points lost at the largest distance of the cause, at level 8; in proportion to it.
      scatter: Of the loss between cells, in points.
      seed: Of everything drawn.
    """

    cause: str = "sigma"
    num_tasks: int = 8
    num_seeds: int = 3
    levels: tuple[int, ...] = (6, 8)
    more_levels: tuple[int, ...] = (2, 4)
    is_saturated: bool = False
    slope: float = 4.0
    scatter: float = 0.2
    seed: int = 0

    @property
    def tasks(self):
        return [f"task{i}" for i in range(self.num_tasks)]


def write_experiment(folder, **settings):
    """Writes the folder of a `World`; returns it."""
    world, folder = World(**settings), Path(folder)
    rng = np.random.default_rng(world.seed)
    growth = 0.2 * rng.standard_normal((2, world.num_tasks, 1, LAYERS))
    magnitude, kept = (_shares(x * TIME[:, None]) for x in growth)
    for i, task in enumerate(world.tasks):
        _write_source(folder / "sources" / task, world, magnitude[i], kept[i], rng)
    causes = {"sigma": np.log(LAYERS * magnitude[:, -1]) / TIME[-1], "share": kept[:, 6]}
    loss = _loss(world, causes.get(world.cause), rng)
    write_csv(folder / "cells.csv", pd.DataFrame(_cells(world, loss, rng)))
    config = {"experiment": "transfer", "tasks": world.tasks, "seeds": world.num_seeds}
    write_json(folder / "config.json", config | {"levels_compared": list(world.levels)})
    return folder


def find(folder, num_permutations):
    """Writes the findings of an experiment; returns them by name, as they come back from disk."""
    write_findings(folder, num_permutations=num_permutations)
    return {path.stem: read_csv(path) for path in folder.glob("*.csv")}


def row_of(frame, **where):
    """The only row with these values."""
    for column, value in where.items():
        frame = frame[frame[column] == value]
    assert len(frame) == 1
    return frame.iloc[0]


def _shares(logits):
    weights = np.exp(logits)
    return weights / weights.sum(axis=-1, keepdims=True)


def _loss(world, positions, rng):
    """Points lost [source target]; without a cause, those of an arrangement nobody knows."""
    if positions is None:
        positions = rng.standard_normal((world.num_tasks, LAYERS))
    distance = np.linalg.norm(positions[:, None] - positions, axis=-1)
    scatter = world.scatter * rng.standard_normal(distance.shape)
    return world.slope * distance / distance.max() + scatter


def _cells(world, loss, rng):
    random_metric = DENSE - 1 if world.is_saturated else RANDOM
    for level in (0, *world.more_levels, *world.levels):
        for seed in range(world.num_seeds):
            for target, source in np.ndindex(loss.shape):
                ticket = OWN - level / 8 * loss[source, target] * (source != target)
                kinds = {"ticket": ticket, "random": random_metric, "reinit": ticket - 2}
                for kind, metric in kinds.items() if level else ():
                    yield _row(world, target, source, kind, level, seed, metric, rng)
            for target in range(world.num_tasks) if level == 0 else ():
                yield _row(world, target, target, "dense", 0, seed, DENSE - 0.1 * target, rng)


def _row(world, target, source, kind, level, seed, metric, rng):
    return {
        "target": world.tasks[target],
        "source": world.tasks[source],
        "kind": kind,
        "level": level,
        "density": DENSITY[level],
        "seed": seed,
        "test_metric": metric + 0.1 * rng.standard_normal(),
    }


def _write_source(folder, world, magnitude, kept, rng):
    """A run folder whose shares of magnitude and of kept weights are given, [level block]."""
    names = tuple(f"dense{i}" for i in range(LAYERS))
    blocks = BlockPartition(names=names, block_of=(), sizes=(10**6,) * LAYERS)
    noise = np.exp(0.01 * rng.standard_normal((2, world.num_seeds, 1, LAYERS)) * TIME[:, None])
    kept = np.round(kept * DENSITY[:, None] * 1e6)
    kept = np.broadcast_to(kept, (world.num_seeds, *kept.shape))
    flow = FlowTrajectory(
        blocks=blocks,
        num_kept=np.round(DENSITY * LAYERS * 10**6),
        points={"trained": _point(magnitude * noise[0], kept)},
        nulls={"init": _point(noise[1], kept)},
    )
    seeds = range(world.num_seeds)
    write_json(folder / "config.json", {"dataset": folder.name})
    write_csv(folder / "flow.csv", tables.flow_frame(flow, seeds))
    write_csv(folder / "null_flow.csv", tables.null_frame(flow, seeds))
    write_csv(folder / "metrics.csv", pd.DataFrame({"seed": [0], "level": [0]}))
    for seed in seeds:
        for level in world.levels:
            _write_ticket(ticket_path(folder, seed, level), level, rng)


def _write_ticket(path, level, rng):
    """Two prunable layers, and a head that is none and has another size for every task."""
    head = np.zeros((8, rng.integers(2, 9)), np.float32)
    params = {f"dense{i}": {"kernel": np.zeros((40, 40), np.float32)} for i in range(2)}
    params["head"] = {"kernel": head}
    masks = {
        name: {"kernel": rng.random((40, 40)) < DENSITY[level]} for name in ("dense0", "dense1")
    }
    masks["head"] = {"kernel": np.ones(head.shape, bool)}
    write_ticket(path, Variables(params, {}), masks, {"seed": "0"})


def _point(magnitude, surviving):
    return FlowPoint(magnitude=magnitude, surviving=surviving, total=magnitude.sum(axis=-1))
