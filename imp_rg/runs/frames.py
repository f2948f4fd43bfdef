"""Exponents, and differences of exponents, of many flows in one table.

In: values [seed block] with the labels of what they were measured on. Out: one row per label and
block; a study picks and renames columns.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from imp_rg.rg import mean_is_zero_p
from imp_rg.rg.estimate import contrast, summarise
from imp_rg.rg.permutation import holm


class Contrast(NamedTuple):
    """Two sets of exponents that are subtracted.

    Attributes:
      labels: Columns that name the contrast.
      a: Exponents.
      b: What is subtracted.
    """

    labels: Mapping[str, Any]
    a: Float[np.ndarray, "seed_a block"]
    b: Float[np.ndarray, "seed_b block"]


def sigma_frame(
    sigma: Float[np.ndarray, "seed block"],
    blocks: Sequence[str],
    labels: Mapping[str, Any],
    *,
    ci_level: float,
    nulls: Mapping[str, Float[np.ndarray, "seed block"]] | None = None,
) -> pd.DataFrame:
    """Exponents of one flow with Student's intervals, beside those of its nulls.

    Args:
      sigma: Exponents of each seed; NaN where a seed has none.
      blocks: Their names; further columns of `sigma` (`rest`) are left out.
      labels: Columns that name the flow; they stand first.
      ci_level: Coverage of the intervals, in (0, 1).
      nulls: Exponents of each null on the same seeds.

    Returns:
      Columns LABELS, block, sigma, low, high, num_seeds, and for every null N: sigma_N, excess_N,
      excess_N_low, excess_N_high (paired by seed).

    References:
      House definition.
    """
    sigma = sigma[:, : len(blocks)]
    found = summarise(sigma, ci_level=ci_level)
    columns: dict[str, Any] = {
        **labels,
        "block": list(blocks),
        "sigma": found.value,
        "low": found.low,
        "high": found.high,
        "num_seeds": np.isfinite(sigma).sum(axis=0),
    }
    for name, null in (nulls or {}).items():
        of_null = null[:, : len(blocks)]
        beyond = contrast(sigma, of_null, is_paired=True, ci_level=ci_level)
        columns |= {f"sigma_{name}": summarise(of_null).value, **beyond.columns(f"excess_{name}")}
    return pd.DataFrame(columns)


def difference_frame(
    contrasts: Iterable[Contrast],
    blocks: Sequence[str],
    *,
    is_paired: bool,
    ci_level: float,
    family: Sequence[str] = (),
) -> pd.DataFrame:
    """Differences of exponents by contrast and block.

    Args:
      contrasts: In the order of the rows.
      blocks: Names; further columns of the values (`rest`) are left out.
      is_paired: Whether equal positions are the same seed (Student's interval of the differences,
        and p-values), or not (Welch's interval, none).
      ci_level: Coverage of the intervals, in (0, 1).
      family: Labels within whose values p is corrected by Holm's method; one family without.

    Returns:
      Columns LABELS, block, mean, low, high, and of paired contrasts p and p_holm.

    References:
      House definition.
    """
    frames = []
    for labels, a, b in contrasts:
        a, b = a[:, : len(blocks)], b[:, : len(blocks)]
        found = contrast(a, b, is_paired=is_paired, ci_level=ci_level)
        columns = {**labels, "block": list(blocks)}
        columns |= {"mean": found.value, "low": found.low, "high": found.high}
        if is_paired:
            columns["p"] = mean_is_zero_p(a - b)
        frames.append(pd.DataFrame(columns))
    frame = pd.concat(frames, ignore_index=True)
    if not is_paired:
        return frame
    families = frame.groupby(list(family) or np.zeros(len(frame)), sort=False)["p"]
    return frame.assign(p_holm=families.transform(lambda p: holm(p.to_numpy(float))))
