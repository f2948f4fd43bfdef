"""The least-squares problem behind the error law.

In: densities [level] and the noise of their errors. Out: the best parameters theta = (ln gamma,
ln p, ln q/p, ln e_np) in the positive gauge, with all of them free or with gamma held.
"""

import numpy as np
from scipy.optimize import least_squares

from imp_rg.rg.error_noise import Noise

GAMMA_BOUNDS = (0.02, 20.0)
"""Where gamma is looked for, in the positive gauge."""


class ErrorFit:
    """Least-squares problem in (ln gamma, ln p, ln q/p, ln e_np) and its best solution so far."""

    def __init__(self, density: np.ndarray, noise: Noise):
        self.density, self.noise = density, noise
        smallest, largest = density.min(), density.max()
        p_bounds = smallest / 1e3, 10 * largest
        bounds = np.log([GAMMA_BOUNDS, p_bounds, (1.01, 1e7), (1e-9, 100)])
        self.low, self.high = bounds.T
        self.best, self.objective = self.low, np.inf
        for start in _starts(density, noise.log_error):
            self.minimise(start)

    def minimise(self, start: np.ndarray, *, log_gamma: float | None = None) -> np.ndarray:
        """Best parameters near `start`, with gamma free or held; returns them."""
        free = slice(0 if log_gamma is None else 1, 4)
        held = [] if log_gamma is None else [log_gamma]

        def residuals(theta: np.ndarray) -> np.ndarray:
            return self.noise.residuals(log_curve(np.append(held, theta), self.density))

        def jacobian(theta: np.ndarray) -> np.ndarray:
            theta = np.append(held, theta)
            slope = self.noise.residual_slope(log_curve(theta, self.density))
            return slope[:, None] * log_curve_gradient(theta, self.density)[:, free]

        if log_gamma is not None:
            start = _at_gamma(start, log_gamma)
        low, high = self.low[free], self.high[free]
        inside = np.clip(start[free], low + 1e-6, high - 1e-6)
        found = least_squares(
            residuals,
            inside,
            jacobian,  # pyright: ignore[reportArgumentType]
            bounds=(low, high),
            ftol=1e-10,
            xtol=1e-9,
            gtol=1e-10,
            x_scale="jac",
            max_nfev=200,
        )
        theta = np.append(held, found.x)
        if 2 * found.cost < self.objective:
            self.best, self.objective = theta, 2 * found.cost
        return theta

    def objective_at(self, theta: np.ndarray) -> float:
        """Sum of squared residuals."""
        return float(np.sum(self.noise.residuals(log_curve(theta, self.density)) ** 2))


def log_curve(theta: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Logarithm of the error in percent at theta = (ln gamma, ln p, ln q/p, ln e_np)."""
    gamma, p, ratio = np.exp(theta[:3])
    squared = density**2
    return theta[3] + gamma / 2 * np.log((squared + (p * ratio) ** 2) / (squared + p**2))


def log_curve_gradient(theta: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Derivative of `log_curve` by theta, [level 4]."""
    gamma, p, ratio = np.exp(theta[:3])
    squared, q = density**2, p * ratio
    by_q = gamma * q**2 / (squared + q**2)
    by_p = -gamma * p**2 / (squared + p**2)
    by_gamma = gamma / 2 * np.log((squared + q**2) / (squared + p**2))
    return np.stack([by_gamma, by_p + by_q, by_q, np.ones_like(density)], axis=1)


def _starts(density: np.ndarray, log_error: np.ndarray) -> list[np.ndarray]:
    """Curves through the smallest and the largest error that begin to rise where the data do."""
    order = np.argsort(-density)
    density, log_error = density[order], log_error[order]
    bottom, rise = np.median(log_error[:3]), max(np.ptp(log_error), 0.1)
    is_up = log_error > bottom + 0.2 * rise
    q = density[np.argmax(is_up)] if is_up.any() else density[-1]
    return [
        np.array([np.log(gamma), np.log(q) - rise / gamma, rise / gamma, bottom])
        for gamma in (0.3, 0.8, 1.6, 4.0)
    ]


def _at_gamma(theta: np.ndarray, log_gamma: float) -> np.ndarray:
    """The curve with another gamma that has the same two plateaus and the same middle."""
    log_ratio = theta[2] * np.exp(theta[0] - log_gamma)
    return np.array([log_gamma, theta[1] + (theta[2] - log_ratio) / 2, log_ratio, theta[3]])
