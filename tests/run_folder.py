"""A complete run folder without a run: planted flows through the writers of `imp_rg.runs.tables`.

The nulls are untrained Gaussian weights of the real ResNet's shapes; the run adds a planted excess
to them, so every sign, interval and caveat of a report can be asked for.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imp_rg.blocks import BlockPartition
from imp_rg.flow import FlowPoint, FlowTrajectory
from imp_rg.imp.record import RunRecord, empty_record
from imp_rg.rg import gaussian_null_flow
from imp_rg.runs import tables
from imp_rg.runs.files import write_csv, write_json

NULLS = ("gaussian", "init", "oneshot", "random")
DEPTHS = {14: 2, 20: 3, 32: 5, 44: 7, 56: 9}


@dataclass(frozen=True, kw_only=True)
class FakeRun:
    """What the run shall look like.

    Attributes:
      depth: Of the CIFAR ResNet; 14 has 6 blocks, 56 has 27.
      num_seeds: Replicates.
      num_levels: Levels, dense included.
      excess: Planted sigma beyond the nulls in blocks of even index; odd ones lose it.
      noise: Scatter of the exponents between seeds.
      curvature: Planted quadratic term in RG time, alternating in sign.
      accuracy_loss: Points of accuracy lost between the dense and the last level.
      stopped_seeds: Replicates that meet a non-finite loss.
      stops_at: Level at which they do.
      collapsed_block: Block that is empty from the last level but two on, in all seeds.
      dataset: Written to config.json.
    """

    depth: int = 14
    num_seeds: int = 3
    num_levels: int = 13
    excess: float = 0.1
    noise: float = 0.01
    curvature: float = 0.0
    accuracy_loss: float = 2.0
    stopped_seeds: tuple[int, ...] = ()
    stops_at: int = 3
    collapsed_block: str | None = None
    dataset: str = "digits"

    @property
    def stages(self):
        return [s for s in (1, 2, 3) for _ in range(DEPTHS[self.depth])]

    @property
    def partition(self):
        per_stage = DEPTHS[self.depth]
        names = [f"stage{s}/block{b}" for s in (1, 2, 3) for b in range(per_stage)]
        sizes = [18 * (16 * 2 ** (s - 1)) ** 2 for s in self.stages]
        return BlockPartition(
            names=(*names, "rest"),
            block_of=tuple(range(len(names) + 1)),
            sizes=(*sizes, 1072),
        )

    @property
    def num_kept(self):
        return np.round(0.8 ** np.arange(self.num_levels) * sum(self.partition.sizes))


def write_run_folder(folder, **settings):
    """Writes config.json, environment.json and the CSVs of a `FakeRun`; returns the folder."""
    run = FakeRun(**settings)
    folder = Path(folder)
    rng = np.random.default_rng(0)
    nulls = {name: _null(run, name, rng) for name in NULLS}
    flow = FlowTrajectory(
        blocks=run.partition,
        num_kept=run.num_kept,
        points=_points(run, nulls["init"], rng),
        nulls=nulls,
    )
    seeds, leaves = range(run.num_seeds), [f"{name}/kernel" for name in run.partition.names]
    record = _record(run, flow, rng)
    write_json(folder / "config.json", _config(run))
    write_json(folder / "environment.json", ENVIRONMENT)
    for name, frame in {
        "flow": tables.flow_frame(flow, seeds),
        "null_flow": tables.null_frame(flow, seeds),
        "metrics": tables.metrics_frame(record, flow, seeds, 190, leaves),
        "timing": tables.timing_frame(record, seeds),
        "spectrum": tables.spectrum_frame(flow, ci_level=0.95),
    }.items():
        write_csv(folder / f"{name}.csv", frame)
    return folder


def _flow_point(magnitude, surviving):
    return FlowPoint(magnitude=magnitude, surviving=surviving, total=magnitude.sum(axis=-1) + 40.0)


def _null(run, name, rng):
    """Untrained weights; pure exponentials between the ends that the closed form gives."""
    sizes = np.array(run.partition.sizes)
    scales = np.array([np.sqrt(2 / (9 * 16 * 2 ** (s - 1))) for s in run.stages] + [0.2])
    density = run.num_kept / sizes.sum()
    flow = gaussian_null_flow(sizes, scales, np.arange(sizes.size), density)
    time = -np.log(density)[:, None]
    magnitude = flow.magnitude[0] * (flow.magnitude[-1] / flow.magnitude[0]) ** (time / time[-1])
    surviving = flow.surviving
    if name == "random":
        surviving = density[:, None] * sizes
        magnitude = surviving * scales
    scatter = {"gaussian": 0.0, "random": 0.002}.get(name, 0.005)
    drift = scatter * rng.standard_normal((run.num_seeds, 1, sizes.size))
    if name == "oneshot":
        drift = drift + 0.03 * np.cos(np.arange(sizes.size))
    return _flow_point(magnitude * np.exp(drift * time), surviving * np.exp(drift * time))


def _points(run, null, rng):
    sizes = np.array(run.partition.sizes)
    time = -np.log(run.num_kept / sizes.sum())[:, None]
    sign = np.where(np.arange(sizes.size) % 2 == 0, 1.0, -1.0)
    slopes = run.excess * sign + run.noise * rng.standard_normal((run.num_seeds, 1, sizes.size))
    growth = np.exp(slopes * time + run.curvature * sign * time * (time - time[-1]))
    growth = growth * np.exp(0.002 * rng.standard_normal(growth.shape))
    magnitude = null.magnitude * growth
    kept = null.surviving * growth
    kept = np.round(kept * (run.num_kept[:, None] / kept.sum(axis=-1, keepdims=True)))
    kept = np.minimum(kept, sizes)
    if run.collapsed_block is not None:
        at = run.partition.names.index(run.collapsed_block)
        magnitude[:, -3:, at] = kept[:, -3:, at] = 0
    for seed in run.stopped_seeds:
        magnitude[seed, run.stops_at :] = kept[seed, run.stops_at :] = np.nan
    postprune = 0.97 * np.roll(magnitude, 1, axis=1)
    postprune[:, 0] = np.nan
    postprune[np.isnan(magnitude)] = np.nan
    return {
        "trained": _flow_point(magnitude, kept),
        "rewound": _flow_point(0.9 * magnitude * np.exp(0.01 * sign * time), kept),
        "postprune": _flow_point(postprune, np.where(np.isnan(postprune), np.nan, kept)),
    }


def _record(run, flow, rng) -> RunRecord:
    num_blocks = len(run.partition.names)
    record = empty_record(
        num_seeds=run.num_seeds,
        num_levels=run.num_levels,
        num_blocks=num_blocks,
        num_leaves=num_blocks,
        nulls=(),
    )
    lost = run.accuracy_loss * np.linspace(0, 1, run.num_levels) ** 3
    record.test_metric[:] = 98.5 - lost + 0.1 * rng.standard_normal(record.test_metric.shape)
    record.train_loss[:] = 0.05
    record.is_finite[:] = True
    record.seconds[:] = 6.0
    record.leaf_survivors[:] = np.nan_to_num(flow.points["trained"].surviving)
    for seed in run.stopped_seeds:
        record.is_finite[seed, run.stops_at :] = False
        record.test_metric[seed, run.stops_at :] = np.nan
        record.train_loss[seed, run.stops_at :] = np.nan
    return record


def _config(run):
    return {
        "model": f"resnet{run.depth}",
        "dataset": run.dataset,
        "seeds": run.num_seeds,
        "levels": run.num_levels - 1,
        "prune_fraction": 0.2,
        "count_rule": "exact",
        "num_steps": 200,
        "rewind_step": 10,
        "batch_size": 64,
        "learning_rate": 0.1,
        "milestones": [0.5, 0.75],
        "metric": "test accuracy (%)",
        "block_names": list(run.partition.names),
        "num_listed": run.partition.num_listed,
    }


ENVIRONMENT = {
    "command": "python -m experiments.imp_flow --seeds 3",
    "commit": "0123abc",
    "device": "cpu (cpu)",
    "cores": 2,
    "python": "3.11.2",
    "versions": {"jax": "0.10.2", "numpy": "2.4.6"},
    "seconds": 93.4,
    "peak_memory_gb": 1.21,
}
