"""Runs of our own, read back from their tables.

In: a run folder. Out: the `Flow` that its CSVs hold.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imp_rg.blocks import REST, BlockPartition
from imp_rg.flow import FlowPoint, FlowTrajectory
from imp_rg.runs.flow import Flow, MaskReader
from imp_rg.runs.folder import ticket_path
from imp_rg.runs.run_tables import NEEDED, read_tables
from imp_rg.runs.tickets import read_masks
from imp_rg.types import POINTS


def is_run_folder(path: Path) -> bool:
    """Whether a folder holds a run of ours, finished or not."""
    return path.is_dir() and (path / "config.json").is_file() and (path / "flow.csv").is_file()


def read_run_folder(path: Path) -> Flow:
    """Reads the tables of a run, finished or not.

    Args:
      path: A run folder.

    Returns:
      The flow. Its partition knows names and sizes of the blocks, not their tensors: `block_of` is
      empty.

    Raises:
      ValueError: If a file is missing or unreadable, in one line.
    """
    for name in NEEDED:
        if not (path / name).is_file():
            raise ValueError(f"{path}: must hold {name} to be read as a run of ours")
    tables = read_tables(path, is_finished=False)
    try:
        trajectory, seeds = _trajectory(tables.flow, tables.null_flow)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: flow.csv must be as a run writes it, got {error}") from error
    return Flow(
        name=path.resolve().name,
        seeds=tuple(seeds),
        trajectory=trajectory,
        settings=tables.config,
        metrics=tables.metrics,
        observables=tables.observables,
        read_masks=_ticket_masks(path, seeds, len(trajectory.num_kept)),
    )


def _ticket_masks(path: Path, seeds: list[Any], num_levels: int) -> MaskReader | None:
    """Reads masks of prunable tensors from tickets, if they are all there."""
    tickets = [[ticket_path(path, seed, level) for level in range(num_levels)] for seed in seeds]
    if not all(ticket.is_file() for row in tickets for ticket in row):
        return None
    last = read_masks(tickets[0][-1])
    prunable = [name for name, mask in last.items() if not mask.all()]

    def masks_of(seed: int, level: int) -> Mapping[str, np.ndarray]:
        masks = read_masks(tickets[seed][level])
        return {name: masks[name] for name in prunable}

    return masks_of


def _trajectory(flow: pd.DataFrame, null_flow: pd.DataFrame) -> tuple[FlowTrajectory, list[Any]]:
    names = tuple(flow["block"].unique())
    if REST in names:  # it comes last, whatever the order of the rows
        names = (*(name for name in names if name != REST), REST)
    seeds = sorted(set(flow["seed"]) | set(null_flow["seed"]))
    levels = pd.concat([flow, null_flow]).groupby("level")["density"].first()
    if list(levels.index) != list(range(len(levels))):
        raise ValueError(f"levels {list(levels.index)}")
    dense = flow[flow["surviving"] > 0].groupby("block").first()
    sizes = (dense["surviving"] / dense["block_density"]).round().astype(int)
    blocks = BlockPartition(
        names=names, block_of=(), sizes=tuple(int(sizes.get(name, 0)) for name in names)
    )

    def point(frame: pd.DataFrame) -> FlowPoint:
        shape = (len(seeds), len(levels), len(names))
        index = pd.MultiIndex.from_product([seeds, range(len(levels)), names])
        rows = frame.set_index(["seed", "level", "block"]).reindex(index)
        magnitude = rows["magnitude"].to_numpy(float).reshape(shape)
        share_all = rows["share_all"].to_numpy(float).reshape(shape)
        largest = np.nan_to_num(magnitude, nan=-1).argmax(axis=-1)[..., None]
        total = np.take_along_axis(magnitude, largest, -1) / np.take_along_axis(
            share_all, largest, -1
        )
        surviving = rows["surviving"].to_numpy(float).reshape(shape)
        return FlowPoint(magnitude=magnitude, surviving=surviving, total=total[..., 0])

    there = set(flow["point"])
    trajectory = FlowTrajectory(
        blocks=blocks,
        num_kept=(levels.to_numpy() * sum(blocks.sizes)).round().astype(int),
        points={name: point(flow[flow["point"] == name]) for name in POINTS if name in there},
        nulls={str(name): point(rows) for name, rows in null_flow.groupby("null", sort=False)},
    )
    return trajectory, seeds
