"""Numbers with intervals: sides by hand, text, columns there and back, SciPy's ends."""

import numpy as np
import pytest
from scipy import stats

from imp_rg.rg.estimate import MISSING, Estimate, contrast, number_text, summarise

NAN = float("nan")


@pytest.mark.parametrize(
    ("low", "high", "point", "side", "excludes"),
    [
        (0.1, 0.5, 0.0, "above", True),
        (-0.5, -0.1, 0.0, "below", True),
        (-0.1, 0.1, 0.0, "as", False),
        (0.0, 0.1, 0.0, "as", False),  # an end on the point holds it
        (-0.1, 0.0, 0.0, "as", False),
        (0.1, 0.5, 0.6, "below", True),
        (0.1, 0.5, 0.3, "as", False),
        (NAN, NAN, 0.0, "unknown", False),
        (-np.inf, -1.0, 0.0, "below", True),
    ],
)
def test_where_an_interval_lies(low, high, point, side, excludes):
    estimate = Estimate(0.2, low, high)
    assert estimate.side(point) == side
    assert estimate.excludes(point) == excludes


def test_verdicts_of_many_at_once():
    low, high = np.array([0.1, -0.5, -0.1, NAN]), np.array([0.2, -0.2, 0.1, NAN])
    many = Estimate(np.zeros(4), low, high)
    np.testing.assert_array_equal(many.excludes(), [True, True, False, False])
    np.testing.assert_array_equal(many.within(0.15), [False, False, True, False])
    np.testing.assert_array_equal(many.within(0.1), [False] * 4)  # an end on the margin is out
    assert not Estimate(0.3).excludes() and not Estimate(0.3).within(1.0)


@pytest.mark.parametrize(
    ("estimate", "digits", "text", "ends"),
    [
        (Estimate(0.269, 0.2364, 0.3016), 3, "+0.269 [+0.236, +0.302]", "[+0.236, +0.302]"),
        (Estimate(-1.0, -2.0, 0.25), 1, "-1.0 [-2.0, +0.2]", "[-2.0, +0.2]"),
        (Estimate(0.5), 2, "+0.50", MISSING),
        (Estimate(NAN, 0.0, 1.0), 2, MISSING, "[+0.00, +1.00]"),
        (Estimate(NAN), 2, MISSING, MISSING),
    ],
)
def test_text(estimate, digits, text, ends):
    assert estimate.text(digits) == text
    assert estimate.ends(digits) == ends


def test_a_single_number():
    assert number_text(0.12345) == "+0.123" and number_text(-2.0, 0) == "-2"
    assert number_text(NAN) == MISSING


def test_columns_come_back():
    written = Estimate(np.float64(0.1), np.float64(0.05), np.float64(0.15))
    columns = written.columns("gamma")
    assert list(columns) == ["gamma", "gamma_low", "gamma_high"]
    assert all(type(value) is float for value in columns.values())
    assert Estimate.of(columns, "gamma") == written
    alone = Estimate.of({"gamma": 0.1}, "gamma")
    assert alone.value == 0.1 and alone.side() == "unknown"
    arrays = Estimate(*np.arange(6.0).reshape(3, 2)).columns("x")
    np.testing.assert_array_equal(arrays["x_high"], [4, 5])


def test_summary_is_students():
    values = np.random.default_rng(0).standard_normal((5, 3))
    found = summarise(values, ci_level=0.9)
    want = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    np.testing.assert_allclose(found.value, values.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose([found.low, found.high], [want.low, want.high], rtol=1e-10)


def test_a_seed_without_a_value_is_left_out():
    values = np.array([[1.0, 1.0], [2.0, NAN], [4.0, NAN]])
    found, alone = summarise(values), summarise(values[:, :1])
    assert (found.value[0], found.low[0]) == (alone.value[0], alone.low[0])
    assert found.value[1] == 1 and np.isnan([found.low[1], found.high[1]]).all()
    assert np.isnan(summarise(np.array([NAN, NAN])).value)


def test_paired_seeds_cancel_what_they_share():
    rng = np.random.default_rng(1)
    shared = 10 * rng.standard_normal((6, 2))
    a, b = shared + 1 + 0.1 * rng.standard_normal((6, 2)), shared
    paired = contrast(a, b, is_paired=True)
    want = stats.ttest_rel(a, b).confidence_interval(0.95)
    np.testing.assert_allclose([paired.low, paired.high], [want.low, want.high], rtol=1e-10)
    apart = contrast(a, b, is_paired=False)
    np.testing.assert_allclose(apart.value, paired.value, rtol=1e-12)
    assert (apart.high - apart.low > 10 * (paired.high - paired.low)).all()
    assert paired.excludes().all() and not apart.excludes().any()
    with pytest.raises(ValueError):
        contrast(a, b[:4], is_paired=True)


def test_groups_apart_are_welchs():
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((4, 3)), 3 * rng.standard_normal((7, 3)) + 1
    found = contrast(a, b, is_paired=False, ci_level=0.9)
    want = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    np.testing.assert_allclose([found.low, found.high], [want.low, want.high], rtol=1e-10)
    alone = contrast(a[:1], b, is_paired=False)
    np.testing.assert_allclose(alone.value, a[0] - b.mean(axis=0))
    assert np.isnan([alone.low, alone.high]).all()
    same = contrast(np.ones((3, 1)), np.zeros((3, 1)), is_paired=False)
    assert (same.low, same.value, same.high) == (1, 1, 1)


@pytest.mark.parametrize("ci_level", [0, 1, 95])
def test_coverage_must_be_one(ci_level):
    with pytest.raises(ValueError, match="ci_level must be in"):
        summarise(np.ones(3), ci_level=ci_level)
