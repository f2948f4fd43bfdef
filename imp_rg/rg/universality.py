"""Do runs share a universality class? Distances of flows, tests over seeds, classes.

In: exponents per seed of several runs. Out: a `Comparison`. Seeds are the only replicates, so with
few of them the honest answer is "no verdict", and it comes with the smallest p-value that was
possible.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from imp_rg.rg.classes import average_tree, cut_classes
from imp_rg.rg.distance import UNDEFINED, PairResult, compare_values, pooled_scatter
from imp_rg.rg.estimate import Estimate, contrast
from imp_rg.rg.matching import BlockMatch, match_blocks
from imp_rg.rg.permutation import holm, smallest_p
from imp_rg.rg.run_exponents import RunExponents as RunExponents
from imp_rg.rg.run_exponents import check_runs, share_profiles

MIN_SEEDS = 4
"""Fewest seeds in each of two runs for a verdict: 3 against 3 cannot give p < 0.10."""

SIGNIFICANCE = 0.05
"""Two runs are told apart if the adjusted p-value is below it."""

SIGMA, PARAM_SHARE, MASK_OVERLAP = "sigma", "param_share", "mask_overlap"


class PairDifference(NamedTuple):
    """Exponents of one run minus those of another, place by place.

    Attributes:
      run_a: Index of the first run.
      run_b: Index of the second run.
      measure: Which exponents.
      blocks: Name of each place.
      difference: Difference of the means over seeds.
      ci_low: Lower end of Welch's t-interval; NaN if a run has one seed.
      ci_high: Upper end.
    """

    run_a: int
    run_b: int
    measure: str
    blocks: tuple[str, ...]
    difference: Float[np.ndarray, " block"]
    ci_low: Float[np.ndarray, " block"]
    ci_high: Float[np.ndarray, " block"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several runs beside each other; dicts are keyed by measure, see `compare_exponents`.

    Attributes:
      runs: The runs.
      measures: Names of the measures, `sigma` first.
      matched_by: "block" or "profile" for each pair.
      distance: Root mean square over places of the difference of the means.
      distance_se: Distance with each difference in units of its standard error, pooled over runs;
        NaN for `param_share` (no scatter at density 1) and `mask_overlap`.
      p_value: Of the permutation test over seeds.
      p_smallest: The smallest value it could have taken with these seeds.
      p_holm: Adjusted over all pairs that may get a verdict; NaN for the others.
      p_holm_smallest: The smallest value `p_holm` could have taken.
      verdict: "different", "not told apart" or "no verdict".
      differences: Of `sigma` and every excess, for every pair that has them.
      linkage: Of the dendrogram, average linkage (scipy's format); NaN if a distance is undefined.
      linkage_measure: Which distance of `sigma` it uses: distance_se, or distance if that is
        undefined.
      classes: Universality class from 1 on, 0 for a run that has a verdict with no other.
      ci_level: Coverage of the intervals.
    """

    runs: tuple[RunExponents, ...]
    measures: tuple[str, ...]
    matched_by: Shaped[np.ndarray, "run run"]
    distance: dict[str, Float[np.ndarray, "run run"]]
    distance_se: dict[str, Float[np.ndarray, "run run"]]
    p_value: dict[str, Float[np.ndarray, "run run"]]
    p_smallest: dict[str, Float[np.ndarray, "run run"]]
    p_holm: dict[str, Float[np.ndarray, "run run"]]
    p_holm_smallest: dict[str, Float[np.ndarray, "run run"]]
    verdict: dict[str, Shaped[np.ndarray, "run run"]]
    differences: tuple[PairDifference, ...]
    linkage: Float[np.ndarray, "merge 4"]
    linkage_measure: str
    classes: Int[np.ndarray, " run"]
    ci_level: float

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the runs."""
        return tuple(run.name for run in self.runs)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """All pairs of runs, as indices a < b."""
        return tuple(combinations(range(len(self.runs)), 2))


def compare_exponents(
    runs: Sequence[RunExponents],
    *,
    mask_overlap: Float[np.ndarray, "run run"] | None = None,
    ci_level: float = 0.95,
    num_permutations: int = 20_000,
    seed: int = 0,
) -> Comparison:
    """Compares every pair of runs and sorts the runs into classes.

    Measures: `sigma`, the exponents; `excess_NULL`, what they have beyond a null; `param_share`,
    shares of the surviving weights at all densities of both runs within their common range (linear
    in ln density), the control that knows no magnitudes; `mask_overlap`, one minus the given
    overlap. Blocks are matched as in `imp_rg.rg.matching`; where that interpolates, `param_share`
    is multiplied by the number of blocks in the stage, which makes it a profile over depth.

    The standard errors of `distance_se` pool the scatter between seeds over all runs with the same
    blocks (over the two runs, if blocks are interpolated). Pooled over the pair alone, with five
    seeds a run, their own error would hide real differences.

    Two runs get a verdict if both have `MIN_SEEDS` seeds and the smallest possible adjusted p-value
    is below `SIGNIFICANCE`: with 5 seeds up to 6 pairs, beyond that more seeds are needed. Holm's
    correction runs over the pairs with enough seeds, within each measure.

    Classes: runs are merged by average linkage on the distance of `sigma`; a merge is refused where
    it would put two runs into one class whose adjusted p-value is below `SIGNIFICANCE`, and so are
    all merges above it. Runs that are told apart are never in one class; runs of different classes
    need not all be told apart, but some pair between two neighbouring classes is.

    Args:
      runs: At least two.
      mask_overlap: Jaccard overlap of the masks minus chance, symmetric; NaN where undefined.
      ci_level: Coverage of the intervals, in (0, 1).
      num_permutations: Relabellings tried at most; up to 8 against 8 seeds the default is exact.
      seed: Of the relabellings, where they are drawn.

    Returns:
      A `Comparison`.

    Raises:
      ValueError: If shapes do not fit, names are not unique, or blocks cannot be matched.

    References:
      House definition. Redman et al., arXiv:2110.03210, Sec. 5, compares signs and sizes by eye.
    """
    runs = tuple(runs)
    check_runs(runs)
    pairs = list(combinations(range(len(runs)), 2))
    matches = {(a, b): match_blocks(runs[a].blocks, runs[b].blocks) for a, b in pairs}
    test = partial(compare_values, num_permutations=num_permutations, seed=seed)
    nulls = dict.fromkeys(null for run in runs for null in run.excess)
    values: dict[str, list[np.ndarray | None]] = {SIGMA: [run.sigma for run in runs]}
    values |= {f"excess_{null}": [run.excess.get(null) for run in runs] for null in nulls}
    rows = {
        measure: [_test_pair(runs, of_runs, pair, matches[pair], test) for pair in pairs]
        for measure, of_runs in values.items()
    }
    rows[PARAM_SHARE] = [
        test(*share_profiles(runs[a], runs[b], match)) for (a, b), match in matches.items()
    ]
    if mask_overlap is not None:
        overlap = _check_overlap(mask_overlap, len(runs))
        rows[MASK_OVERLAP] = [UNDEFINED._replace(distance=1 - overlap[a, b]) for a, b in pairs]
    differences = tuple(
        PairDifference(a, b, measure, match.names, *interval)
        for measure, of_runs in values.items()
        for (a, b), match in matches.items()
        for interval in _intervals(of_runs[a], of_runs[b], match, ci_level)
    )
    return _assemble(runs, matches, rows, differences, ci_level)


def seeds_needed(num_pairs: int) -> int:
    """Fewest seeds in every run with which a pair can be told apart after Holm's correction."""
    num_seeds = MIN_SEEDS
    while num_pairs * smallest_p(num_seeds, num_seeds) >= SIGNIFICANCE:
        num_seeds += 1
    return num_seeds


def _test_pair(
    runs: tuple[RunExponents, ...],
    values: list[np.ndarray | None],
    pair: tuple[int, int],
    match: BlockMatch,
    test: Callable[..., PairResult],
) -> PairResult:
    a, b = (values[i] for i in pair)
    if a is None or b is None:
        return UNDEFINED
    a, b, pooled = match.a(a), match.b(b), [match.a(a), match.b(b)]
    if match.kind == "block":
        pooled = [
            x
            for run, x in zip(runs, values, strict=True)
            if x is not None and run.blocks == match.names
        ]
    return test(a, b, scatter=pooled_scatter(pooled))


def _intervals(
    a: np.ndarray | None, b: np.ndarray | None, match: BlockMatch, ci_level: float
) -> list[Estimate]:
    """One interval per place, or nothing where a run lacks the measure."""
    if a is None or b is None:
        return []
    return [contrast(match.a(a), match.b(b), is_paired=False, ci_level=ci_level)]


def _verdicts(rows: list[PairResult]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Adjusted p-value, the smallest possible one, and the verdict of each pair."""
    is_tested = np.array([row.num_seeds >= MIN_SEEDS for row in rows])
    p_holm = holm(np.where(is_tested, [row.p_value for row in rows], np.nan))
    smallest = holm(np.where(is_tested, [row.p_smallest for row in rows], np.nan))
    verdict = np.select(
        [~(smallest < SIGNIFICANCE), p_holm < SIGNIFICANCE],
        ["no verdict", "different"],
        default="not told apart",
    )
    return p_holm, smallest, verdict


def _assemble(
    runs: tuple[RunExponents, ...],
    matches: dict[tuple[int, int], BlockMatch],
    rows: dict[str, list[PairResult]],
    differences: tuple[PairDifference, ...],
    ci_level: float,
) -> Comparison:
    def matrix(values, diagonal):
        filled = np.full((len(runs), len(runs)), diagonal, np.asarray([*values, diagonal]).dtype)
        for (a, b), value in zip(matches, values, strict=True):
            filled[a, b] = filled[b, a] = value
        return filled

    def by_measure(name, diagonal):
        return {m: matrix([getattr(row, name) for row in of], diagonal) for m, of in rows.items()}

    adjusted = {measure: _verdicts(of_measure) for measure, of_measure in rows.items()}
    p_holm, p_holm_smallest, verdict = (
        {m: matrix(columns[i], diagonal) for m, columns in adjusted.items()}
        for i, diagonal in enumerate((np.nan, np.nan, "no verdict"))
    )
    distance, distance_se = by_measure("distance", 0.0), by_measure("distance_se", 0.0)
    is_scaled = bool(np.isfinite(distance_se[SIGMA]).all())
    tree = average_tree((distance_se if is_scaled else distance)[SIGMA])
    is_decided = (verdict[SIGMA] != "no verdict").any(axis=1)
    return Comparison(
        runs=runs,
        measures=tuple(rows),
        matched_by=matrix([match.kind for match in matches.values()], "block"),
        distance=distance,
        distance_se=distance_se,
        p_value=by_measure("p_value", np.nan),
        p_smallest=by_measure("p_smallest", np.nan),
        p_holm=p_holm,
        p_holm_smallest=p_holm_smallest,
        verdict=verdict,
        differences=differences,
        linkage=tree,
        linkage_measure="distance_se" if is_scaled else "distance",
        classes=cut_classes(tree, verdict[SIGMA] == "different", is_decided),
        ci_level=ci_level,
    )


def _check_overlap(mask_overlap: np.ndarray, num_runs: int) -> np.ndarray:
    overlap = np.asarray(mask_overlap, float)
    if overlap.shape != (num_runs, num_runs):
        raise ValueError(
            f"mask_overlap must be [run run] = ({num_runs}, {num_runs}), got {overlap.shape}"
        )
    if not np.allclose(overlap, overlap.T, equal_nan=True):
        raise ValueError("mask_overlap must be symmetric, it is not")
    return overlap
