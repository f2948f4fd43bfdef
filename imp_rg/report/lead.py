"""The table that leads: each block's exponent, two nulls, and what follows from them.

In: ``spectrum.csv``. Out: a frame with the verdicts as values, and its text for page and terminal.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from imp_rg.report.columns import Column, estimate, signed, tabulate
from imp_rg.rg.estimate import Estimate
from imp_rg.runs.run_tables import LEAD_NULLS as LEAD_NULLS
from imp_rg.runs.run_tables import lead_nulls as lead_nulls
from imp_rg.runs.run_tables import select


def lead_frame(spectrum: pd.DataFrame, *, denominator: str = "prunable") -> pd.DataFrame:
    """Exponents by the paper's estimator from trained weights, in order of depth.

    Args:
      spectrum: ``spectrum.csv`` as a frame.
      denominator: What the shares are shares of.

    Returns:
      One row per block, `rest` included: block, sigma, sigma_low, sigma_high, relevance (relevant,
      irrelevant, marginal, undetermined), and for each null N of `lead_nulls` sigma_N, excess_N,
      excess_N_low, excess_N_high and side_N (where the excess lies: above, below, as, unknown).

    References:
      House definition, after Redman et al., arXiv:2110.03210, Tables 2-6, which have no nulls.
    """
    rows = select(
        spectrum,
        quantity="magnitude_share",
        point="trained",
        denominator=denominator,
        estimator="paper",
    ).rename(columns={"ci_low": "sigma_low", "ci_high": "sigma_high"})
    columns = ["block", "sigma", "sigma_low", "sigma_high", "relevance"]
    for null in lead_nulls(spectrum):
        excess = f"excess_{null}"
        columns += [f"sigma_{null}", excess, f"{excess}_low", f"{excess}_high", f"side_{null}"]
        ends = zip(*(rows[f"{excess}{end}"] for end in ("", "_low", "_high")), strict=True)
        rows[f"side_{null}"] = [Estimate(*numbers).side() for numbers in ends]
    return rows[columns]


def lead_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Text of a frame with the columns of `lead_frame`. House definition."""
    columns: dict[str, Column] = {"block": "block", "sigma": estimate("sigma")}
    for null in lead_nulls(frame):
        columns[f"{null} null"] = signed(f"sigma_{null}")
        columns[f"excess over {null}"] = estimate(f"excess_{null}")
    return tabulate(frame, columns | {"verdict": verdict})


def verdict(row: Mapping[str, Any]) -> str:
    """A row of `lead_frame` in few words: the class of the block; its side of the nulls."""
    if np.isnan(row["sigma"]):
        return "no exponent: the share vanishes or no seed finished"
    sides = {null: row[f"side_{null}"] for null in LEAD_NULLS if f"side_{null}" in row}
    if np.isnan(row["sigma_low"]):
        return "undetermined: no interval from one seed"
    if not sides:
        return row["relevance"]
    if len(sides) > 1 and len(set(sides.values())) == 1:
        return f"{row['relevance']}; {next(iter(sides.values()))} both nulls"
    return f"{row['relevance']}; {', '.join(f'{side} {null}' for null, side in sides.items())}"
