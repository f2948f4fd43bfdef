"""Matrices over pairs of tasks: which tickets transfer, and what goes with that.

In: metrics of source tickets trained on target tasks, in percent, with their controls, at one
density. Out: `TransferOutcomes`. Also the correlation of two such matrices with Mantel's test, on
which `prediction` builds.
"""

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import Bool, Float

from imp_rg.config import require
from imp_rg.rg.stats import SeedInterval, rank_correlation, t_interval

MARGIN = 1.0
"""Points that a ticket which transfers may lose to the target's own ticket, at least."""

SATURATED_BELOW = 3.0
"""A cell counts if a random mask loses as many points to the dense network."""

_ROUNDING = 1e-9  # in points: 97.3 - 96.3 is not 1
_TIE = 1e-12  # correlations that differ by rounding
_MAX_CELLS = 2_000_000  # ranked at once, which bounds memory


@dataclass(frozen=True, kw_only=True)
class TransferOutcomes:
    """Transfer between tasks at one density; matrices are [source target], in points.

    Differences are taken seed by seed and averaged; their intervals are t-intervals over seeds, NaN
    with fewer than two.

    Attributes:
      minus_own: Transferred ticket minus the target's own ticket.
      minus_dense: Transferred ticket minus the dense network.
      minus_random: Transferred ticket minus the random mask.
      random_minus_dense: Random mask minus the dense network, which decides `saturated`.
      margin: Points that may be lost to each target's own ticket: `MARGIN`, or two of that
        ticket's standard errors if this is more.
      transfers: Whether the ticket is no more than the margin below the target's own, in the mean;
        False where that is not known.
      saturated: Whether the random mask loses less than `SATURATED_BELOW` points to dense; False
        on the diagonal and where that is not known.
      counted: Off the diagonal, known and not saturated: the cells that any claim rests on.
    """

    minus_own: SeedInterval
    minus_dense: SeedInterval
    minus_random: SeedInterval
    random_minus_dense: SeedInterval
    margin: Float[np.ndarray, " target"]
    transfers: Bool[np.ndarray, "source target"]
    saturated: Bool[np.ndarray, "source target"]
    counted: Bool[np.ndarray, "source target"]

    @property
    def loss(self) -> Float[np.ndarray, "source target"]:
        """Points lost to the target's own ticket; NaN where the cell does not count."""
        return np.where(self.counted, -self.minus_own.mean, np.nan)

    @property
    def num_counted(self) -> int:
        """Cells that count."""
        return int(self.counted.sum())

    @property
    def num_saturated(self) -> int:
        """Cells left out because a random mask does almost as well as the dense network."""
        return int(self.saturated.sum())


def transfer_outcomes(
    transferred: Float[np.ndarray, "source target seed"],
    own: Float[np.ndarray, "target seed"],
    dense: Float[np.ndarray, "target seed"],
    random_mask: Float[np.ndarray, "source target seed"],
    *,
    ci_level: float = 0.95,
) -> TransferOutcomes:
    """Effects, and which cells count, of one transfer matrix at one density.

    Args:
      transferred: Metric in percent of each source's ticket trained on each target; NaN where not
        measured. Sources and targets are the same tasks in the same order, the diagonal is ignored.
      own: Of each target's own ticket.
      dense: Of the dense network on each target.
      random_mask: Of a random mask with the per-tensor densities of the source's ticket.
      ci_level: Coverage of the intervals, in (0, 1).

    Returns:
      The `TransferOutcomes`. With one seed the margin is `MARGIN`.

    Raises:
      ValueError: If a shape does not fit, a value is infinite, or `dense` is not in percent.

    References:
      House definition.
    """
    transferred, own, dense, random_mask = (
        np.asarray(x, float) for x in (transferred, own, dense, random_mask)
    )
    _check_metrics(transferred, own, dense, random_mask)

    def over_seeds(difference: np.ndarray) -> SeedInterval:
        return t_interval(np.moveaxis(difference, -1, 0), ci_level=ci_level)

    minus_own = over_seeds(transferred - own)
    random_minus_dense = over_seeds(random_mask - dense)
    margin = loss_margin(own)
    is_pair = ~np.eye(len(own), dtype=bool)
    saturated = is_pair & is_saturated(random_minus_dense.mean)
    is_known = ~np.isnan(minus_own.mean + random_minus_dense.mean)
    return TransferOutcomes(
        minus_own=minus_own,
        minus_dense=over_seeds(transferred - dense),
        minus_random=over_seeds(transferred - random_mask),
        random_minus_dense=random_minus_dense,
        margin=margin,
        transfers=is_within(minus_own.mean, margin),
        saturated=saturated,
        counted=is_pair & is_known & ~saturated,
    )


def loss_margin(own: Float[np.ndarray, "*target seed"]) -> Float[np.ndarray, "*target"]:
    """Points that a ticket which transfers may lose to the target's own ticket.

    `MARGIN`, or two standard errors of the own ticket if this is more; one seed has none, which
    leaves `MARGIN`. House definition.
    """
    return np.fmax(MARGIN, 2 * t_interval(np.moveaxis(own, -1, 0)).sem)


def is_within(
    minus_own: Float[np.ndarray, "*cell"], margin: Float[np.ndarray, "*cell"]
) -> Bool[np.ndarray, "*cell"]:
    """Whether a mean difference from the own ticket is no loss beyond the margin; False for NaN."""
    return np.asarray(minus_own >= -margin - _ROUNDING)


def is_saturated(random_minus_dense: Float[np.ndarray, "*cell"]) -> Bool[np.ndarray, "*cell"]:
    """Whether a random mask loses less than `SATURATED_BELOW` points, on average; False for NaN."""
    return np.asarray(random_minus_dense > -SATURATED_BELOW + _ROUNDING)


def mantel_test(
    distance: Float[np.ndarray, "source target"],
    loss: Float[np.ndarray, "source target"],
    *,
    num_permutations: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Spearman's correlation, Mantel's one-sided p, and the smallest that p could have been.

    As in `score_predictor`. A renaming that leaves the correlation undefined counts as one of 0;
    all are NaN if the actual correlation is undefined.
    """
    num = len(distance)
    if math.factorial(num) <= num_permutations:
        orders = np.array(list(permutations(range(num))))  # the actual names come first
    else:
        drawn = np.random.default_rng(seed).random((num_permutations, num)).argsort(axis=1)
        orders = np.concatenate([np.arange(num)[None], drawn])
    found = np.concatenate(
        [rank_correlation(of_tasks(distance, some), loss.ravel()) for some in in_batches(orders)]
    )
    smallest = math.nan if np.isnan(found[0]) else 1 / len(orders)
    return float(found[0]), one_sided_p(found), smallest


def one_sided_p(found: Float[np.ndarray, " sample"]) -> float:
    """Share of correlations at least as large as the first, the actual one; NaN without it.

    Those that are undefined count as 0. House definition.
    """
    if np.isnan(found[0]):
        return math.nan
    return float(np.mean(np.nan_to_num(found) >= found[0] - _TIE))


def of_tasks(matrix: np.ndarray, tasks: np.ndarray) -> np.ndarray:
    """The matrix of each row of task indices, as one row of cells."""
    return matrix[tasks[:, :, None], tasks[:, None, :]].reshape(len(tasks), -1)


def in_batches(tasks: np.ndarray) -> list[np.ndarray]:
    """The rows of task indices in parts whose matrices fit into memory."""
    return np.array_split(tasks, math.ceil(tasks.size * tasks.shape[1] / _MAX_CELLS))


def _check_metrics(
    transferred: np.ndarray, own: np.ndarray, dense: np.ndarray, random_mask: np.ndarray
) -> None:
    is_matrix = transferred.ndim == 3 and transferred.shape[0] == transferred.shape[1]
    require(
        is_matrix and 0 not in transferred.shape,
        "transferred",
        "must be [source target seed] with sources and targets the same tasks",
        transferred.shape,
    )
    for name, values, shape in (
        ("transferred", transferred, transferred.shape),
        ("own", own, transferred.shape[1:]),
        ("dense", dense, transferred.shape[1:]),
        ("random_mask", random_mask, transferred.shape),
    ):
        require(values.shape == shape, name, f"must have shape {shape}", values.shape)
        require(not np.isinf(values).any(), name, "must be finite or NaN", "an infinite value")
    # Fractions would pass for points and make every cell saturated.
    top = np.max(dense, where=~np.isnan(dense), initial=-np.inf)
    require(top > 1 or top == -np.inf, "dense", "must be in percent", f"at most {top:g}")
