"""From a path to a flow: recognises what lies there and has it measured."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from imp_rg.config import PruneConfig
from imp_rg.runs.files import read_csv
from imp_rg.foreign.network import open_network
from imp_rg.foreign.tensors import open_tensors
from imp_rg.runs.folder import ticket_path
from imp_rg.runs.flow import Flow, MaskReader
from imp_rg.foreign.measure_run import OnLevel, measure_run
from imp_rg.foreign.run import open_run
from imp_rg.foreign.observe import observe_run
from imp_rg.runs.own import is_run_folder, read_run_folder

ONE_SHOT_LEVELS = 12


def _say_nothing(seed: str, level: int) -> None:
    del seed, level


def read(
    path: str | Path,
    *,
    blocks: str | Path = "auto",
    one_shot: PruneConfig = PruneConfig(),  # noqa: B008  (frozen)
    levels: int = ONE_SHOT_LEVELS,
    observe: bool = False,
    on_level: OnLevel = _say_nothing,
) -> Flow:
    """Reads the flow of a pruning run, ours or anybody's.

    Recognised are a run folder of this package, a folder of checkpoints with one file a level
    (PyTorch, safetensors, npz, Orbax, Flax msgpack; several seeds as sub-folders), the level
    folders of open_lth, a manifest, and a single checkpoint, of which the flow of one-shot pruning
    is read.
    Masks may be zeros in the weights, ``weight_orig`` and ``weight_mask`` pairs, files of their own
    or mask trees.

    Args:
      path: File or folder.
      blocks: ``auto`` (by the names of the tensors), a preset such as ``cifar-resnet``, patterns as
        ``NAME=PATTERN,...``, or a TOML file. A run folder of ours keeps its own blocks.
      one_shot: How a single checkpoint is pruned.
      levels: Last level of that pruning.
      observe: Whether to compute the companion observables, too; it reads everything twice.
      on_level: Called with seed and level after each level that was read.

    Returns:
      The flow, with nulls; `Flow.spectrum` gives its exponents, `Flow.frame` a pandas frame.

    Raises:
      ValueError: In one line, if there is nothing readable, masks are not nested, density rises,
        levels differ in their tensors or are missing, weights are not finite, or a pattern of
        `blocks` matches nothing.

    References:
      Redman et al., arXiv:2110.03210, Eqs. 13-14.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: must be a file or folder, there is none")
    if is_run_folder(path):
        if blocks != "auto":
            raise ValueError(
                f"blocks: a run of ours keeps its own; to divide {path} anew give its folder "
                f"levels (written by --save-levels), got {blocks}"
            )
        return _read_own(path, on_level)
    run = open_run(path, blocks=blocks)
    flow = measure_run(run, on_level, one_shot=one_shot, levels=levels)
    if observe and not run.is_single:
        flow = dataclasses.replace(flow, observables=observe_run(run, on_level))
    return flow


def _read_own(path: Path, on_level: OnLevel) -> Flow:
    trajectory, seeds, settings, metrics = read_run_folder(path)
    for seed in seeds:
        on_level(str(seed), len(trajectory.num_kept) - 1)
    return Flow(
        name=path.resolve().name,
        seeds=tuple(seeds),
        trajectory=trajectory,
        settings=settings,
        metrics=metrics,
        observables=read_csv(path / "observables.csv")
        if (path / "observables.csv").is_file()
        else pd.DataFrame(),
        read_masks=_ticket_masks(path, seeds, len(trajectory.num_kept)),
    )


def _ticket_masks(path: Path, seeds: list, num_levels: int) -> MaskReader | None:
    """Reads masks from tickets, if they are all there."""
    tickets = [[ticket_path(path, seed, level) for level in range(num_levels)] for seed in seeds]
    if not all(ticket.is_file() for row in tickets for ticket in row):
        return None
    last = _masks(tickets[0][-1])
    prunable = [name for name, mask in last.items() if not mask.all()]

    def read_masks(seed: int, level: int) -> Mapping[str, np.ndarray]:
        masks = _masks(tickets[seed][level])
        return {name: masks[name] for name in prunable}

    return read_masks


def _masks(ticket: Path) -> dict[str, np.ndarray]:
    network = open_network(open_tensors(ticket))
    masks = {name: network.mask(name) for name in network.shapes}
    return {name: mask for name, mask in masks.items() if mask is not None}
