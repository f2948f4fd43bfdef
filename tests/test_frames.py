"""Tables of exponents and their differences, as all studies write them."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from imp_rg.rg.permutation import holm
from imp_rg.runs.frames import Contrast, difference_frame, sigma_frame

RNG = np.random.default_rng(0)
SIGMA, NULL = RNG.normal(size=(2, 4, 3))
BLOCKS = ["a", "b"]


def test_sigma_stands_beside_its_nulls():
    sigma = SIGMA.copy()
    sigma[0, 1] = np.nan
    frame = sigma_frame(sigma, BLOCKS, {"task": "t"}, ci_level=0.9, nulls={"init": NULL})
    assert list(frame["task"]) == ["t", "t"] and list(frame["block"]) == BLOCKS
    assert list(frame["num_seeds"]) == [4, 3]
    for i, seeds in ((0, slice(None)), (1, slice(1, None))):
        row, values = frame.iloc[i], sigma[seeds, i]
        for name, x in (("sigma", values), ("excess_init", values - NULL[seeds, i])):
            expected: Any = stats.ttest_1samp(x, 0).confidence_interval(0.9)
            ends = ("low", "high") if name == "sigma" else (f"{name}_low", f"{name}_high")
            assert row[name] == pytest.approx(x.mean())
            assert [row[end] for end in ends] == pytest.approx([expected.low, expected.high])
        assert row["sigma_init"] == pytest.approx(NULL[:, i].mean())


def test_differences_are_corrected_within_their_family():
    contrasts = [
        Contrast({"kind": kind, "pair": pair}, SIGMA + shift, NULL)
        for kind, shift in (("x", 0.0), ("y", 3.0))
        for pair in (1, 2)
    ]
    options: dict[str, Any] = {"is_paired": True, "ci_level": 0.95}
    frame = difference_frame(contrasts, BLOCKS, family=["kind"], **options)
    assert list(frame.columns[:3]) == ["kind", "pair", "block"] and len(frame) == 8
    expected: Any = stats.ttest_1samp(SIGMA[:, 1] - NULL[:, 1], 0)
    row = frame.iloc[1]
    assert (row["mean"], row["p"]) == pytest.approx(((SIGMA - NULL)[:, 1].mean(), expected.pvalue))
    for _, rows in frame.groupby("kind"):
        np.testing.assert_array_equal(rows["p_holm"], holm(rows["p"].to_numpy()))
    whole = difference_frame(contrasts, BLOCKS, **options)
    np.testing.assert_array_equal(whole["p_holm"], holm(whole["p"].to_numpy()))
    assert (whole["p_holm"] > frame["p_holm"]).any()


def test_seeds_that_do_not_correspond_take_welch():
    contrasts = [Contrast({}, SIGMA, NULL[:3])]
    frame = difference_frame(contrasts, BLOCKS, is_paired=False, ci_level=0.95)
    assert list(frame.columns) == ["block", "mean", "low", "high"]
    expected: Any = stats.ttest_ind(SIGMA[:, 0], NULL[:3, 0], equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert list(frame.loc[0, ["low", "high"]]) == pytest.approx([interval.low, interval.high])


def test_one_seed_has_no_interval():
    frame = difference_frame(
        [Contrast({}, SIGMA[:1], NULL[:1])], BLOCKS, is_paired=True, ci_level=0.95
    )
    assert frame[["low", "high", "p", "p_holm"]].isna().all(axis=None)
    assert pd.notna(frame["mean"]).all()
