"""Noise of measured errors: logarithmic, or binomial where the number of test examples is known.

In: errors in percent [seed level]. Out: what a least-squares fit of ln err [level] needs: residuals
of the seeds taken together, and the score of every seed.
"""

from typing import Protocol

import numpy as np
from jaxtyping import Float
from scipy.special import kl_div


class Noise(Protocol):
    """Noise around a curve; every `model` is ln err in percent, [level].

    Attributes:
      log_error: Logarithm of the errors, seeds taken together, [level].
      least_dispersion: The variance factor cannot be smaller than this.
    """

    log_error: Float[np.ndarray, " level"]
    least_dispersion: float

    def residuals(self, model: Float[np.ndarray, " level"]) -> Float[np.ndarray, " level"]:
        """Their squares sum to -2 ln likelihood, up to a constant and the dispersion."""
        ...

    def residual_slope(self, model: Float[np.ndarray, " level"]) -> Float[np.ndarray, " level"]:
        """Derivative of each residual by its own ln err."""
        ...

    def score(self, model: Float[np.ndarray, " level"]) -> Float[np.ndarray, "seed level"]:
        """Derivative of the ln likelihood by ln err."""
        ...

    def weight(self, model: Float[np.ndarray, " level"]) -> Float[np.ndarray, " level"]:
        """Variance of the score of one seed at dispersion 1."""
        ...


class LogNoise:
    """Equal variance of ln err at every seed and level; the variance is the dispersion."""

    least_dispersion = 0.0

    def __init__(self, errors: Float[np.ndarray, "seed level"]):
        self._log_errors = np.log(errors)
        self.log_error = self._log_errors.mean(axis=0)
        self._root_num_seeds = np.sqrt(len(errors))

    def residuals(self, model):
        """Differences of the logarithms."""
        return self._root_num_seeds * (self.log_error - model)

    def residual_slope(self, model):
        """Slope of `residuals` in the log of the model."""
        return np.full_like(model, -self._root_num_seeds)

    def score(self, model):
        """Slope of the log-likelihood of each error in the log of the model."""
        return self._log_errors - model

    def weight(self, model):
        """Information that each error holds on the log of the model."""
        return np.ones_like(model)


class BinomialNoise:
    """Wrong answers among `num_test`; the dispersion is relative to the binomial variance."""

    least_dispersion = 1.0

    def __init__(self, errors: Float[np.ndarray, "seed level"], num_test: int):
        self._num_test = num_test
        self._wrong = errors / 100 * num_test
        self._all_wrong = self._wrong.sum(axis=0)
        self._all = num_test * len(errors)
        # Half an answer in place of none: it serves to start the fit only.
        self.log_error = np.log(100 * np.maximum(self._all_wrong, 0.5) / self._all)

    def residuals(self, model):
        """Signed roots of the deviance."""
        expected = self._all * self._probability(model)
        deviance = kl_div(self._all_wrong, expected)
        deviance += kl_div(self._all - self._all_wrong, self._all - expected)
        return np.sign(self._all_wrong - expected) * np.sqrt(2 * np.maximum(deviance, 0))

    def residual_slope(self, model):
        """Slope of `residuals` in the log of the model."""
        probability = self._probability(model)
        residuals = self.residuals(model)
        missing = self._all_wrong - self._all * probability
        at_zero = np.sqrt(self._all * probability * (1 - probability))
        is_zero = np.abs(residuals) < 1e-6
        ratio = np.divide(missing, residuals, out=at_zero, where=~is_zero)
        return -ratio / (1 - probability)

    def score(self, model):
        """Slope of the log-likelihood of each error in the log of the model."""
        probability = self._probability(model)
        return (self._wrong - self._num_test * probability) / (1 - probability)

    def weight(self, model):
        """Information that each error holds on the log of the model."""
        probability = self._probability(model)
        return self._num_test * probability / (1 - probability)

    def _probability(self, model: np.ndarray) -> np.ndarray:
        return np.exp(np.minimum(model - np.log(100), np.log1p(-1e-6)))
