"""The paper's Tables 2 to 6 beside the exponents of a run, as tables.

In: ``spectrum.csv`` as a frame. Out: a `PaperComparison`: ``paper.csv`` and ``paper_blocks.csv``.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from imp_rg import published
from imp_rg.runs.agreement import agreement
from imp_rg.runs.files import read_csv, write_csv
from imp_rg.runs.run_tables import RunTables, lead_nulls, select

HERE = {"point": "trained", "denominator": "prunable"}
"""The conventions of this package's own tables."""

NULL_SUFFIX = " null"
"""Ends the `point` of a null in ``paper.csv``."""

RECIPE = {
    "dataset": "cifar10",
    "augment": "flip_crop",
    "normalize": "imagenet",
    "width": 1.0,
    "shortcut": "projection",
    "gamma_init": "uniform",
    "prune_fraction": 0.2,
    "fraction_of": "remaining",
    "scope": "global",
    "count_rule": "ceil+1",
    "num_steps": 62560,
    "rewind_step": 1000,
    "after_rewind": "continue",
    "batch_size": 128,
    "last_batch": "keep",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "schedule": "step",
    "milestones": [0.5, 0.75],
}
"""Behind the paper's Tables 4 to 6, from the public code of its source study."""


class PaperComparison(NamedTuple):
    """Published exponents beside those of one run.

    Attributes:
      rows: ``paper.csv``: run, source, row, point (or null), denominator (how sigma was measured),
        num_blocks, num_same_sign, rank_correlation, rms (distance), largest, largest_block, levels
        (number of transitions here), last_density, note.
      blocks: ``paper_blocks.csv``: run, source, row, block, sigma_paper, sigma, ci_low, ci_high
        (trained weights over all prunable ones).
    """

    rows: pd.DataFrame
    blocks: pd.DataFrame


class _Printed(NamedTuple):
    source: str
    row: str
    sigma: dict[str, float]
    note: str = ""


def paper_comparison(
    spectrum: pd.DataFrame, *, run: str, density: Sequence[float]
) -> PaperComparison:
    """Puts every published row that names the blocks of a run beside it.

    Stages `stage1` to `stage4` match Table 2, `layer0` to `layer11` Table 3, and the blocks of a
    CIFAR ResNet Tables 4 to 6, the depth being told by their number.

    Args:
      spectrum: ``spectrum.csv``.
      run: Name of the run.
      density: Kept fraction at each level, in order.

    Returns:
      The comparison; without rows if the paper has no such blocks.

    References:
      Redman et al., arXiv:2110.03210, Tables 2-6. Its conventions are partly unstated;
      every way to measure that the spectrum holds is therefore listed.
    """
    measured = select(spectrum, quantity="magnitude_share", estimator="paper")
    here = select(measured, **HERE)
    nulls = [f"sigma_{null}" for null in lead_nulls(here)]
    here = here[["block", "sigma", "ci_low", "ci_high", *nulls]]
    rows, blocks = [], []
    for printed in _printed_for(list(here["block"])):
        key = {"run": run, "source": printed.source, "row": printed.row}
        routes: dict[Any, pd.Series] = {
            route: of_route.set_index("block")["sigma"]
            for route, of_route in measured.groupby(["point", "denominator"], sort=False)
        }
        for null in nulls:
            name = null.removeprefix("sigma_") + NULL_SUFFIX
            routes[name, HERE["denominator"]] = here.set_index("block")[null]
        theirs = pd.Series(printed.sigma, dtype=float)
        for (point, denominator), ours in routes.items():
            route = {"point": point, "denominator": denominator}
            rows.append({**key, **route, **dataclasses.asdict(agreement(ours, theirs))})
            rows[-1] |= {
                "levels": len(density) - 1,
                "last_density": float(density[-1]),
                "note": printed.note,
            }
        printed_frame = theirs.rename("sigma_paper").rename_axis("block").reset_index()
        blocks.append(printed_frame.merge(here, on="block").assign(**key))
    order = ["run", "source", "row", "block", "sigma_paper", "sigma", "ci_low", "ci_high", *nulls]
    columns = pd.Index(order)
    beside = pd.concat(blocks, ignore_index=True) if blocks else pd.DataFrame(columns=columns)
    return PaperComparison(rows=pd.DataFrame(rows), blocks=beside[order])


def write_paper_comparison(folder: Path, comparisons: Sequence[PaperComparison]) -> None:
    """Writes ``paper.csv`` and ``paper_blocks.csv`` of all runs.

    Raises:
      ValueError: If no run has blocks that the paper lists.
    """
    found = [comparison for comparison in comparisons if len(comparison.rows)]
    if not found:
        raise ValueError(
            "against: the paper lists stages stage1 to stage4 (Table 2), layers layer0 to layer11 "
            "(Table 3) and blocks of CIFAR ResNets (Tables 4 to 6), got no run with such blocks"
        )
    for name, frames in (
        ("paper", [comparison.rows for comparison in found]),
        ("paper_blocks", [comparison.blocks for comparison in found]),
    ):
        write_csv(folder / f"{name}.csv", pd.concat(frames, ignore_index=True))


def read_paper_comparison(folder: Path) -> PaperComparison | None:
    """What `write_paper_comparison` wrote; None if nothing was put beside the runs.

    Raises:
      ValueError: If a table is missing or unreadable.
    """
    if not (folder / "paper.csv").exists():
        return None
    if not (folder / "paper_blocks.csv").exists():
        raise ValueError(f"folder: must hold paper_blocks.csv, {folder} does not")
    return PaperComparison(read_csv(folder / "paper.csv"), read_csv(folder / "paper_blocks.csv"))


def published_for(tables: RunTables) -> PaperComparison | None:
    """The published rows of a run's own network and task; None if the paper has none.

    References:
      Redman et al., arXiv:2110.03210, Tables 2 and 4-6.
    """
    model, dataset = tables.config.get("model"), tables.config.get("dataset")
    rows = {f"resnet{depth}": f"ResNet-{depth}" for depth in published.CIFAR_DEPTHS}
    if model == "resnet50":
        rows["resnet50"] = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}.get(str(dataset), "")
    row = rows.get(str(model))
    found = paper_comparison(tables.spectrum, run=tables.title, density=tables.density.tolist())
    if not row or not len(found.rows) or row not in set(found.rows["row"]):
        return None
    return PaperComparison(*(select(frame, row=row) for frame in found))


def differing_settings(tables: RunTables) -> dict[str, tuple[Any, Any]]:
    """Settings of a CIFAR ResNet, here and in the recipe of the paper, where they differ."""
    if tables.config.get("model") not in [f"resnet{depth}" for depth in published.CIFAR_DEPTHS]:
        return {}
    there = {name: value for name, value in RECIPE.items() if name in tables.config}
    return {name: (tables.config[name], value) for name, value in there.items()
            if tables.config[name] != value}  # fmt: skip


def _printed_for(blocks: list[str]) -> Iterator[_Printed]:
    """Published rows that name these blocks."""
    stages = [f"stage{i}" for i in range(1, 5)]
    layers = [f"layer{i}" for i in range(12)]
    for table, names in ((2, stages), (3, layers)):
        if set(names) <= set(blocks):
            for row in published.rows(table):
                sigma = dict(zip(names, row.values, strict=True))
                yield _Printed(f"Table {table}", row.row, sigma, row.note)
    depth = _cifar_depth(blocks)
    if depth in published.CIFAR_DEPTHS:
        yield _Printed("Tables 4 to 6", f"ResNet-{depth}", published.cifar_resnet_sigma(depth))


def _cifar_depth(blocks: list[str]) -> int:
    """Depth 6 D + 2 of a ResNet with three stages of D blocks; 0 for anything else."""
    found = [m for m in (re.fullmatch(r"stage(\d+)/block(\d+)", name) for name in blocks) if m]
    members = {(int(m[1]), int(m[2])) for m in found}
    per_stage = len(members) // 3
    is_whole = members == {(s, b) for s in (1, 2, 3) for b in range(per_stage)}
    return 6 * per_stage + 2 if is_whole and members else 0
