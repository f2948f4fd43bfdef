"""The table that leads: each block's exponent, two nulls, and what follows from them.

In: ``spectrum.csv``. Out: rows for the page and for the terminal.
"""

from dataclasses import dataclass

import numpy as np

from imp_rg.plots.style import Frame
from imp_rg.report.run_tables import select
from imp_rg.report.words import estimate_text, interval_text, number_text

LEAD_NULLS = ("init", "oneshot", "gaussian")
"""Nulls of the lead table, best first; the first two that a run has stand in it."""


@dataclass(frozen=True, kw_only=True)
class NullContrast:
    """A null beside the measured exponent.

    Attributes:
      null: Its name.
      sigma: Its exponent, mean over seeds.
      excess: Measured minus null, mean of the per-seed differences.
      low: Lower end of the excess's interval; NaN with one seed.
      high: Upper end.
    """

    null: str
    sigma: float
    excess: float
    low: float
    high: float

    @property
    def side(self) -> str:
        """Where the measured exponent lies: above, below, as (zero is inside), or unknown."""
        if np.isnan(self.low):
            return "unknown"
        return "above" if self.low > 0 else "below" if self.high < 0 else "as"


@dataclass(frozen=True, kw_only=True)
class LeadRow:
    """One block; exponents by the paper's estimator from trained weights.

    Attributes:
      block: Name.
      sigma: Mean over seeds; NaN if the share vanished.
      low: Lower end of its interval; NaN with one seed.
      high: Upper end.
      relevance: relevant, irrelevant, marginal or undetermined.
      contrasts: One entry per null of `lead_nulls`.
    """

    block: str
    sigma: float
    low: float
    high: float
    relevance: str
    contrasts: tuple[NullContrast, ...]

    @property
    def verdict(self) -> str:
        """The class of the block and how it compares with the nulls, in words."""
        if np.isnan(self.sigma):
            return "no exponent: the share vanishes or no seed finished"
        if np.isnan(self.low):
            return "undetermined: no interval from one seed"
        sides = {c.side for c in self.contrasts}
        if len(sides) == 1 and len(self.contrasts) > 1:
            beside = f"{sides.pop()} both nulls"
        else:
            beside = ", ".join(f"{c.side} {c.null}" for c in self.contrasts)
        return f"{self.relevance}; {beside}" if beside else self.relevance

    @property
    def cells(self) -> tuple[str, ...]:
        """Text under each of `lead_columns`."""
        cells = [self.block, number_text(self.sigma), interval_text(self.low, self.high)]
        for c in self.contrasts:
            cells += [number_text(c.sigma), estimate_text(c.excess, c.low, c.high)]
        return (*cells, self.verdict)


def lead_nulls(spectrum: Frame) -> tuple[str, ...]:
    """Nulls of the lead table for a run with these columns. House definition."""
    return tuple(null for null in LEAD_NULLS if f"sigma_{null}" in spectrum)[:2]


def lead_columns(spectrum: Frame) -> tuple[str, ...]:
    """Headings of `LeadRow.cells`. House definition."""
    nulls = [t for null in lead_nulls(spectrum) for t in (f"{null} null", f"excess over {null}")]
    return ("block", "sigma", "interval", *nulls, "verdict")


def lead_rows(spectrum: Frame, *, denominator: str = "prunable") -> list[LeadRow]:
    """Rows of the lead table, in order of depth.

    Args:
      spectrum: ``spectrum.csv`` as a frame.
      denominator: What the shares are shares of.

    Returns:
      One row per block, `rest` included.

    References:
      House definition, after Redman et al., arXiv:2110.03210, Tables 2-6, which have no nulls.
    """
    rows = select(
        spectrum,
        quantity="magnitude_share",
        point="trained",
        denominator=denominator,
        estimator="paper",
    )
    return [_lead_row(row, lead_nulls(spectrum)) for row in rows.to_dict("records")]


def _lead_row(row: dict, nulls: tuple[str, ...]) -> LeadRow:
    return LeadRow(
        block=row["block"],
        sigma=row["sigma"],
        low=row["ci_low"],
        high=row["ci_high"],
        relevance=row["relevance"],
        contrasts=tuple(
            NullContrast(
                null=null,
                sigma=row[f"sigma_{null}"],
                excess=row[f"excess_{null}"],
                low=row[f"excess_{null}_low"],
                high=row[f"excess_{null}_high"],
            )
            for null in nulls
        ),
    )
