import subprocess
import sys

import numpy as np
import pytest
from oracles import loop_log_ratio, loop_polynomial, loop_sigma_paper

from imp_rg.rg import measure_spectrum
from imp_rg.rg.spectrum import curvature

BERT_SCALE = np.array([(10 - n) / (9 - n) for n in range(9)])


def noisy_flow(*, num_seeds=3, num_levels=10, num_blocks=4, seed=0):
    rng = np.random.default_rng(seed)
    slopes = np.linspace(-0.1, -0.5, num_blocks)
    noise = 0.05 * rng.standard_normal((num_seeds, num_levels, num_blocks))
    magnitude = np.exp(np.arange(num_levels)[:, None] * slopes + noise)
    return magnitude, magnitude / magnitude.sum(axis=-1, keepdims=True)


def planted_flow(tau, scale_factor, *, offsets=0.0, num_seeds=3):
    """Exact W_i(l) = a_i exp(tau_i l), one a per seed and block; shares and magnitudes."""
    time = np.concatenate([[0], np.cumsum(np.log(scale_factor))])
    start = np.linspace(0, 1, num_seeds * len(tau)).reshape(num_seeds, 1, len(tau)) + offsets
    magnitude = np.exp(start + time[:, None] * np.asarray(tau))
    return magnitude / magnitude.sum(axis=-1, keepdims=True), magnitude


@pytest.mark.parametrize("scale_factor", [np.full(9, 1.25), BERT_SCALE])
def test_estimators_against_loops(scale_factor):
    magnitude, shares = noisy_flow()
    got = measure_spectrum(shares, scale_factor, magnitude=magnitude, listed=3).sigma_per_seed
    log_ratio = loop_log_ratio(shares, 3)
    want = {
        "paper": loop_sigma_paper(shares, scale_factor),
        "slope": loop_polynomial(np.log(shares), scale_factor, 1),
        "logratio": loop_polynomial(log_ratio, scale_factor, 1),
        "absolute": loop_polynomial(np.log(magnitude), scale_factor, 1),
    }
    assert got.keys() == want.keys()
    for name, sigma in want.items():
        np.testing.assert_allclose(got[name], sigma, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("scale_factor", [np.full(9, 1.25), BERT_SCALE])
def test_curvature_is_the_quadratic_coefficient(scale_factor):
    _, shares = noisy_flow()
    log_shares = np.log(shares)
    time = np.concatenate([[0], np.cumsum(np.log(scale_factor))])
    want = loop_polynomial(log_shares, scale_factor, 2)
    np.testing.assert_allclose(curvature(log_shares, time), want, rtol=1e-9)


def test_scalar_scale_factor_is_the_constant_one():
    _, shares = noisy_flow()
    constant = measure_spectrum(shares, np.full(9, 1.25)).sigma
    scalar = measure_spectrum(shares, 1.25).sigma
    assert all(np.array_equal(scalar[name], constant[name]) for name in constant)


@pytest.mark.parametrize("scale_factor", [np.full(12, 1.25), BERT_SCALE])
def test_planted_exponentials_are_recovered(scale_factor):
    tau = np.array([-0.2, -0.3, -0.5, -0.9])
    shares, magnitude = planted_flow(tau, scale_factor)
    spectrum = measure_spectrum(shares, scale_factor, magnitude=magnitude)
    np.testing.assert_allclose(spectrum.sigma["absolute"], tau, atol=1e-10)
    np.testing.assert_allclose(spectrum.sigma["logratio"], tau - tau.mean(), atol=1e-10)
    assert np.all(spectrum.curvature_p == 1)
    assert np.all(spectrum.window == [0, len(scale_factor)])
    # Shares sum to one, so their exponents must drift: down, by Var_M(tau) per unit of RG time.
    assert np.all(np.diff(spectrum.running, axis=1) < 0)


def test_drift_of_the_running_exponent_is_the_variance_of_tau():
    tau = np.array([-0.2, -0.3, -0.5])
    scale_factor = np.full(30, 1.001)
    shares, _ = planted_flow(tau, scale_factor, num_seeds=1)
    drift = np.diff(measure_spectrum(shares, scale_factor).running[0], axis=0) / np.log(1.001)
    mean_tau = shares[0] @ tau
    variance = shares[0] @ tau**2 - mean_tau**2
    np.testing.assert_allclose(drift, -np.repeat(variance[1:-1, None], 3, axis=1), rtol=1e-3)


@pytest.mark.parametrize("scale_factor", [np.full(9, 1.25), BERT_SCALE])
def test_identities(scale_factor):
    magnitude, shares = noisy_flow()
    spectrum = measure_spectrum(shares, scale_factor, magnitude=magnitude)
    sums = (shares[:, :-1] * spectrum.eigenvalues).sum(axis=-1)
    np.testing.assert_allclose(sums, 1, atol=1e-12)
    tau = np.diff(np.log(magnitude), axis=1) / np.log(scale_factor)[:, None]
    tau_total = np.diff(np.log(magnitude.sum(axis=-1)), axis=1) / np.log(scale_factor)
    np.testing.assert_allclose(spectrum.running, tau - tau_total[..., None], atol=1e-12)


def test_paper_telescopes_for_a_constant_scale_factor():
    _, shares = noisy_flow()
    want = np.log(shares[:, -1] / shares[:, 0]) / 9 / np.log(1.25)
    got = measure_spectrum(shares, 1.25).sigma_per_seed["paper"]
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_known_scale_factors():
    assert np.prod(BERT_SCALE) == pytest.approx(10, rel=1e-12)
    assert 0.8**17 == pytest.approx(0.0225, abs=5e-5)
    shares, magnitude = planted_flow([-0.1, -1.0], BERT_SCALE)
    total = magnitude[:, -1] / magnitude[:, 0]
    sigma = measure_spectrum(shares, BERT_SCALE, magnitude=magnitude).sigma["absolute"]
    np.testing.assert_allclose(np.log10(total).mean(axis=0), sigma, atol=1e-10)


def test_relevance_and_levels_standard_errors():
    rng = np.random.default_rng(0)
    levels = np.arange(6)[:, None]
    exponents = np.array([0.3, 0.0, -0.3]) + 0.02 * rng.standard_normal((4, 1, 3))
    shares = 0.1 * 1.25 ** (exponents * levels)
    spectrum = measure_spectrum(shares, 1.25)
    assert spectrum.relevance.tolist() == ["relevant", "marginal", "irrelevant"]
    assert spectrum.classify("slope").tolist() == spectrum.relevance.tolist()
    np.testing.assert_allclose(spectrum.sigma["paper"], exponents.mean(axis=(0, 1)), atol=1e-12)
    np.testing.assert_allclose(spectrum.sem_levels, 0, atol=1e-12)
    with pytest.raises(ValueError, match="estimator must be one of"):
        spectrum.classify("logratio")


def test_papers_standard_error_over_levels():
    # lambda alternates 1, 4 in both seeds: mean 2.5, sd sqrt(3), four transitions.
    shares = np.cumprod([0.01, 1, 4, 1, 4])[None, :, None] * np.array([[[1.0]], [[2.0]]])
    spectrum = measure_spectrum(shares, 2.0)
    np.testing.assert_allclose(spectrum.lambda_mean, 2.5)
    np.testing.assert_allclose(spectrum.lambda_sem_rel, np.sqrt(3) / 2 / 2.5)
    np.testing.assert_allclose(spectrum.sem_levels, np.sqrt(4 / 3) / 2)
    np.testing.assert_allclose(spectrum.sem_seeds["paper"], 0, atol=1e-15)


def test_window_leaves_a_crossover_out():
    # W stands still for 8 levels, then block 0 runs; the log-ratio bends at level 7.
    rng = np.random.default_rng(3)
    time = np.arange(16) * np.log(1.25)
    kink = np.maximum(time - time[7], 0)
    log_w = np.stack([0.8 * kink, -0.1 * time, -0.2 * time], axis=-1)
    log_w = log_w + 0.002 * rng.standard_normal((4, 16, 3))
    magnitude = np.exp(log_w)
    shares = magnitude / magnitude.sum(axis=-1, keepdims=True)
    spectrum = measure_spectrum(shares, 1.25)
    assert spectrum.curvature_p[0] < 1e-4
    first, last = spectrum.window[0]
    assert 4 <= last - first < 12
    assert (last <= 8) or (first >= 6)
    want = np.log(shares[:, last, 0] / shares[:, first, 0]).mean() / (time[last] - time[first])
    assert spectrum.window_sigma[0] == pytest.approx(want, abs=1e-12)


def test_one_seed_has_no_interval_and_no_verdict():
    magnitude, shares = noisy_flow(num_seeds=1)
    spectrum = measure_spectrum(shares, 1.25, magnitude=magnitude)
    assert spectrum.relevance.tolist() == ["undetermined"] * 4
    assert np.isnan(spectrum.curvature_p).all() and np.isnan(spectrum.window_sigma).all()
    assert (spectrum.window == -1).all()
    for name, sigma in spectrum.sigma.items():
        assert np.isfinite(sigma).all()
        assert np.isnan(spectrum.ci_low[name]).all() and np.isnan(spectrum.ci_high[name]).all()


def test_a_stopped_seed_is_left_out_and_the_others_count():
    magnitude, shares = noisy_flow(num_seeds=4)
    want = measure_spectrum(shares[:3], 1.25, magnitude=magnitude[:3])
    magnitude[3, 6:], shares[3, 6:] = np.nan, np.nan
    got = measure_spectrum(shares, 1.25, magnitude=magnitude)
    for name in want.sigma:
        assert np.array_equal(got.ci_low[name], want.ci_low[name])
        assert np.array_equal(got.num_seeds[name], [3, 3, 3, 3])
        assert np.isnan(got.sigma_per_seed[name][3]).all()
    assert np.array_equal(got.curvature_p, want.curvature_p)
    assert np.array_equal(got.lambda_sem_rel, want.lambda_sem_rel)
    assert np.isfinite(got.running[3, :5]).all() and np.isnan(got.running[3, 5:]).all()


def test_a_collapsed_block_has_no_exponent_and_the_others_do():
    magnitude, _ = noisy_flow(num_seeds=4)
    magnitude[:, 8:, 1] = 0
    shares = magnitude / magnitude.sum(axis=-1, keepdims=True)
    spectrum = measure_spectrum(shares, 1.25, magnitude=magnitude)
    for name in ("paper", "slope", "absolute"):
        assert np.isnan(spectrum.sigma[name]).tolist() == [False, True, False, False]
        assert spectrum.num_seeds[name].tolist() == [4, 0, 4, 4]
    assert spectrum.relevance[1] == "undetermined"
    assert np.isnan(spectrum.sigma["logratio"]).all()
    assert spectrum.window[:, 1].max() <= 7
    # An unlisted block that collapses leaves the centre of the log-ratio alone.
    order = [0, 2, 3, 1]
    unlisted = measure_spectrum(shares[..., order], 1.25, listed=3)
    assert np.isnan(unlisted.sigma["logratio"]).tolist() == [False, False, False, True]


def test_two_levels_are_the_least():
    _, shares = noisy_flow(num_levels=2)
    spectrum = measure_spectrum(shares, 1.25)
    np.testing.assert_allclose(spectrum.sigma["paper"], spectrum.sigma["slope"])
    assert np.isnan(spectrum.curvature_p).all() and np.isnan(spectrum.lambda_sem_rel).all()
    with pytest.raises(ValueError, match="at least two levels, got 1"):
        measure_spectrum(shares[:, :1], 1.25)


@pytest.mark.parametrize(
    "change, match",
    [
        ({"shares": np.ones((4, 3))}, r"shares must be \[seed level block\].*\(4, 3\)"),
        ({"shares": np.ones((0, 4, 3))}, r"shares must be .* none empty"),
        ({"shares": np.full((3, 10, 4), 1.5)}, r"shares must be in \[0, 1\] or NaN, got 1.5"),
        ({"shares": np.full((3, 10, 4), -0.5)}, r"shares must be in \[0, 1\] or NaN, got -0.5"),
        ({"scale_factor": np.full(10, 1.25)}, r"\(9,\), got \(10,\)"),
        ({"scale_factor": 0.8}, "scale_factor must be finite and above 1, got 0.8"),
        ({"scale_factor": np.nan}, "scale_factor must be finite and above 1, got nan"),
        ({"magnitude": np.ones((3, 10, 3))}, r"magnitude must be shaped as shares"),
        ({"magnitude": np.full((3, 10, 4), -1.0)}, "magnitude must be finite and >= 0"),
        ({"listed": 0}, "listed must be between 1 and 4 blocks, got 0"),
        ({"listed": 5}, "listed must be between 1 and 4 blocks, got 5"),
        ({"ci_level": 95.0}, r"ci_level must be in \(0, 1\), got 95"),
    ],
)
def test_bad_input_gets_one_line(change, match):
    arguments = {"shares": noisy_flow()[1], "scale_factor": 1.25} | change
    with pytest.raises(ValueError, match=match) as error:
        measure_spectrum(**arguments)
    assert "\n" not in str(error.value)


def test_importing_rg_needs_no_jax():
    code = (
        "import sys, imp_rg.rg; "
        "sys.exit(', '.join({'jax', 'flax', 'optax', 'matplotlib'} & set(sys.modules)) or None)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
