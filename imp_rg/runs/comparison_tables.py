"""The tables of a comparison as tidy pandas frames: the folder that holds them, written and read.

``comparison.csv``, ``comparison_blocks.csv`` and ``comparison.json`` are all that the page of a
comparison is drawn from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from imp_rg.config import require
from imp_rg.rg import Comparison, t_interval
from imp_rg.runs.files import read_csv, read_json, write_csv, write_json
from imp_rg.runs.run_tables import select


class RunEntry(NamedTuple):
    """How the page introduces a run.

    Attributes:
      name: Its name in the `Comparison`.
      link: Path of its own page, relative to the folder of the comparison; empty if it has none.
      description: One line: model, data, where it comes from.
      notes: What limits it (few seeds, saturated task, stopped seeds), one sentence each.
    """

    name: str
    link: str
    description: str
    notes: tuple[str, ...] = ()


def comparison_frame(comparison: Comparison) -> pd.DataFrame:
    """``comparison.csv``: one row per pair of runs and measure.

    Columns: run_a, run_b, measure, matched_by (block or profile), distance (root mean square of the
    difference), distance_se (in standard errors), p, p_smallest, p_holm, p_holm_smallest, verdict,
    class_a, class_b (empty where undecided). House definition.
    """
    names = comparison.names
    classes = pd.array([c if c else pd.NA for c in comparison.classes], dtype="Int64")
    rows = [
        {
            "run_a": names[a],
            "run_b": names[b],
            "measure": measure,
            "matched_by": comparison.matched_by[a, b],
            "distance": comparison.distance[measure][a, b],
            "distance_se": comparison.distance_se[measure][a, b],
            "p": comparison.p_value[measure][a, b],
            "p_smallest": comparison.p_smallest[measure][a, b],
            "p_holm": comparison.p_holm[measure][a, b],
            "p_holm_smallest": comparison.p_holm_smallest[measure][a, b],
            "verdict": comparison.verdict[measure][a, b],
            "class_a": classes[a],
            "class_b": classes[b],
        }
        for a, b in comparison.pairs
        for measure in comparison.measures
    ]
    return pd.DataFrame(rows).astype({"class_a": "Int64", "class_b": "Int64"})


def block_difference_frame(comparison: Comparison) -> pd.DataFrame:
    """``comparison_blocks.csv``: one row per pair, measure and place.

    Columns: run_a, run_b, measure, block, difference (run_a minus run_b), ci_low, ci_high,
    num_seeds_a, num_seeds_b. House definition.
    """
    runs = comparison.runs
    frames = [
        pd.DataFrame(
            {
                "run_a": runs[pair.run_a].name,
                "run_b": runs[pair.run_b].name,
                "measure": pair.measure,
                "block": pair.blocks,
                "difference": pair.difference,
                "ci_low": pair.ci_low,
                "ci_high": pair.ci_high,
                "num_seeds_a": len(runs[pair.run_a].sigma),
                "num_seeds_b": len(runs[pair.run_b].sigma),
            }
        )
        for pair in comparison.differences
    ]
    return pd.concat(frames, ignore_index=True)


def write_comparison(folder: Path, comparison: Comparison, runs: Sequence[RunEntry]) -> None:
    """Writes the tables and ``comparison.json``: runs with their exponents, the tree, settings.

    Args:
      folder: Where.
      comparison: Result of `imp_rg.rg.compare_exponents`.
      runs: One entry per run, in the same order.

    Raises:
      ValueError: If the names are not those of the comparison.
      OSError: If a file cannot be written.
    """
    names = tuple(run.name for run in runs)
    require(names == comparison.names, "runs", f"must be {comparison.names} in this order", names)
    entries = [
        {
            **run._asdict(),
            "num_seeds": len(exponents.sigma),
            "class": int(number) or None,
            "exponents": _exponents(exponents.sigma, exponents.blocks, comparison.ci_level),
            "density": exponents.density.tolist(),
        }
        for run, exponents, number in zip(runs, comparison.runs, comparison.classes, strict=True)
    ]
    content = {
        "runs": entries,
        "linkage": _no_nan(comparison.linkage),
        "linkage_measure": comparison.linkage_measure,
        "ci_level": comparison.ci_level,
    }
    write_csv(folder / "comparison.csv", comparison_frame(comparison))
    write_csv(folder / "comparison_blocks.csv", block_difference_frame(comparison))
    write_json(folder / "comparison.json", content)


def _exponents(sigma: np.ndarray, blocks: tuple[str, ...], ci_level: float) -> dict[str, Any]:
    interval = t_interval(sigma, ci_level=ci_level)
    return {
        "block": list(blocks),
        "sigma": _no_nan(interval.mean),
        "ci_low": _no_nan(interval.low),
        "ci_high": _no_nan(interval.high),
    }


def _no_nan(values: np.ndarray) -> Any:
    """Lists with None for NaN, which JSON does not know."""
    return np.where(np.isnan(values), np.array(None), values).tolist()


@dataclass(frozen=True, kw_only=True)
class ComparisonTables:
    """One comparison; frames have the columns that `write_comparison` writes.

    Attributes:
      settings: ``comparison.json``: runs, linkage, linkage_measure, ci_level.
      environment: Versions, device, command, time and memory.
      pairs: ``comparison.csv``.
      blocks: ``comparison_blocks.csv``.
      paper: ``paper.csv``; None without.
      paper_blocks: ``paper_blocks.csv``; None without.
    """

    settings: dict[str, Any]
    environment: dict[str, Any]
    pairs: pd.DataFrame
    blocks: pd.DataFrame
    paper: pd.DataFrame | None
    paper_blocks: pd.DataFrame | None

    @property
    def runs(self) -> list[dict[str, Any]]:
        """Entry of each run: name, link, description, notes, num_seeds, class, exponents, ..."""
        return self.settings["runs"]

    @property
    def names(self) -> list[str]:
        """Names of the runs."""
        return [run["name"] for run in self.runs]

    @property
    def measures(self) -> list[str]:
        """Measures that some pair has."""
        return list(self.pairs.loc[self.pairs["distance"].notna(), "measure"].unique())

    def of(self, measure: str) -> pd.DataFrame:
        """Rows of one measure, one per pair."""
        return select(self.pairs, measure=measure)


def read_comparison(folder: Path) -> ComparisonTables:
    """Reads the folder of a comparison.

    Args:
      folder: Where `write_comparison` wrote.

    Returns:
      The tables.

    Raises:
      ValueError: If a file is missing or unreadable.
    """
    names = ["comparison.json", "environment.json", "comparison.csv", "comparison_blocks.csv"]
    has_paper = (folder / "paper.csv").exists()
    for name in names + ["paper_blocks.csv"] * has_paper:
        if not (folder / name).exists():
            raise ValueError(f"folder: must hold {name}, {folder} does not")
    return ComparisonTables(
        settings=read_json(folder / "comparison.json"),
        environment=read_json(folder / "environment.json"),
        pairs=read_csv(folder / "comparison.csv"),
        blocks=read_csv(folder / "comparison_blocks.csv"),
        paper=read_csv(folder / "paper.csv") if has_paper else None,
        paper_blocks=read_csv(folder / "paper_blocks.csv") if has_paper else None,
    )
