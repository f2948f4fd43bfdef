"""The linear flow: planted b and G come back, and what the data leave open is said."""

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import solve_ivp
from scipy.linalg import helmert

from imp_rg.rg import fit_linear_flow

CONSTANT = np.full(12, 1.25)
VARIABLE = (10 - np.arange(9)) / (9 - np.arange(9))
G = np.array([[-0.5, 0.3], [-0.2, -0.3]])
B = np.array([0.2, -0.1])


def planted(rng, scale_factor, *, drift=B, coupling=G, num_seeds=5, noise=0.0):
    """Shares of a linear flow, integrated numerically; noise enters at every level."""
    z = np.empty((num_seeds, len(scale_factor) + 1, len(drift)))
    z[:, 0] = rng.standard_normal(z[:, 0].shape)

    def rate(_, values):
        return (values.reshape(num_seeds, -1) @ coupling.T + drift).ravel()

    for n, c in enumerate(scale_factor):
        span = (0.0, np.log(c))
        done = solve_ivp(rate, span, z[:, n].ravel(), method="DOP853", rtol=1e-12, atol=1e-13)
        z[:, n + 1] = done.y[:, -1].reshape(z[:, n].shape)
        z[:, n + 1] += noise * rng.standard_normal(z[:, n].shape)
    shares = np.exp(z @ helmert(len(drift) + 1))
    return shares / shares.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("scale_factor", [CONSTANT, VARIABLE], ids=["constant c", "variable c"])
@pytest.mark.parametrize("size", [2, 4])
def test_planted_flow_without_noise(scale_factor, size):
    rng = np.random.default_rng(size)
    coupling = 0.4 * rng.standard_normal((size, size)) - 0.3 * np.eye(size)
    drift = 0.3 * rng.standard_normal(size)
    flow = fit_linear_flow(planted(rng, scale_factor, drift=drift, coupling=coupling), scale_factor)
    np.testing.assert_allclose(flow.G, coupling, atol=1e-6)
    np.testing.assert_allclose(flow.b, drift, atol=1e-6)
    assert flow.one_step < 1e-8 and flow.multi_step < 1e-7 and flow.ridge == 0
    assert flow.one_step_diagonal > 0.01 and flow.multi_step_diagonal > flow.one_step_diagonal
    blocks = helmert(size + 1).T
    np.testing.assert_allclose(flow.G_blocks, blocks @ coupling @ blocks.T, atol=1e-6)
    np.testing.assert_allclose(flow.b_blocks, blocks @ drift, atol=1e-6)
    vectors = flow.G_blocks @ flow.eigenvectors
    np.testing.assert_allclose(vectors, flow.eigenvectors * flow.eigenvalues, atol=1e-6)
    # Negative control: plain finite differences miss by a part of the order of ln c.
    z = np.log(planted(rng, scale_factor, drift=drift, coupling=coupling)) @ blocks
    x = np.insert(z[:, :-1].reshape(-1, size), 0, 1, axis=1)
    rates = (np.diff(z, axis=1) / np.log(scale_factor)[:, None]).reshape(-1, size)
    plain = np.linalg.lstsq(x, rates, rcond=None)[0][1:].T
    assert np.abs(plain - coupling).max() > 1e-2


def test_a_single_seed_is_read_without_intervals():
    flow = fit_linear_flow(planted(np.random.default_rng(0), CONSTANT, num_seeds=1), 1.25)
    np.testing.assert_allclose(flow.G, G, atol=1e-6)
    assert np.isnan(flow.G_ci).all() and np.isnan(flow.b_ci).all()


def test_the_fixed_point_does_not_flow():
    flow = fit_linear_flow(planted(np.random.default_rng(0), CONSTANT), 1.25)
    z = np.log(flow.fixed_point) @ flow.basis
    np.testing.assert_allclose(B + G @ z, 0, atol=1e-6)
    assert flow.fixed_point.sum() == pytest.approx(1)
    singular = fit_linear_flow(
        planted(np.random.default_rng(0), CONSTANT, coupling=np.diag([-1.0, 0.0])), 1.25
    )
    assert np.isnan(singular.fixed_point).all()


@pytest.mark.parametrize("scale_factor", [CONSTANT, VARIABLE], ids=["constant c", "variable c"])
def test_pure_exponentials_have_no_coupling(scale_factor):
    rng, tau = np.random.default_rng(1), np.array([-0.3, -0.2, -0.1, -0.4])
    time = np.concatenate([[0], np.cumsum(np.log(scale_factor))])
    magnitude = np.exp(rng.standard_normal((5, 1, 4)) + tau * time[:, None])
    flow = fit_linear_flow(magnitude / magnitude.sum(axis=-1, keepdims=True), scale_factor)
    np.testing.assert_allclose(flow.G, 0, atol=1e-10)
    np.testing.assert_allclose(flow.b_blocks, tau - tau.mean(), atol=1e-10)


@pytest.mark.parametrize(
    ("num_seeds", "num_draws"),
    [
        (4, 60),
        pytest.param(3, 600, marks=pytest.mark.long),
        pytest.param(6, 600, marks=pytest.mark.long),
    ],
)
def test_intervals_cover_with_noise(num_seeds, num_draws):
    """For every entry of b and G, hits lie in the central 99.7 % of the binomial law at 95 %."""
    rng = np.random.default_rng(2)
    hits = np.zeros(6)
    for _ in range(num_draws):
        shares = planted_fast(rng, num_seeds, noise=0.02)
        flow = fit_linear_flow(shares, 1.25)
        ci = np.concatenate([flow.b_ci, flow.G_ci.reshape(4, 2)])
        truth = np.concatenate([B, G.ravel()])
        hits += (ci[:, 0] <= truth) & (truth <= ci[:, 1])
    low, high = stats.binom.ppf([0.0015, 0.9985], num_draws, 0.95) / num_draws
    assert np.all((low <= hits / num_draws) & (hits / num_draws <= high))
    assert flow.one_step < 0.9 * flow.one_step_diagonal


def planted_fast(rng, num_seeds, *, noise, num_levels=13):
    """As `planted` for the planted G at c = 1.25, by small Euler steps of all seeds together."""
    z = np.empty((num_seeds, num_levels, 2))
    z[:, 0] = rng.standard_normal((num_seeds, 2))
    num_steps = 1 << 20
    step = np.eye(3)
    step[:2, :2] += G * np.log(1.25) / num_steps
    step[:2, 2] = B * np.log(1.25) / num_steps
    step = np.linalg.matrix_power(step, num_steps)
    for n in range(num_levels - 1):
        z[:, n + 1] = z[:, n] @ step[:2, :2].T + step[:2, 2]
        z[:, n + 1] += noise * rng.standard_normal((num_seeds, 2))
    shares = np.exp(z @ helmert(3))
    return shares / shares.sum(axis=-1, keepdims=True)


def test_verdict():
    rng = np.random.default_rng(3)
    enough = fit_linear_flow(planted(rng, CONSTANT, num_seeds=3), 1.25)
    assert enough.identified and enough.num_transitions == 36 and enough.num_parameters == 6
    few = fit_linear_flow(planted(rng, CONSTANT, num_seeds=2), 1.25)
    assert not few.identified and few.reasons[0].startswith("24 transitions")
    shares = planted(rng, CONSTANT, num_seeds=5)
    shares[:] = shares[:1]  # all seeds alike, and on a straight line
    shares = shares[:, :1] * np.exp(np.arange(13)[:, None] * np.array([0.0, 0.1, -0.1]))
    flat = fit_linear_flow(shares / shares.sum(axis=-1, keepdims=True), 1.25)
    assert not flat.identified and "condition number" in flat.reasons[0]
    np.testing.assert_allclose(flat.G, 0, atol=1e-10)


def test_steps_that_no_flow_makes_are_named():
    """z -> -z/2 has no real logarithm in one dimension."""
    z = np.array([1.0, -2.0, 0.7])[:, None] * (-0.5) ** np.arange(13)
    shares = np.exp(np.stack([z, -z], axis=-1) / np.sqrt(2))
    flow = fit_linear_flow(shares / shares.sum(axis=-1, keepdims=True), 1.25)
    assert "no continuous flow" in flow.reasons[-1]


def test_incomplete_seeds_are_left_out():
    shares = planted(np.random.default_rng(4), CONSTANT)
    broken = shares.copy()
    broken[1, 5:] = np.nan
    broken[3, 2, 0] = 0
    expected = fit_linear_flow(shares[[0, 2, 4]], 1.25)
    np.testing.assert_array_equal(fit_linear_flow(broken, 1.25).G, expected.G)


@pytest.mark.parametrize(
    "shares, scale_factor, words",
    [
        (np.full((2, 5, 1), 1.0), 1.25, "shares: must have at least two blocks"),
        (np.full((2, 5, 2), np.nan), 1.25, "shares: must hold a seed without NaN"),
        (np.full((2, 1, 2), 0.5), 1.25, "shares must have at least two levels"),
        (np.full((2, 5, 2), 0.5), 0.8, "scale_factor must be finite and above 1"),
    ],
)
def test_bad_input(shares, scale_factor, words):
    with pytest.raises(ValueError, match=words):
        fit_linear_flow(shares, scale_factor)
