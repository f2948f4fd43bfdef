"""The tables of a run folder, read back: what pages are drawn from and flows are made of.

In: a folder with the files of the run-folder contract. Out: `RunTables`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imp_rg.blocks import REST
from imp_rg.runs.files import read_csv, read_json

NEEDED = ("config.json", "flow.csv", "null_flow.csv", "metrics.csv")
"""What every run of ours has after its first level."""

AT_THE_END = ("environment.json", "spectrum.csv")
"""What a finished run has besides."""

LEAD_NULLS = ("init", "oneshot", "gaussian")
"""Nulls of the lead table, best first; the first two that a run has stand in it."""


@dataclass(frozen=True, kw_only=True)
class RunTables:
    """One run; frames have the columns of the run-folder contract.

    Attributes:
      config: Every resolved setting.
      environment: Versions, device, command, time and memory.
      flow: Every point of the flow.
      null_flow: The flows of the nulls.
      metrics: Loss and test metric by seed and level.
      spectrum: Exponents by block, quantity, point, denominator and estimator; empty if the run has
        not finished.
      observables: Companion observables; empty if the run has none.
    """

    config: dict[str, Any]
    environment: dict[str, Any]
    flow: pd.DataFrame
    null_flow: pd.DataFrame
    metrics: pd.DataFrame
    spectrum: pd.DataFrame
    observables: pd.DataFrame

    @property
    def trained(self) -> pd.DataFrame:
        """The flow of the weights as trained at each level."""
        return self.flow[self.flow["point"] == "trained"]

    @property
    def ci_level(self) -> float:
        """Coverage of the intervals."""
        return float(self.config.get("ci_level", 0.95))

    @property
    def density(self) -> np.ndarray:
        """Kept fraction at every level, reached or not, [level]."""
        frames = [self.flow, self.null_flow, self.metrics]
        levels = pd.concat([frame[["level", "density"]] for frame in frames])
        return levels.groupby("level")["density"].first().to_numpy(float)

    @property
    def denominator(self) -> str:
        """What the shares of the lead table are shares of."""
        return str(self.config.get("denominator", "prunable"))

    @property
    def title(self) -> str:
        """Network and data, or where the files came from."""
        if "source" in self.config:
            return str(self.config["name"])
        return f"{self.config['model']} on {self.config['dataset']}"

    @property
    def num_complete_seeds(self) -> int:
        """Seeds that reached the last level."""
        return int((self.trained.groupby("seed")["level"].nunique() == len(self.density)).sum())

    def exponents(
        self,
        estimator: str = "paper",
        *,
        quantity: str = "magnitude_share",
        point: str = "trained",
    ) -> pd.DataFrame:
        """Rows of one estimator of sigma, one per block in order of depth.

        The denominator is that of the settings for what is measured over several.
        """
        is_headline = estimator == "paper" and quantity == "magnitude_share"
        return select(
            self.spectrum,
            quantity=quantity,
            point=point,
            denominator=self.denominator if is_headline else "prunable",
            estimator=estimator,
        )

    def listed(self, estimator: str = "paper", **choice: str) -> pd.DataFrame:
        """As `exponents`, without the prunable tensors outside all blocks."""
        rows = self.exponents(estimator, **choice)
        return rows[rows["block"] != REST]


def lead_nulls(spectrum: pd.DataFrame) -> tuple[str, ...]:
    """Nulls of the lead table for a run with these columns. House definition."""
    return tuple(null for null in LEAD_NULLS if f"sigma_{null}" in spectrum)[:2]


def select(spectrum: pd.DataFrame, **choice: str) -> pd.DataFrame:
    """Rows whose columns have the given values, with a fresh index."""
    for column, value in choice.items():
        spectrum = spectrum[spectrum[column] == value]
    return spectrum.reset_index(drop=True)


def read_tables(folder: Path, *, is_finished: bool = True) -> RunTables:
    """Reads a run folder.

    Args:
      folder: Where the run wrote its files.
      is_finished: Whether the files that come at the end must be there.

    Returns:
      The tables.

    Raises:
      ValueError: If a file is missing or is no table.
    """
    for name in NEEDED + AT_THE_END * is_finished:
        if not (folder / name).is_file():
            raise ValueError(f"folder: must hold {name}, {folder} does not")
    environment = folder / "environment.json"
    return RunTables(
        config=read_json(folder / "config.json"),
        environment=read_json(environment) if environment.is_file() else {},
        flow=read_csv(folder / "flow.csv"),
        null_flow=read_csv(folder / "null_flow.csv"),
        metrics=read_csv(folder / "metrics.csv"),
        spectrum=_read_if_there(folder / "spectrum.csv"),
        observables=_read_if_there(folder / "observables.csv"),
    )


def _read_if_there(path: Path) -> pd.DataFrame:
    return read_csv(path) if path.is_file() else pd.DataFrame()
