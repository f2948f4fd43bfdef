"""A flow that was read: what `imp_rg.read` returns.

In: a trajectory with seeds and settings. Out: exponents, and the tables of the run-folder contract.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from imp_rg.flow import FlowTrajectory
from imp_rg.rg import Spectrum
from imp_rg.runs import tables
from imp_rg.types import Bool

MaskReader = Callable[[int, int], Mapping[str, Bool[np.ndarray, "..."]]]
"""Masks of the prunable tensors by name, of a seed (its position) and a level."""


@dataclass(frozen=True, kw_only=True)
class Flow:
    """The measured flow of one run, whoever made it.

    Attributes:
      name: How tables and figures call the run.
      seeds: Name or number of each replicate.
      trajectory: The flow and its nulls, fields [seed level block].
      settings: How it was made, or at least how it was read.
      metrics: Loss, test metric and status by seed and level; NaN where they are not known.
      observables: Companion observables, one row a seed, level, block and observable; may be empty.
      read_masks: Masks of one seed and level; None where the run has none on disk.
    """

    name: str
    seeds: tuple[Any, ...]
    trajectory: FlowTrajectory
    settings: dict[str, Any]
    metrics: pd.DataFrame
    observables: pd.DataFrame = field(default_factory=pd.DataFrame)
    read_masks: MaskReader | None = None

    def spectrum(
        self,
        *,
        point: str = "trained",
        quantity: str = "magnitude_share",
        denominator: str = "prunable",
        ci_level: float = 0.95,
    ) -> Spectrum:
        """Exponents of every block with intervals over seeds.

        Args:
          point: One of `imp_rg.types.POINTS` that the run has.
          quantity: ``magnitude_share`` (M) or ``param_share`` (P).
          denominator: ``prunable``, ``blocks`` or ``all``; of M only.
          ci_level: Coverage of the intervals, in (0, 1).

        Returns:
          A `Spectrum`; its arrays follow ``trajectory.blocks.names``.

        Raises:
          ValueError: If the run lacks the point, or a choice is unknown.

        References:
          Redman et al., arXiv:2110.03210, Eqs. 13-14; `imp_rg.rg.measure_spectrum`.
        """
        return tables.flow_spectrum(
            self.trajectory,
            quantity=quantity,
            point=point,
            denominator=denominator,
            ci_level=ci_level,
        )

    def null_spectrum(self, null: str, *, ci_level: float = 0.95) -> Spectrum:
        """Exponents of one null, trained weights' quantity and denominator. House definition.

        Raises:
          ValueError: If the run has no such null.
        """
        return tables.flow_spectrum(self.trajectory, null=null, ci_level=ci_level)

    def frame(self) -> pd.DataFrame:
        """The flow as a tidy frame: ``flow.csv``, one row a seed, level, point and block."""
        return tables.flow_frame(self.trajectory, self.seeds)

    def null_frame(self) -> pd.DataFrame:
        """The flows of the nulls: ``null_flow.csv``."""
        return tables.null_frame(self.trajectory, self.seeds)

    def spectrum_frame(self, *, ci_level: float = 0.95) -> pd.DataFrame:
        """Every exponent with interval, nulls and excess: ``spectrum.csv``."""
        return tables.spectrum_frame(self.trajectory, ci_level=ci_level)
