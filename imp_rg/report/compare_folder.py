"""The folder of a comparison, as its page reads it.

In: a folder written by `imp_rg.runs.comparison_tables`. Out: `ComparisonTables`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from imp_rg.report.run_tables import select
from imp_rg.runs.files import read_csv, read_json


@dataclass(frozen=True, kw_only=True)
class ComparisonTables:
    """One comparison; frames have the columns that `imp_rg.runs.comparison_tables` writes.

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
