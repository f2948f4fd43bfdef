"""One error law for networks of several widths and depths under pruning.

In: errors of every network at its densities. Out: a `JointLaw`, in which width w, depth l and
density d act through the one number m = l^phi w^psi d, so that a large network pruned far and a
small one pruned little have the same error.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from imp_rg.config import require
from imp_rg.rg.error_fit import GAMMA_BOUNDS
from imp_rg.rg.error_law import MIN_IN_WINDOW, check_errors, require_all
from imp_rg.rg.error_noise import BinomialNoise, LogNoise
from imp_rg.rg.joint_fit import JointFit, Networks

MAX_HALF_WIDTH = 2.0
"""Half the interval of ln gamma, phi or psi above which the data do not determine it."""

UNKNOWN = (float("nan"), float("nan"))


@dataclass(frozen=True, kw_only=True)
class JointLaw:
    """One curve for all networks.

    err = e_np [(m^2 + q^2) / (m^2 + p^2)]^(gamma/2) with m = l^phi w^psi d and
    q = p (e_up / e_np)^(1/gamma).

    gamma, p, e_up, phi and psi are the same for all networks, e_np is each one's own. Between q and
    p all networks of one m have one error, e_up (p / m)^gamma. Positive gauge, as `ErrorLaw`.

    Attributes:
      gamma: Exponent of the density.
      p: m below which the error saturates at `e_up`.
      e_up: Error at vanishing density, percent; an extrapolation.
      phi: Exponent of the depth; NaN if all networks are equally deep.
      psi: Exponent of the width; NaN if all are equally wide.
      gamma_ci: Lower and upper end of the interval of gamma.
      phi_ci: Of phi.
      psi_ci: Of psi.
      ci_level: Coverage of the intervals.
      width: Of each network.
      depth: Of each network.
      e_np: Error of each network unpruned, percent.
      deviation: Fitted error over the mean measured one, minus one, at each point; NaN where
        nothing was wrong.
      num_in_window: Points strictly between 3 p and q / 3 in m.
      dispersion: Variance of the noise, as of `ErrorLaw`.
      reasons: Why the exponents are not identified, in words; empty if they are.
    """

    gamma: float
    p: float
    e_up: float
    phi: float
    psi: float
    gamma_ci: tuple[float, float]
    phi_ci: tuple[float, float]
    psi_ci: tuple[float, float]
    ci_level: float
    width: Float[np.ndarray, " network"]
    depth: Float[np.ndarray, " network"]
    e_np: Float[np.ndarray, " network"]
    deviation: Float[np.ndarray, " point"]
    num_in_window: int
    dispersion: float
    reasons: tuple[str, ...]

    @property
    def identified(self) -> bool:
        """Whether the data determine the exponents."""
        return not self.reasons

    def invariant(
        self,
        density: Float[np.ndarray, "*axes"],
        width: Float[np.ndarray, "*axes"],
        depth: Float[np.ndarray, "*axes"],
    ) -> Float[np.ndarray, "*axes"]:
        """M = l^phi w^psi d; an exponent that is NaN counts as 0."""
        phi, psi = np.nan_to_num([self.phi, self.psi])
        return np.asarray(depth, float) ** phi * np.asarray(width, float) ** psi * density

    def error_at(
        self, m: Float[np.ndarray, "*axes"], e_np: float | Float[np.ndarray, "*axes"]
    ) -> Float[np.ndarray, "*axes"]:
        """Error in percent at m of a network whose error unpruned is e_np."""
        return joint_error(m, e_np, gamma=self.gamma, p=self.p, e_up=self.e_up)


def joint_error(
    m: Float[np.ndarray, "*axes"],
    e_np: float | Float[np.ndarray, "*axes"],
    *,
    gamma: float,
    p: float,
    e_up: float,
) -> Float[np.ndarray, "*axes"]:
    """The curve of `JointLaw`: error in percent at m of a network whose error unpruned is e_np.

    References:
      Rosenfeld et al., arXiv:2006.10621.
    """
    q = p * (e_up / np.asarray(e_np)) ** (1 / gamma)
    return e_np * ((m**2 + q**2) / (m**2 + p**2)) ** (gamma / 2)


def fit_joint_law(
    density: Float[np.ndarray, " point"],
    error: Float[np.ndarray, "*seed point"],
    width: Float[np.ndarray, " point"],
    depth: Float[np.ndarray, " point"],
    *,
    num_test: int | None = None,
    ci_level: float = 0.95,
) -> JointLaw:
    """Fits the joint law to all networks at once.

    Points of equal width and depth are one network. Noise is binomial with `num_test`, otherwise
    that of least squares in the logarithm. The points of one curve (a network and a seed) share
    weights and masks, so the intervals take whole curves as the independent units; where the
    scatter of single points says more, they take that. They know nothing of a law that is wrong:
    look at `deviation`.

    Args:
      density: Kept fraction at each point, in (0, 1].
      error: 100 - accuracy, in percent; [point], or [seed point].
      width: Of the network of each point, positive.
      depth: Of the network of each point, positive.
      num_test: Number of test examples behind each error.
      ci_level: Coverage of the intervals, in (0, 1).

    Returns:
      A `JointLaw`; `not identified` if fewer than `MIN_IN_WINDOW` points lie on the power law or an
      exponent is undetermined.

    Raises:
      ValueError: If shapes do not fit, a value is out of range, all networks are equal, width and
        depth are tied to each other, or there are fewer points than parameters.

    References:
      Rosenfeld, Frankle, Carbin, Shavit, arXiv:2006.10621, Sec. 4 (the invariant m*). There e_np is
      measured, here it is fitted. Intervals and verdict: house definitions.
    """
    density, errors = check_errors(density, error, num_test=num_test)
    networks = _group(width, depth, density.size)
    require(0 < ci_level < 1, "ci_level", "must be in (0, 1)", ci_level)
    noise = LogNoise(errors) if num_test is None else BinomialNoise(errors, num_test)
    fit = JointFit(density, networks, noise)
    require(fit.best.size < density.size, "density",
            f"must hold more points than the {fit.best.size} parameters", density.size)  # fmt: skip
    half, dispersion = _half_widths(fit, ci_level)
    best = dict(zip(fit.shared, fit.best.tolist(), strict=False))
    ends = {name: (best[name] - half[name], best[name] + half[name]) for name in fit.shared}
    low, high = np.clip(np.exp(np.clip(ends["gamma"], -10, 10)), *GAMMA_BOUNDS)
    mean = errors.mean(axis=0)
    num_in_window = fit.num_in_window()
    return JointLaw(
        gamma=float(np.exp(best["gamma"])),
        p=float(np.exp(fit.log_p())),
        e_up=float(np.exp(best["e_up"])),
        phi=float(best.get("phi", np.nan)),
        psi=float(best.get("psi", np.nan)),
        gamma_ci=(float(low), float(high)),
        phi_ci=ends.get("phi", UNKNOWN),
        psi_ci=ends.get("psi", UNKNOWN),
        ci_level=ci_level,
        width=networks.width,
        depth=networks.depth,
        e_np=np.exp(fit.best[len(fit.shared) :]),
        deviation=np.exp(fit.log_error(fit.best)) / np.where(mean > 0, mean, np.nan) - 1,
        num_in_window=num_in_window,
        dispersion=dispersion,
        reasons=_reasons(num_in_window, half),
    )


def _group(width: np.ndarray, depth: np.ndarray, num_points: int) -> Networks:
    """Networks by width and depth, and the one of each point."""
    sizes = {"width": np.asarray(width, float), "depth": np.asarray(depth, float)}
    for name, values in sizes.items():
        rule = f"must be [point] as density, {num_points}"
        require(values.shape == (num_points,), name, rule, values.shape)
        require_all((values > 0) & np.isfinite(values), name, "must be positive", values)
    pairs = np.stack([sizes["width"], sizes["depth"]], axis=1)
    found, of_point = np.unique(pairs, axis=0, return_inverse=True)
    require(len(found) > 1, "width, depth", "must hold at least 2 networks", found.tolist())
    centred = np.log(found) - np.log(found).mean(axis=0)
    varies = np.ptp(centred, axis=0) > 0
    is_free = np.linalg.matrix_rank(centred) == varies.sum()
    require(is_free, "width, depth", "must not be tied to each other", found.tolist())
    return Networks(width=found[:, 0], depth=found[:, 1], of_point=of_point.reshape(-1))


def _half_widths(fit: JointFit, ci_level: float) -> tuple[dict[str, float], float]:
    """Half the interval of each shared parameter, and the dispersion of the noise."""
    log_error, gradient = fit.log_error(fit.best), fit.gradient(fit.best)
    score, weight = fit.noise.score(log_error), fit.noise.weight(log_error)
    num_seeds, num_points = score.shape
    inverse = np.linalg.pinv(num_seeds * (gradient * weight[:, None]).T @ gradient)
    dof = num_seeds * num_points - fit.best.size
    dispersion = max(float(np.sum(score**2 / weight)) / dof, fit.noise.least_dispersion)
    in_network = np.eye(len(fit.networks.width))[fit.networks.of_point]
    curves = np.einsum("sn,nk,np->skp", score, in_network, gradient)
    curves = curves.reshape(-1, fit.best.size) @ inverse
    left = max(len(curves) - len(fit.shared), 1)
    variance = np.sum(curves**2, axis=0) * len(curves) / left
    quantile = 0.5 + ci_level / 2
    by_point = stats.t.ppf(quantile, dof) * np.sqrt(dispersion * np.diag(inverse))
    by_curve = stats.t.ppf(quantile, left) * np.sqrt(variance)
    half = np.maximum(by_point, by_curve)
    return dict(zip(fit.shared, half.tolist(), strict=False)), dispersion


def _reasons(num_in_window: int, half: dict[str, float]) -> tuple[str, ...]:
    reasons = []
    if num_in_window < MIN_IN_WINDOW:
        reasons.append(
            f"{num_in_window} points lie on the power law (between 3 p and q / 3), "
            f"{MIN_IN_WINDOW} are needed"
        )
    for name in ("gamma", "phi", "psi"):
        if half.get(name, 0.0) > MAX_HALF_WIDTH:
            label = "ln gamma" if name == "gamma" else name
            reasons.append(f"the interval of {label} is wider than +-{MAX_HALF_WIDTH:g}")
    return tuple(reasons)
