import numpy as np
import pytest
from oracles import loop_t_interval

from imp_rg.rg.spectrum import centred, curvature, log_or_nan, slope
from imp_rg.rg.stats import block_sd, mean_is_zero_p, t_interval

NUM_FLOWS = 2000
TAU = np.array([-0.30, -0.22, -0.15, -0.45])
TIME = np.arange(13) * np.log(1.25)


def synthetic_flows(num_seeds, *, bend=0.0, seed=0):
    """Shares [seed flow level block] of exponential W with seed effect, drift and noise."""
    rng = np.random.default_rng(seed)
    shape = (num_seeds, NUM_FLOWS, len(TIME), len(TAU))
    seed_slope = TAU + 0.03 * rng.standard_normal(shape[:2] + (1, 4))
    drift = 0.01 * np.cumsum(rng.standard_normal(shape), axis=-2)
    noise = 0.01 * rng.standard_normal(shape)
    offset = 0.2 * rng.standard_normal(shape[:2] + (1, 4))
    curve = bend * TIME[:, None] ** 2 * np.array([1, -1, 0, 0])
    magnitude = np.exp(offset + seed_slope * TIME[:, None] + curve + drift + noise)
    return magnitude / magnitude.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("num_seeds", [3, 5])
def test_t_intervals_cover_the_planted_log_ratio_slopes(num_seeds):
    log_ratios = centred(log_or_nan(synthetic_flows(num_seeds)), listed=4)
    interval = t_interval(slope(log_ratios, TIME))
    truth = TAU - TAU.mean()
    coverage = np.mean((interval.low <= truth) & (truth <= interval.high))
    assert 0.94 <= coverage <= 0.96

    # Negative control: the normal quantile in place of Student's is far too narrow.
    normal = np.abs(interval.mean - truth) <= 1.96 * interval.sem
    assert normal.mean() < 0.90


@pytest.mark.parametrize("num_seeds", [3, 5])
def test_t_intervals_cover_the_papers_estimator(num_seeds):
    log_shares = log_or_nan(synthetic_flows(num_seeds, seed=1))
    per_seed = (log_shares[..., -1, :] - log_shares[..., 0, :]) / TIME[-1]
    interval = t_interval(per_seed)
    # No closed form: shares are a softmax of W. The mean of all flows is 100 times sharper.
    truth = per_seed.mean(axis=(0, 1))
    coverage = np.mean((interval.low <= truth) & (truth <= interval.high))
    assert 0.94 <= coverage <= 0.96


@pytest.mark.parametrize("num_seeds", [3, 5])
def test_curvature_rejects_pure_exponentials_at_its_level_only(num_seeds):
    shares = synthetic_flows(num_seeds, seed=2)
    p = mean_is_zero_p(curvature(centred(log_or_nan(shares), listed=4), TIME))
    assert abs(np.mean(p < 0.05) - 0.05) <= 0.01

    bent = synthetic_flows(num_seeds, bend=0.03, seed=2)
    p = mean_is_zero_p(curvature(centred(log_or_nan(bent), listed=4), TIME))
    assert np.mean(p[:, :2] < 0.05) > 0.5
    # The shares themselves curve by -Var_M(tau) even where W does not: they are no test.
    p_of_shares = mean_is_zero_p(curvature(log_or_nan(shares), TIME))
    assert np.mean(p_of_shares < 0.05) > 0.08


@pytest.mark.parametrize(
    "values, quantile", [((0.1, 0.4, 0.3), 4.302653), ((0.1, 0.4, 0.3, -0.2, 0.5), 2.776445)]
)
def test_t_interval_against_table_of_quantiles(values, quantile):
    interval = t_interval(np.array(values))
    assert np.allclose((interval.low, interval.high), loop_t_interval(values, quantile), rtol=1e-6)
    assert interval.mean == pytest.approx(np.mean(values))
    assert interval.num_seeds == len(values)


def test_p_value_agrees_with_the_interval():
    values = np.array([[0.1], [0.4], [0.3]])
    p = mean_is_zero_p(values)[0]
    assert t_interval(values, ci_level=1 - p).low[0] == pytest.approx(0, abs=1e-12)


def test_one_seed_has_a_mean_and_no_interval():
    interval = t_interval(np.array([[0.5, -1.0]]))
    assert interval.mean.tolist() == [0.5, -1.0]
    assert np.isnan([interval.low, interval.high, interval.sem]).all()
    assert np.isnan(mean_is_zero_p(np.array([[0.5, -1.0]]))).all()


def test_seeds_without_a_value_are_left_out():
    values = np.array([[1.0, np.nan], [2.0, np.nan], [np.nan, np.nan], [4.0, 7.0]])
    interval = t_interval(values)
    alone = t_interval(np.array([1.0, 2.0, 4.0]))
    assert interval.low[0] == alone.low and interval.mean[0] == alone.mean
    assert interval.num_seeds.tolist() == [3, 1]
    assert interval.mean[1] == 7 and np.isnan(interval.low[1])
    assert np.isnan(t_interval(np.full((3, 1), np.nan)).mean).all()


def test_seeds_that_agree_exactly():
    p = mean_is_zero_p(np.array([[0.0, 0.5], [0.0, 0.5]]))
    assert p.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "values, ci_level", [(3.0, 0.95), ([], 0.95), ([1.0, 2.0], 95.0), ([1.0], 0.0)]
)
def test_bad_input(values, ci_level):
    with pytest.raises(ValueError, match="must"):
        t_interval(np.array(values), ci_level=ci_level)


def test_sd_over_blocks_by_hand():
    found = block_sd(np.array([[0.1, 0.3], [0.2, 0.6]]))
    np.testing.assert_allclose(found.sd, [0.2 / np.sqrt(2), 0.4 / np.sqrt(2)])
    np.testing.assert_allclose(found.range, [0.2, 0.4])
    assert found.of_mean == pytest.approx(0.3 / np.sqrt(2))
    # Interaction: +-0.05 in every cell, mean square 0.01 with one degree of freedom, half of it.
    assert found.corrected == pytest.approx(np.sqrt(0.09 / 2 - 0.01 / 2))
    assert np.isnan(block_sd(np.array([[0.1, 0.3]])).corrected)
    assert np.isnan(block_sd(np.array([[0.1, np.nan], [0.2, 0.3]])).of_mean)


def test_scatter_between_seeds_is_taken_out_of_the_sd():
    """4,000 draws: the plain spreads are too large, the corrected variance is right."""
    rng, truth, noise = np.random.default_rng(0), np.array([0.0, 0.1, 0.2, 0.3]), 0.1
    drawn = [block_sd(truth + noise * rng.standard_normal((3, 4)) + rng.standard_normal((3, 1)))
             for _ in range(4000)]  # fmt: skip
    variance = truth.var(ddof=1)
    per_seed, of_mean, corrected = (
        np.mean([np.mean(getattr(found, name) ** 2) for found in drawn])
        for name in ("sd", "of_mean", "corrected")
    )
    error = np.std([found.corrected**2 for found in drawn]) / np.sqrt(len(drawn))
    assert per_seed == pytest.approx(variance + noise**2, rel=0.02)
    assert of_mean == pytest.approx(variance + noise**2 / 3, rel=0.02)
    # Cut off at 0 in a few draws, hence never below by more than the error.
    assert corrected == pytest.approx(variance, abs=5 * error)
    assert abs(of_mean - variance) > 5 * error
