"""Cells of a vision experiment without a run: planted exponents of the four stages.

A share of each stage is a pure exponential in RG time; what the stages leave is the block `rest`,
so that any sigma can be planted, and comes back exactly without noise.
"""

from typing import Any

import numpy as np
import pandas as pd

from experiments.studies.vision.config import slug
from imp_rg.blocks import BlockPartition
from imp_rg.flow import FlowPoint, FlowTrajectory
from imp_rg.runs import tables
from imp_rg.runs.files import write_csv, write_json

STAGES = ("stage1", "stage2", "stage3", "stage4")
SHARES = np.array([0.05, 0.08, 0.12, 0.25])
SIZES = (1000, 2000, 4000, 8000, 9000)


def write_cell(
    folder,
    sigma,
    *,
    init_null=None,
    oneshot_null=(0.1, 0.1, 0.05, -0.1),
    seeds=3,
    levels=18,
    noise=0.0,
    accuracy=(93.0, 90.0),
    blocks=STAGES,
    finished=True,
    seed=0,
    **settings,
):
    """One cell: `sigma` of the trained weights (`noise` between seeds) and those of two nulls."""
    rng = np.random.default_rng(seed)
    time = -np.log(0.8) * np.arange(levels + 1)[:, None]

    def flow(slopes, noise=0.0):
        slopes = np.asarray(slopes) + noise * rng.standard_normal((seeds, 1, len(SHARES)))
        shares = SHARES * np.exp(slopes * time)
        shares = np.append(shares, 1 - shares.sum(-1, keepdims=True), axis=-1)
        assert shares.min() > 0
        surviving = np.round(1e4 * shares * np.exp(-time))
        return FlowPoint(
            magnitude=100 * shares, surviving=surviving, total=np.full(shares.shape[:-1], 120.0)
        )

    partition = BlockPartition(names=(*blocks, "rest"), block_of=tuple(range(5)), sizes=SIZES)
    trajectory = FlowTrajectory(
        blocks=partition,
        num_kept=np.round(0.8 ** np.arange(levels + 1) * sum(SIZES)),
        points={"trained": flow(sigma, noise)},
        nulls={
            "gaussian": flow((0.2, 0.1, 0.05, -0.1)),
            "init": flow(sigma if init_null is None else init_null),
            "oneshot": flow(oneshot_null),
        },
    )
    config = {"model": "resnet50", "metric": "test accuracy (%)", "num_test": 10_000} | settings
    write_json(folder / "config.json", config)
    environment = {"command": "none", "device": "cpu", "seconds": 7200.0, "finished": finished}
    write_json(folder / "environment.json", environment)
    write_csv(folder / "flow.csv", tables.flow_frame(trajectory, range(seeds)))
    write_csv(folder / "null_flow.csv", tables.null_frame(trajectory, range(seeds)))
    dense, last = accuracy
    metrics = {"level": np.arange(levels + 1), "density": trajectory.density, "status": "ok"}
    metric = dense + (last - dense) * np.linspace(0, 1, levels + 1) ** 3
    frames = [
        pd.DataFrame({"seed": s, **metrics, "test_metric": metric + s - 1}) for s in range(seeds)
    ]
    write_csv(folder / "metrics.csv", pd.concat(frames))


def write_cells(folder, cells):
    """An experiment: for each (task, init) the arguments of `write_cell`, or None for no folder."""
    listed = []
    for i, ((task, init), planted) in enumerate(cells.items()):
        name = f"{slug(task)}--{slug(init)}"
        mode = "rewind_lt" if init == "scratch" else "pt_trans"
        listed.append({"task": task, "init": init, "mode": mode, "folder": name, "num_classes": 10})
        if planted is not None:
            sigma, *rest = planted
            settings: dict[str, Any] = {"seed": i} | (rest[0] if rest else {})
            write_cell(folder / name, sigma, dataset=task, init=init, **settings)
    write_json(folder / "config.json", {"experiment": "vision", "cells": listed})
    return folder
