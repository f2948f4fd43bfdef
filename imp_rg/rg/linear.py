"""The linear flow with cross terms: how every block drives every other one.

In: shares [seed level block] and the scale factor. Out: a `LinearFlow`, dz/dl = b + G z, where z
are isometric log-ratio coordinates of the shares and l is the RG time, the sum of ln c. The
diagonal model behind the exponents, in which every block scales on its own, is G = 0.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float
from scipy.linalg import expm, helmert

from imp_rg.config import require
from imp_rg.rg.spectrum import _check_scale_factor, _check_shares, log_or_nan, slope
from imp_rg.rg.stats import t_interval

RIDGES = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Ridge strengths tried, in units of the mean square of z about its mean."""

MAX_CONDITION = 1e4
"""A larger ratio of singular values leaves a direction undetermined."""

MIN_PER_PARAMETER = 5
"""Fewest transitions of all seeds per parameter."""

MAX_ITERATIONS = 100
MAX_GROWTH = 20.0
"""Largest norm of G ln c: beyond, no iteration converges and exp(G ln c) overflows."""


@dataclass(frozen=True, kw_only=True)
class LinearFlow:
    """dz/dl = b + G z, z = ln M projected on `basis`; intervals are NaN with one seed.

    Attributes:
      b: Drift at z = 0.
      G: Coupling of the coordinates.
      basis: Orthonormal contrasts (Helmert), columns sum to zero: z = ln M @ basis.
      b_ci: Lower and upper end for every entry of b.
      G_ci: Lower and upper end for every entry of G.
      eigenvalues: Of G, largest real part first: exponents of the deviations from the fixed point.
      eigenvalues_ci: Ends for their real parts.
      eigenvectors: As log-ratios of the blocks, one column each.
      fixed_point: Shares that do not flow, exp(basis z*) / sum with z* = -G^-1 b; NaN where G is
        not well conditioned.
      condition: Largest over smallest singular value of the visited z about their mean.
      ridge: Chosen strength, one of `RIDGES`.
      num_transitions: Of all seeds together.
      num_parameters: Entries of b and G.
      one_step: Root mean square error of predicting z one level ahead.
      multi_step: Error of predicting all levels from level 0.
      one_step_diagonal: `one_step` of the diagonal model.
      multi_step_diagonal: `multi_step` of the diagonal model.
      reasons: Why b and G are not identified, in words; empty if they are.
    """

    b: Float[np.ndarray, " coordinate"]
    G: Float[np.ndarray, "coordinate coordinate"]
    basis: Float[np.ndarray, "block coordinate"]
    b_ci: Float[np.ndarray, "coordinate 2"]
    G_ci: Float[np.ndarray, "coordinate coordinate 2"]
    eigenvalues: Complex[np.ndarray, " coordinate"]
    eigenvalues_ci: Float[np.ndarray, "coordinate 2"]
    eigenvectors: Complex[np.ndarray, "block coordinate"]
    fixed_point: Float[np.ndarray, " block"]
    condition: float
    ridge: float
    num_transitions: int
    num_parameters: int
    one_step: float
    multi_step: float
    one_step_diagonal: float
    multi_step_diagonal: float
    reasons: tuple[str, ...]

    @property
    def identified(self) -> bool:
        """Whether the data determine b and G."""
        return not self.reasons

    @property
    def b_blocks(self) -> Float[np.ndarray, " block"]:
        """Drift of the centred log-ratio of every block."""
        return self.basis @ self.b

    @property
    def G_blocks(self) -> Float[np.ndarray, "block block"]:  # noqa: N802  (G of dz/dl)
        """What the log-ratio of block j adds to the exponent of block i; rows sum to zero."""
        return self.basis @ self.G @ self.basis.T


class FittedFlow(NamedTuple):
    """Shares and the linear flow that was fitted to them.

    Attributes:
      groups: Names of the groups of blocks.
      time: RG time, 0 at the dense level.
      shares: Of complete seeds; they sum to one.
      b: Drift at z = 0.
      G: Coupling of the coordinates.
      fixed_point: Shares that do not flow; NaN without one.
    """

    groups: tuple[str, ...]
    time: Float[np.ndarray, " level"]
    shares: Float[np.ndarray, "seed level group"]
    b: Float[np.ndarray, " coordinate"]
    G: Float[np.ndarray, "coordinate coordinate"]
    fixed_point: Float[np.ndarray, " group"]

    @property
    def coordinates(self) -> list[str]:
        """What each log-ratio coordinate contrasts: the groups so far, and the next one."""
        first, *others = self.groups
        ends = ["", *(f" to {group}" for group in others)]
        return [f"{first}{end} over {group}" for end, group in zip(ends, others, strict=False)]

    @property
    def basis(self) -> Float[np.ndarray, "group coordinate"]:
        """As of `LinearFlow`."""
        return helmert(len(self.groups)).T

    @property
    def z(self) -> Float[np.ndarray, "seed level coordinate"]:
        """Log-ratio coordinates of the shares."""
        return np.log(self.shares) @ self.basis

    def predicted(self) -> Float[np.ndarray, "seed level coordinate"]:
        """Coordinates that the linear flow gives from level 0 of each seed. House definition."""
        k = self.b.size
        generator = np.zeros((k + 1, k + 1))
        generator[:k, :k], generator[:k, k] = self.G, self.b
        flow = expm(generator * self.time[:, None, None])
        return np.einsum("nij,sj->sni", flow[:, :k, :k], self.z[:, 0]) + flow[:, :k, k]

    def predicted_diagonal(self) -> Float[np.ndarray, "seed level coordinate"]:
        """Coordinates by G = 0 with the log-ratio slopes as b. House definition."""
        drift = slope(self.z, self.time).mean(axis=0)
        return self.z[:, :1] + self.time[:, None] * drift


def fit_linear_flow(
    shares: Float[np.ndarray, "seed level block"],
    scale_factor: float | Float[np.ndarray, " transition"],
    *,
    ci_level: float = 0.95,
) -> LinearFlow:
    """Estimates the linear flow from all transitions of all seeds.

    Finite differences regress (z(n+1) - z(n)) / ln c on z(n), with a bias of the order of ln c.
    Here z(n) is replaced by the mean of z over the transition under b and G themselves, and the
    regression repeated until both stand: then every residual is that of the exact one-step
    solution. For constant c and no ridge this is the matrix logarithm of the regressed map
    z(n) -> z(n+1); for variable c it needs no common map. The ridge draws G to zero, so towards the
    diagonal model; its strength is that which best predicts a left-out seed one step ahead (none
    with one seed). Intervals are Student's over jack-knife pseudo-values, one per seed, at that
    strength. Noise is taken to enter the flow itself: noise of the measurement alone would look
    like a pull to the mean.

    Args:
      shares: Shares M_i(n) in (0, 1]; a seed with NaN or zero somewhere is left out.
      scale_factor: c(n) = density(n) / density(n+1) > 1 of each transition, or of all.
      ci_level: Coverage of the intervals, in (0, 1).

    Returns:
      A `LinearFlow`; prediction errors are those of left-out seeds, of the fit itself with one
      seed.

    Raises:
      ValueError: If shapes do not fit, there are fewer than two levels or blocks, a value is out
        of range, or no seed is complete.

    References:
      House definition; the coordinates are those of Egozcue et al., Math. Geol. 35 (2003).
    """
    shares = _check_shares(shares)
    log_c = _check_scale_factor(scale_factor, num_levels=shares.shape[1])
    z, basis = _coordinates(shares)
    left_out = {ridge: _leave_one_out(z, log_c, ridge) for ridge in (RIDGES if len(z) > 1 else ())}
    ridge = min(left_out, key=lambda r: _errors(left_out[r], z, log_c)[0], default=0.0)
    full = _fit(z, log_c, ridge)
    parts = left_out.get(ridge, [])
    diagonal = [_diagonal(np.delete(z, s, axis=0), log_c) for s in range(len(z))] if parts else []
    one_step, multi_step = _errors(parts or [full], z, log_c)
    one_step_diagonal, multi_step_diagonal = _errors(diagonal or [_diagonal(z, log_c)], z, log_c)
    eigenvalues, vectors = _eigen(full.G)
    num_transitions, num_parameters = len(z) * log_c.size, full.G.size + full.b.size
    condition = _condition(z[:, :-1])
    return LinearFlow(
        b=full.b,
        G=full.G,
        basis=basis,
        b_ci=_jackknife(full.b, [part.b for part in parts], ci_level),
        G_ci=_jackknife(full.G, [part.G for part in parts], ci_level),
        eigenvalues=eigenvalues,
        eigenvalues_ci=_jackknife(
            np.real(eigenvalues), [np.real(_eigen(part.G)[0]) for part in parts], ci_level
        ),
        eigenvectors=basis @ vectors,
        fixed_point=_fixed_point(full, basis),
        condition=condition,
        ridge=ridge,
        num_transitions=num_transitions,
        num_parameters=num_parameters,
        one_step=one_step,
        multi_step=multi_step,
        one_step_diagonal=one_step_diagonal,
        multi_step_diagonal=multi_step_diagonal,
        reasons=_reasons(num_transitions, num_parameters, condition, full.is_converged),
    )


class _Drift(NamedTuple):
    """One estimate of dz/dl = b + G z."""

    b: Float[np.ndarray, " coordinate"]
    G: Float[np.ndarray, "coordinate coordinate"]
    is_converged: bool = True


class _Step(NamedTuple):
    """Exact solution over every transition: z -> matrix z + offset, and the mean on the way."""

    matrix: Float[np.ndarray, "transition coordinate coordinate"]
    offset: Float[np.ndarray, "transition coordinate"]
    mean_matrix: Float[np.ndarray, "transition coordinate coordinate"]
    mean_offset: Float[np.ndarray, "transition coordinate"]


def _coordinates(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-ratio coordinates of the complete seeds, and their basis."""
    num_blocks = shares.shape[2]
    require(num_blocks >= 2, "shares", "must have at least two blocks", num_blocks)
    log_shares = log_or_nan(shares)
    is_complete = np.isfinite(log_shares).all(axis=(1, 2))
    require(bool(is_complete.any()), "shares", "must hold a seed without NaN or zero", len(shares))
    basis = helmert(num_blocks).T
    return log_shares[is_complete] @ basis, basis


def _solve(drift: _Drift, log_c: np.ndarray) -> _Step:
    """Integrates z, 1 and the integral of z together, so that a singular G needs no care."""
    k = drift.b.size
    generator = np.zeros((2 * k + 1, 2 * k + 1))
    generator[:k, :k], generator[:k, k] = drift.G, drift.b
    generator[k + 1 :, :k] = np.eye(k)
    spans, which = np.unique(log_c, return_inverse=True)
    flow = expm(generator * spans[:, None, None])[which]
    mean = flow[:, k + 1 :] / log_c[:, None, None]
    return _Step(flow[:, :k, :k], flow[:, :k, k], mean[..., :k], mean[..., k])


def _fit(z: np.ndarray, log_c: np.ndarray, ridge: float) -> _Drift:
    """Repeats the regression on path means; finite differences where that does not settle."""
    start, target = z[:, :-1], np.diff(z, axis=1) / log_c[:, None]
    first = drift = _regress(start, target, log_c, ridge)
    for _ in range(MAX_ITERATIONS):
        if np.linalg.norm(drift.G) * log_c.max() > MAX_GROWTH:
            break
        step = _solve(drift, log_c)
        mean = np.einsum("nij,snj->sni", step.mean_matrix, start) + step.mean_offset
        last, drift = drift, _regress(mean, target, log_c, ridge)
        change = np.abs(drift.G - last.G).max() + np.abs(drift.b - last.b).max()
        if change <= 1e-11 * (1 + np.abs(drift.G).max() + np.abs(drift.b).max()):
            return drift
    return first._replace(is_converged=False)


def _regress(x: np.ndarray, y: np.ndarray, log_c: np.ndarray, ridge: float) -> _Drift:
    """Ridge regression of rates `y` on `x`; rates weigh as the steps they make."""
    weight = np.tile(log_c**2, len(x))[:, None]
    x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    mean_x, mean_y = (np.sum(weight * values, axis=0) / weight.sum() for values in (x, y))
    rows, values = np.sqrt(weight) * (x - mean_x), np.sqrt(weight) * (y - mean_y)
    left, singular, right = np.linalg.svd(rows, full_matrices=False)
    penalty = ridge * np.mean(singular**2)
    # Directions never visited get no coupling.
    is_visited = singular > 1e-10 * max(singular.max(), np.sqrt(weight.sum()))
    gain = np.divide(singular, singular**2 + penalty, out=0 * singular, where=is_visited)
    G = values.T @ (left * gain) @ right
    return _Drift(mean_y - G @ mean_x, G)


def _diagonal(z: np.ndarray, log_c: np.ndarray) -> _Drift:
    """G = 0 and the log-ratio slopes, mean over seeds."""
    time = np.concatenate([[0.0], np.cumsum(log_c)])
    return _Drift(slope(z, time).mean(axis=0), np.zeros((z.shape[-1],) * 2))


def _leave_one_out(z: np.ndarray, log_c: np.ndarray, ridge: float) -> list[_Drift]:
    return [_fit(np.delete(z, s, axis=0), log_c, ridge) for s in range(len(z))]


def _errors(drifts: list[_Drift], z: np.ndarray, log_c: np.ndarray) -> tuple[float, float]:
    """One-step and multi-step error: of each drift on its own seed, or of a single one on all."""
    squares = np.zeros(2)
    seeds = z[:, None] if len(drifts) > 1 else [z]
    for drift, values in zip(drifts, seeds, strict=True):
        step = _solve(drift, log_c)
        rolled = values[:, 0]
        for n, (matrix, offset) in enumerate(zip(step.matrix, step.offset, strict=True)):
            one, rolled = values[:, n] @ matrix.T + offset, rolled @ matrix.T + offset
            squares += [np.sum((p - values[:, n + 1]) ** 2) for p in (one, rolled)]
    one_step, multi_step = np.sqrt(squares / z[:, 1:].size)
    return float(one_step), float(multi_step)


def _jackknife(full: np.ndarray, parts: list[np.ndarray], ci_level: float) -> np.ndarray:
    """Interval around the full estimate from the pseudo-values of the seeds, [*axes 2]."""
    if not parts:
        return np.full((*full.shape, 2), np.nan)
    pseudo = len(parts) * full - (len(parts) - 1) * np.stack(parts)
    interval = t_interval(pseudo, ci_level=ci_level)
    half = (interval.high - interval.low) / 2
    return np.stack([full - half, full + half], axis=-1)


def _eigen(coupling: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eig(coupling.astype(complex))
    order = np.lexsort([-np.imag(values), -np.real(values)])
    return values[order], vectors[:, order]


def _fixed_point(drift: _Drift, basis: np.ndarray) -> np.ndarray:
    singular = np.linalg.svd(drift.G, compute_uv=False)
    if singular[-1] * MAX_CONDITION <= singular[0]:
        return np.full(len(basis), np.nan)
    log_ratio = basis @ -np.linalg.solve(drift.G, drift.b)
    shares = np.exp(log_ratio - log_ratio.max())
    return shares / shares.sum()


def _condition(z: np.ndarray) -> float:
    rows = z.reshape(-1, z.shape[-1])
    singular = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0 else np.inf


def _reasons(
    num: int, num_parameters: int, condition: float, is_converged: bool
) -> tuple[str, ...]:
    needed = MIN_PER_PARAMETER * num_parameters
    checks = {
        f"{num} transitions of all seeds for {num_parameters} parameters, {needed} are needed": (
            num < needed
        ),
        f"the visited shares leave directions open: condition number {condition:.1e}, at most "
        f"{MAX_CONDITION:.0e} is allowed": condition > MAX_CONDITION,
        "no continuous flow makes these steps; finite differences are given": not is_converged,
    }
    return tuple(reason for reason, is_met in checks.items() if is_met)
