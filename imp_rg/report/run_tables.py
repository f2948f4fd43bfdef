"""The tables of a run folder, as the report reads them.

In: a folder with the files of the run-folder contract. Out: `RunTables`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imp_rg.blocks import REST
from imp_rg.runs.files import read_csv, read_json


@dataclass(frozen=True, kw_only=True)
class RunTables:
    """One run; frames have the columns of the run-folder contract.

    Attributes:
      config: Every resolved setting.
      environment: Versions, device, command, time and memory.
      flow: Every point of the flow.
      null_flow: The flows of the nulls.
      metrics: Loss and test metric by seed and level.
      spectrum: Exponents by block, quantity, point, denominator and estimator.
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
        """Rows of one way to measure sigma, one per block in order of depth.

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


def select(spectrum: pd.DataFrame, **choice: str) -> pd.DataFrame:
    """Rows whose columns have the given values, with a fresh index."""
    for column, value in choice.items():
        spectrum = spectrum[spectrum[column] == value]
    return spectrum.reset_index(drop=True)


def read_tables(folder: Path) -> RunTables:
    """Reads a run folder.

    Args:
      folder: Where the run wrote its files.

    Returns:
      The tables.

    Raises:
      ValueError: If a file is missing or is no table.
    """
    return RunTables(
        config=_read_settings(folder / "config.json"),
        environment=_read_settings(folder / "environment.json"),
        flow=_read_csv(folder / "flow.csv"),
        null_flow=_read_csv(folder / "null_flow.csv"),
        metrics=_read_csv(folder / "metrics.csv"),
        spectrum=_read_csv(folder / "spectrum.csv"),
        observables=_read_csv(folder / "observables.csv")
        if (folder / "observables.csv").exists()
        else pd.DataFrame(),
    )


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ValueError(f"folder: must hold {path.name}, {path.parent} does not")
    return read_json(path)


def _read_csv(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise ValueError(f"folder: must hold {path.name}, {path.parent} does not")
    return read_csv(path)
