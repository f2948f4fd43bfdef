"""The least-squares problem behind the joint law of widths, depths and densities.

In: densities [point], the network of each point, and the noise of their errors. Out: the best
parameters theta: the shared (ln gamma, ln p, ln e_up, phi, psi), without the exponent of a size
that does not vary, then ln e_np of every network.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import least_squares

from imp_rg.rg.error_fit import GAMMA_BOUNDS
from imp_rg.rg.error_noise import Noise


class Networks(NamedTuple):
    """Sizes of the networks, and which point belongs to which.

    Attributes:
      width: Of each network.
      depth: Of each network.
      of_point: Position of its network for every point.
    """

    width: Float[np.ndarray, " network"]
    depth: Float[np.ndarray, " network"]
    of_point: Int[np.ndarray, " point"]


class JointFit:
    """Least-squares problem and its best solution.

    Attributes:
      shared: Names of the parameters that all networks share, in the order of theta.
      best: Theta of the smallest sum of squares.
    """

    def __init__(self, density: np.ndarray, networks: Networks, noise: Noise):
        self.networks, self.noise = networks, noise
        sizes = {"phi": np.log(networks.depth), "psi": np.log(networks.width)}
        varying = {name: values for name, values in sizes.items() if np.ptp(values) > 0}
        self.shared = ("gamma", "p", "e_up", *varying)
        # Sizes in units of their geometric means: otherwise p and the exponents pull together.
        self._means = np.array([values.mean() for values in varying.values()])
        columns = np.stack(list(varying.values()), axis=1) - self._means
        self._log_sizes = columns[networks.of_point]
        self._log_density = np.log(density)
        self.best = self._minimise()

    def log_error(self, theta: np.ndarray) -> Float[np.ndarray, " point"]:
        """Logarithm of the error in percent at every point."""
        gamma, m, p, q, log_np = self._curve(theta)
        return log_np + gamma / 2 * np.log((m**2 + q**2) / (m**2 + p**2))

    def gradient(self, theta: np.ndarray) -> Float[np.ndarray, "point parameter"]:
        """Derivative of `log_error` by theta."""
        gamma, m, p, q, log_np = self._curve(theta)
        above_q, above_p = m**2 / (m**2 + q**2), m**2 / (m**2 + p**2)
        by_gamma = gamma / 2 * np.log((m**2 + q**2) / (m**2 + p**2))
        by_gamma -= (theta[2] - log_np) * (1 - above_q)
        by_p = gamma * (above_p - above_q)
        of_network = np.eye(len(self.networks.width))[self.networks.of_point]
        return np.column_stack(
            [
                by_gamma,
                by_p,
                1 - above_q,
                -by_p[:, None] * self._log_sizes,
                above_q[:, None] * of_network,
            ]
        )

    def log_p(self) -> float:
        """Ln p for sizes in the units given, not in those of the fit."""
        return float(self.best[1] + self._exponents(self.best) @ self._means)

    def num_in_window(self) -> int:
        """Points on the power law proper, between 3 p and q / 3."""
        _, m, p, q, _ = self._curve(self.best)
        return int(np.count_nonzero((3 * p < m) & (m < q / 3)))

    def _exponents(self, theta: np.ndarray) -> np.ndarray:
        return theta[3 : len(self.shared)]

    def _curve(self, theta: np.ndarray):
        """gamma, m, p, and q and ln e_np of every point."""
        gamma, p = np.exp(theta[:2])
        m = np.exp(self._log_density + self._log_sizes @ self._exponents(theta))
        log_np = theta[len(self.shared) :][self.networks.of_point]
        return gamma, m, p, p * np.exp((theta[2] - log_np) / gamma), log_np

    def _minimise(self) -> np.ndarray:
        starts = [self._start(gamma) for gamma in (0.5, 1.0, 2.0)]
        low, high = self._bounds()
        fits = [
            least_squares(
                lambda theta: self.noise.residuals(self.log_error(theta)),
                np.clip(start, low + 1e-6, high - 1e-6),
                self._jacobian,  # pyright: ignore[reportArgumentType]
                bounds=(low, high),
                x_scale="jac",
                max_nfev=300,
            )
            for start in starts
        ]
        return min(fits, key=lambda fit: fit.cost).x

    def _jacobian(self, theta: np.ndarray) -> np.ndarray:
        slope = self.noise.residual_slope(self.log_error(theta))
        return slope[:, None] * self.gradient(theta)

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        top, num_exponents = self.noise.log_error.max(), len(self.shared) - 3
        low = [np.log(GAMMA_BOUNDS[0]), self._log_density.min() - 7, top - 0.7]
        high = [np.log(GAMMA_BOUNDS[1]), self._log_density.max() + 2.3, top + 7]
        low += [-10.0] * num_exponents + [np.log(1e-9)] * len(self.networks.width)
        high += [10.0] * num_exponents + [np.log(100)] * len(self.networks.width)
        return np.array(low), np.array(high)

    def _start(self, gamma: float) -> np.ndarray:
        """Each network's plateau; exponents from where each rises half way to the top."""
        log_error, top = self.noise.log_error, self.noise.log_error.max()
        plateaus, crossings = [], []
        for network in range(len(self.networks.width)):
            of_it = np.flatnonzero(self.networks.of_point == network)
            of_it = of_it[np.argsort(-self._log_density[of_it])]
            plateaus.append(np.median(log_error[of_it[:3]]))
            is_up = log_error[of_it] > (plateaus[-1] + top) / 2
            crossing = of_it[np.argmax(is_up)] if is_up.any() else of_it[-1]
            crossings.append(self._log_density[crossing])
        sizes = np.stack(
            [self._log_sizes[self.networks.of_point == k][0] for k in range(network + 1)]
        )
        design = np.column_stack([np.ones(len(sizes)), -sizes])
        middle, *exponents = np.linalg.lstsq(design, np.array(crossings), rcond=None)[0]
        half_way = (top - np.mean(plateaus)) / 2
        return np.array([np.log(gamma), middle - half_way / gamma, top, *exponents, *plateaus])
