"""The error law: gauges, coverage of profile intervals, and whether data identify gamma."""

import numpy as np
import pytest
from scipy import stats

from imp_rg.rg import ErrorLaw, fit_error_law, fit_power_law, predict_held_out

DENSITY = 0.8 ** np.arange(26)
NOISE = 0.03


def curve(gamma, p, q, e_np, density=DENSITY):
    """Eq. 15 as the paper writes it, by complex numbers."""
    e_up = e_np * (q / p) ** gamma
    shift = p * (e_up / e_np) ** (1 / gamma)
    return e_np * np.abs((density - 1j * shift) / (density - 1j * p)) ** gamma


def log_uniform(rng, low, high):
    return np.exp(rng.uniform(np.log(low), np.log(high)))


def num_in_window(p, q):
    return np.sum((3 * p < DENSITY) & (DENSITY < q / 3))


def identified_curve(rng, *, fewest=5, largest=95.0):
    """A planted curve with `fewest` densities on its power law."""
    while True:
        gamma, e_np = rng.uniform(0.8, 2.2), log_uniform(rng, 0.05, 8)
        p, q = log_uniform(rng, 3e-4, 0.1), log_uniform(rng, 0.03, 1)
        error = curve(gamma, p, q, e_np)
        if num_in_window(p, q) >= fewest and error.max() < largest:
            return gamma, (p, q, e_np), error


def unidentified_curve(rng):
    """Too narrow a power law, or only where it begins, or nothing but one plateau."""
    kind = rng.integers(3)
    while True:
        gamma, e_np = rng.uniform(0.8, 2.2), log_uniform(rng, 0.5, 8)
        if kind == 0:
            p = log_uniform(rng, 4e-3, 0.3)
            q = p * log_uniform(rng, 1.5, 12)
        elif kind == 1:
            q = log_uniform(rng, 5e-4, 0.015)
            p = q / log_uniform(rng, 20, 100)
        else:
            return np.full_like(DENSITY, e_np)
        error = curve(gamma, p, q, e_np)
        if num_in_window(p, q) < 4 and error.max() < 95:
            return error


def noisy(rng, error, sd=NOISE):
    return np.minimum(error * np.exp(sd * rng.standard_normal(error.shape)), 100)


LONG = pytest.mark.long


@pytest.mark.parametrize("num_curves", [100, pytest.param(1000, marks=LONG)])
def test_profile_intervals_cover_planted_gamma(num_curves):
    """1,000 curves: 92 to 98 %. 100 curves: the central 99.7 % of the binomial law at 95 %."""
    rng = np.random.default_rng(0)
    hits = narrow_hits = identified = 0
    for _ in range(num_curves):
        gamma, _, error = identified_curve(rng)
        law = fit_error_law(DENSITY, noisy(rng, error))
        low, high = law.gamma_ci
        hits += low <= gamma <= high
        half = (high - low) / 4
        narrow_hits += law.gamma - half <= gamma <= law.gamma + half
        identified += law.identified
    is_long = num_curves == 1000
    low, high = (0.92, 0.98) if is_long else stats.binom.ppf([0.0015, 0.9985], 100, 0.95) / 100
    assert low <= hits / num_curves <= high
    assert identified / num_curves > 0.95
    assert narrow_hits / num_curves < low  # negative control: half the interval is too little


@pytest.mark.parametrize("num_curves", [30, pytest.param(1000, marks=LONG)])
def test_curves_that_do_not_identify_gamma_are_flagged(num_curves):
    rng = np.random.default_rng(1)
    laws = [fit_error_law(DENSITY, noisy(rng, unidentified_curve(rng))) for _ in range(num_curves)]
    assert np.mean([not law.identified for law in laws]) >= 0.9
    assert all(law.reasons for law in laws if not law.identified)


def test_gauges_are_one_curve():
    rng = np.random.default_rng(2)
    for _ in range(20):
        gamma, (p, q, e_np), error = identified_curve(rng, fewest=0)
        law = ErrorLaw(
            gamma=gamma, p=p, q=q, e_np=e_np, e_up=e_np * (q / p) ** gamma, gamma_ci=(0.5, 3.0),
            ci_level=0.95, num_in_window=0, dispersion=0.0, seed_dispersion=0.0, reasons=(),
        )  # fmt: skip
        paper = law.in_paper_gauge()
        assert paper.gamma == -gamma and paper.gamma_ci == (-3.0, -0.5)
        np.testing.assert_allclose(law.error_at(DENSITY), error, rtol=1e-12)
        np.testing.assert_allclose(paper.error_at(DENSITY), error, rtol=1e-12)
        printed = curve(paper.gamma, paper.p, paper.q, paper.e_np)
        np.testing.assert_allclose(printed, error, rtol=1e-12)
        # q follows from what Table 7 would need: gamma, p, e_np, e_up.
        q_printed = paper.p * (paper.e_up / paper.e_np) ** (1 / paper.gamma)
        assert q_printed == pytest.approx(paper.q, rel=1e-12)
        assert paper.in_paper_gauge() == paper


def test_an_exact_curve_comes_back():
    law = fit_error_law(DENSITY, curve(1.4, 0.008, 0.35, 0.4))
    found = law.gamma, law.p, law.q, law.e_np
    np.testing.assert_allclose(found, (1.4, 0.008, 0.35, 0.4), rtol=1e-5)
    assert law.e_up == pytest.approx(0.4 * (0.35 / 0.008) ** 1.4, rel=1e-4)
    assert law.identified and law.num_in_window == num_in_window(law.p, law.q) == 7


def test_profile_interval_against_a_grid():
    """All of (gamma, p, q) on a grid, e_np in closed form: least squares and both ends agree."""
    rng = np.random.default_rng(3)
    observed = noisy(rng, curve(1.3, 0.01, 0.4, 2.0))
    law = fit_error_law(DENSITY, observed)
    gammas = np.linspace(0.8, 2.0, 121)
    best = np.full(gammas.size, np.inf)
    log_p, log_ratio = np.linspace(np.log(2e-3), np.log(0.05), 90), np.linspace(2.0, 5.5, 90)
    squared = DENSITY**2
    for i, gamma in enumerate(gammas):
        p = np.exp(log_p)[:, None, None]
        q = p * np.exp(log_ratio)[:, None]
        residuals = np.log(observed) - gamma / 2 * np.log((squared + q**2) / (squared + p**2))
        residuals -= residuals.mean(axis=-1, keepdims=True)
        best[i] = np.sum(residuals**2, axis=-1).min()
    assert gammas[best.argmin()] == pytest.approx(law.gamma, abs=0.02)
    limit = stats.t.ppf(0.975, 22) ** 2 * law.dispersion
    inside = gammas[best - 22 * law.dispersion <= limit]
    np.testing.assert_allclose([inside.min(), inside.max()], law.gamma_ci, atol=0.03)
    assert 22 * law.dispersion <= best.min()  # the fit is no worse than the grid


@pytest.mark.parametrize(("num_seeds", "num_curves"), [(4, 40), pytest.param(3, 500, marks=LONG)])
def test_scatter_between_seeds_widens_the_interval(num_seeds, num_curves):
    """Seeds whose gammas scatter: covered in 93 % as stated, by noise alone far less often."""
    rng = np.random.default_rng(4)
    hits = noise_hits = 0
    for _ in range(num_curves):
        gamma, (p, q, e_np), _ = identified_curve(rng, largest=60.0)
        gammas = gamma * np.exp(0.1 * rng.standard_normal(num_seeds))
        errors = noisy(rng, np.stack([curve(g, p, q, e_np) for g in gammas]))
        law = fit_error_law(DENSITY, errors)
        hits += law.gamma_ci[0] <= gamma <= law.gamma_ci[1]
        # The mean curve has the same best fit and knows nothing of the seeds.
        alone = fit_error_law(DENSITY, np.exp(np.log(errors).mean(axis=0)))
        assert alone.gamma == pytest.approx(law.gamma, rel=1e-3)
        noise_hits += alone.gamma_ci[0] <= gamma <= alone.gamma_ci[1]
    lowest = stats.binom.ppf(0.0015, num_curves, 0.93)
    assert noise_hits < lowest <= hits


def test_identical_seeds_leave_one_standard_error_of_the_noise():
    observed = noisy(np.random.default_rng(5), curve(1.3, 0.008, 0.35, 0.5))
    one, three = (fit_error_law(DENSITY, np.tile(observed, (num, 1))) for num in (1, 3))
    assert three.gamma == pytest.approx(one.gamma, rel=1e-5)
    assert np.isnan(one.seed_dispersion) and three.seed_dispersion < 1e-6
    # Residual variance over 3 * 26 - 4 and 26 - 4 degrees of freedom.
    expected = np.sqrt(1 / 74) / (np.sqrt(1 / 22) * stats.t.ppf(0.975, 22))
    ratio = np.ptp(np.log(three.gamma_ci)) / np.ptp(np.log(one.gamma_ci))
    assert ratio == pytest.approx(expected, rel=0.02)


def test_more_scatter_between_seeds_is_a_wider_interval():
    """Scatter of gamma; a shift of a whole curve moves e_np and says nothing about gamma."""
    rng, widths = np.random.default_rng(6), []
    for by_gamma, by_level in ((0.0, 0.0), (0.2, 0.0), (0.0, 0.1)):
        of_draws = []
        for _ in range(12):
            gammas = 1.2 * np.exp(by_gamma * rng.standard_normal(3))
            exact = np.stack([curve(gamma, 0.01, 0.35, 0.5) for gamma in gammas])
            exact *= np.exp(by_level * rng.standard_normal((3, 1)))
            of_draws.append(np.ptp(np.log(fit_error_law(DENSITY, noisy(rng, exact)).gamma_ci)))
        widths.append(np.median(of_draws))
    agreeing, apart, shifted = widths
    assert apart > 3 * agreeing and shifted < 2 * agreeing


def test_binomial_noise_covers_and_zero_errors_are_legal():
    rng, num_test, num_curves = np.random.default_rng(6), 2000, 40
    hits = zeros = 0
    for _ in range(num_curves):
        gamma, _, error = identified_curve(rng, fewest=7)
        wrong = rng.binomial(num_test, error / 100)
        law = fit_error_law(DENSITY, 100 * wrong / num_test, num_test=num_test)
        hits += law.gamma_ci[0] <= gamma <= law.gamma_ci[1]
        zeros += (wrong == 0).any()
        assert law.dispersion >= 1
    low, high = stats.binom.ppf([0.0015, 0.9985], num_curves, 0.95)
    assert low <= hits <= high
    assert zeros > 5


def test_noise_beyond_binomial_widens_the_interval():
    error = curve(1.3, 0.008, 0.35, 0.5)
    plain, more = (
        fit_error_law(DENSITY, noisy(np.random.default_rng(8), error, sd=sd), num_test=10**5)
        for sd in (0.0, 0.1)
    )
    assert more.dispersion > 5 and np.ptp(more.gamma_ci) > 2 * np.ptp(plain.gamma_ci)


def test_order_and_gauge_of_the_input_do_not_matter():
    observed = noisy(np.random.default_rng(9), curve(1.3, 0.008, 0.35, 0.5))
    order = np.random.default_rng(10).permutation(26)
    law = fit_error_law(DENSITY, observed)
    mixed = fit_error_law(DENSITY[order], observed[order])
    assert mixed.gamma == pytest.approx(law.gamma, rel=1e-4)
    wider = fit_error_law(DENSITY, observed, ci_level=0.99)
    assert wider.gamma_ci[0] < law.gamma_ci[0] < law.gamma_ci[1] < wider.gamma_ci[1]


def test_errors_that_fall_with_pruning_are_not_identified():
    law = fit_error_law(DENSITY[:5], np.array([17.0, 15.2, 14.1, 13.7, 13.5]), num_test=10_000)
    assert not law.identified


def test_held_out_densities():
    rng = np.random.default_rng(11)
    truth = curve(1.3, 0.008, 0.35, 0.5)
    is_held_out = np.arange(26) % 3 == 1
    held = predict_held_out(DENSITY, noisy(rng, truth), is_held_out=is_held_out)
    np.testing.assert_allclose(held.predicted, truth[is_held_out], rtol=0.06)
    assert held.rms == pytest.approx(np.sqrt(np.mean((held.predicted - held.measured) ** 2)))
    exact = predict_held_out(DENSITY, truth, is_held_out=is_held_out)
    assert exact.rms < 1e-4 < held.rms
    with pytest.raises(ValueError, match="is_held_out"):
        predict_held_out(DENSITY, truth, is_held_out=np.zeros(26, bool))


def test_power_law_in_a_window():
    error = 7.0 * np.where(DENSITY < 0.3, 0.3 - DENSITY, 1.0) ** 0.6
    law = fit_power_law(DENSITY, error, window=(0.02, 0.3))
    assert (law.gamma, law.amplitude) == pytest.approx((-0.6, 7.0))
    assert law.num_densities == 12
    np.testing.assert_allclose(law.error_at(DENSITY)[-8:], error[-8:])
    assert np.isnan(law.error_at(np.array(0.3)))


@pytest.mark.parametrize("num_seeds", [1, 4])
def test_power_law_intervals_cover(num_seeds):
    rng, num_draws, hits = np.random.default_rng(12), 300, 0
    exact = 7.0 * np.where(DENSITY < 0.3, 0.3 - DENSITY, 1.0) ** 0.6
    for _ in range(num_draws):
        errors = exact * np.exp(0.03 * rng.standard_normal((num_seeds, 26)))
        low, high = fit_power_law(DENSITY, errors, window=(0.02, 0.3)).gamma_ci
        hits += low <= -0.6 <= high
    low, high = stats.binom.ppf([0.0015, 0.9985], num_draws, 0.95)
    assert low <= hits <= high


GOOD = curve(1.3, 0.008, 0.35, 0.5)


@pytest.mark.parametrize(
    "change, words",
    [
        (
            {"density": DENSITY[:4], "error": GOOD[:4]},
            "density: must hold at least 5 values, got 4",
        ),
        ({"error": GOOD[:7]}, r"error: must be \[level\] or \[seed level\].* \(7,\) and \(26,\)"),
        ({"density": DENSITY * 1.01}, r"density: must lie in \(0, 1\], got 1.01"),
        ({"density": DENSITY - DENSITY[-1]}, r"density: must lie in \(0, 1\], got 0.0"),
        ({"error": GOOD - 0.6}, r"error: must lie in \[0, 100\] percent, got -"),
        ({"error": GOOD + 99}, r"error: must lie in \[0, 100\] percent, got 10"),
        ({"error": np.where(DENSITY == 1, np.nan, GOOD)}, "error: must lie .* got nan"),
        ({"error": np.where(DENSITY == 1, 0, GOOD)}, "error: must be positive without num_test"),
        ({"error": np.full(26, 3.0)}, "error: must not be the same everywhere, got 3.0"),
        ({"num_test": 0}, "num_test: must be at least 1, got 0"),
        ({"ci_level": 95}, r"ci_level: must be in \(0, 1\), got 95"),
    ],
)
def test_bad_input(change, words):
    arguments = {"density": DENSITY, "error": GOOD} | change
    with pytest.raises(ValueError, match=words):
        fit_error_law(arguments.pop("density"), arguments.pop("error"), **arguments)


@pytest.mark.parametrize("window", [(0.3, 0.02), (-0.1, 0.3), (0.2, 0.3)])
def test_bad_window(window):
    with pytest.raises(ValueError, match="window: must"):
        fit_power_law(DENSITY, GOOD, window=window)
