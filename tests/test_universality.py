"""Planted classes are found, equal runs are left alone, and few seeds give no verdict."""

import math
from itertools import combinations

import numpy as np
import pytest
from planted_runs import BLOCKS, DENSITY, SHIFT, SIGMA, planted_run, two_classes

from imp_rg.rg import compare_exponents
from imp_rg.rg.classes import average_tree, cut_classes
from imp_rg.rg.distance import pooled_scatter
from imp_rg.rg.matching import match_blocks
from imp_rg.rg.permutation import holm, permutation_test, smallest_p
from imp_rg.rg.universality import seeds_needed


def loop_permutation_test(a, b):
    """All relabellings, one after the other; p-value and the smallest one that any could have."""
    pooled = np.concatenate([a, b])
    scale = np.array([math.sqrt(np.mean((x - np.mean(x)) ** 2)) for x in pooled.T])
    distances = []
    for members in combinations(range(len(pooled)), len(a)):
        others = [i for i in range(len(pooled)) if i not in members]
        gap = np.mean(pooled[list(members)], axis=0) - np.mean(pooled[others], axis=0)
        distances.append(math.sqrt(np.mean((gap / scale) ** 2)))
    p_values = [np.mean([d >= e * (1 - 1e-9) for d in distances]) for e in distances]
    return p_values[0], min(p_values)


@pytest.mark.parametrize("num_a, num_b", [(1, 1), (2, 2), (3, 3), (3, 4), (4, 4), (2, 5)])
def test_permutation_test_equals_enumeration(num_a, num_b):
    rng = np.random.default_rng(num_a + 10 * num_b)
    a, b = rng.standard_normal((num_a, 3)), rng.standard_normal((num_b, 3)) + 0.5
    found = permutation_test(a, b)
    want_p, want_smallest = loop_permutation_test(a, b)
    assert found.is_exact
    assert found.p_value == pytest.approx(want_p, abs=1e-12)
    assert found.p_smallest == pytest.approx(want_smallest, abs=1e-12)
    assert smallest_p(num_a, num_b) == pytest.approx(want_smallest, abs=1e-12)


def test_smallest_p_of_few_seeds():
    assert smallest_p(3, 3) == pytest.approx(0.10)
    assert smallest_p(4, 4) == pytest.approx(2 / 70)
    far = permutation_test(
        np.zeros((3, 2)) + [[0], [1], [2]], np.zeros((3, 2)) + [[50], [51], [52]]
    )
    assert far.p_value == far.p_smallest == pytest.approx(0.10)


def test_drawn_permutations_approach_the_exact_test_and_count_the_actual_labels():
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((6, 4)), rng.standard_normal((6, 4)) + 0.6
    exact, drawn = permutation_test(a, b), permutation_test(a, b, num_permutations=900)
    assert exact.is_exact and not drawn.is_exact
    error = math.sqrt(exact.p_value * (1 - exact.p_value) / 900)
    assert abs(drawn.p_value - exact.p_value) < 4 * error
    assert drawn.p_smallest == 1 / 901
    far = permutation_test(a, b + 100, num_permutations=100)
    # The actual labels come first; a draw may repeat them or swap the names of the groups.
    assert 1 / 101 <= far.p_value <= 5 / 101


def test_permutation_test_is_calibrated():
    """5 against 5 seeds reach 6/126 = 4.76 % as the largest size below 5 %."""
    rng = np.random.default_rng(0)
    num, size = 1500, 6 / 126
    scales = np.array([1.0, 5.0, 0.2])
    rejected = sum(
        permutation_test(*(scales * rng.standard_t(4, (2, 5, 3)))).p_value < 0.05
        for _ in range(num)
    )
    assert abs(rejected / num - size) < 3 * math.sqrt(size * (1 - size) / num)


def test_permutation_test_has_power():
    rng = np.random.default_rng(1)
    rejected = [
        permutation_test(
            rng.standard_normal((5, 6)), rng.standard_normal((5, 6)) + [0, 2, 0, 0, 2, 0]
        ).p_value < 0.05
        for _ in range(100)
    ]  # fmt: skip
    assert np.mean(rejected) > 0.6


def test_features_without_scatter_drop_out():
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((4, 2)), rng.standard_normal((4, 2))
    constant = np.full((4, 1), 0.3)
    with_constant = [np.concatenate([x, constant], axis=1) for x in (a, b)]
    assert permutation_test(*with_constant) == permutation_test(a, b)
    assert permutation_test(constant, constant).p_value == 1


def test_holm_by_hand():
    """Four tests: 0.01 x 4, 0.02 x 3, 0.03 x 2 = 0.06 is not above it, 0.5 x 1."""
    found = holm(np.array([0.03, 0.01, np.nan, 0.5, 0.02]))
    np.testing.assert_allclose(found, [0.06, 0.04, np.nan, 0.5, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1, 1])
    assert holm(np.array([np.nan])).size == 1


def auroc(distance, is_different):
    """Chance that a pair of different classes is further apart than a pair of the same."""
    between, within = distance[is_different], distance[~is_different]
    return np.mean(between[:, None] > within)


def drawn_aurocs(num_draws, *, permuted=False):
    """AUROC of `distance` and of `distance_se` of sigma in each draw, [draw 2]."""
    rng = np.random.default_rng(7)
    upper = np.triu_indices(10, 1)
    found = []
    for _ in range(num_draws):
        runs = [run._replace(excess={}) for run in two_classes(rng)]
        comparison = compare_exponents(runs, num_permutations=1)
        labels = np.repeat([0, 1], 5)
        labels = rng.permutation(labels) if permuted else labels
        is_different = (labels[:, None] != labels)[upper]
        distances = comparison.distance["sigma"], comparison.distance_se["sigma"]
        found.append([auroc(distance[upper], is_different) for distance in distances])
    return np.array(found)


def test_planted_classes_are_told_apart():
    """400 draws give 0.963 (plain) and 0.959 (in standard errors); single draws scatter by 0.04.

    That is the nature of the case: the noise of one pair is 0.019 in each of six sigmas. Standard
    errors pooled over each pair alone give 0.93, which the bound keeps out.
    """
    found = drawn_aurocs(120)
    assert (found.mean(axis=0) > 0.95).all()


def test_permuted_labels_are_not():
    found = drawn_aurocs(60, permuted=True)
    error = found.std(axis=0, ddof=1) / math.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - 0.5) < 3 * error).all()
    assert (error < 0.02).all()


def test_standard_errors_are_pooled_over_runs():
    rng = np.random.default_rng(0)
    runs = two_classes(rng, runs_per_class=2)
    comparison = compare_exponents(runs)
    variance = np.mean([run.sigma.var(axis=0, ddof=1) for run in runs], axis=0)
    gap = runs[0].sigma.mean(axis=0) - runs[3].sigma.mean(axis=0)
    want = math.sqrt(np.mean(gap**2 / (variance * 2 / 5)))
    assert comparison.distance_se["sigma"][0, 3] == pytest.approx(want)
    assert comparison.distance["sigma"][0, 3] == pytest.approx(math.sqrt(np.mean(gap**2)))
    assert comparison.distance_se["sigma"][3, 0] == comparison.distance_se["sigma"][0, 3]


def test_two_distant_runs_differ_and_two_equal_ones_do_not():
    rng = np.random.default_rng(1)
    runs = [planted_run(rng, "a"), planted_run(rng, "b"), planted_run(rng, "c", SIGMA + 3 * SHIFT)]
    comparison = compare_exponents(runs)
    assert comparison.names == ("a", "b", "c")
    assert comparison.measures == ("sigma", "excess_init", "excess_gaussian", "param_share")
    assert comparison.verdict["sigma"][0].tolist() == ["no verdict", "not told apart", "different"]
    assert comparison.classes.tolist() == [1, 1, 2]
    assert comparison.p_smallest["sigma"][0, 1] == pytest.approx(2 / 252)
    p = comparison.p_value["sigma"][np.triu_indices(3, 1)]
    np.testing.assert_array_equal(comparison.p_holm["sigma"][np.triu_indices(3, 1)], holm(p))
    assert comparison.p_value["sigma"][0, 2] == permutation_test(runs[0].sigma, runs[2].sigma)[0]
    of_pair = [d for d in comparison.differences if (d.run_a, d.run_b) == (0, 2)]
    assert [d.measure for d in of_pair] == ["sigma", "excess_init", "excess_gaussian"]
    assert of_pair[0].blocks == BLOCKS
    assert ((of_pair[0].ci_low < -3 * SHIFT) & (-3 * SHIFT < of_pair[0].ci_high)).all()


@pytest.mark.parametrize("num_seeds, smallest", [(1, 1), (2, 2 / 6), (3, 0.1)])
def test_few_seeds_give_no_verdict(num_seeds, smallest):
    rng = np.random.default_rng(2)
    runs = [
        planted_run(rng, "a", num_seeds=num_seeds),
        planted_run(rng, "b", SIGMA + 50 * SHIFT, num_seeds=num_seeds),
    ]
    comparison = compare_exponents(runs)
    assert comparison.p_smallest["sigma"][0, 1] == pytest.approx(smallest)
    assert comparison.p_value["sigma"][0, 1] == pytest.approx(smallest)
    assert comparison.verdict["sigma"][0, 1] == "no verdict"
    assert np.isnan(comparison.p_holm["sigma"]).all()
    assert comparison.classes.tolist() == [0, 0]
    assert np.isnan(comparison.differences[0].ci_low).all() == (num_seeds == 1)
    assert comparison.linkage_measure == ("distance" if num_seeds == 1 else "distance_se")


def test_many_pairs_need_more_seeds():
    """45 pairs of 5 seeds reach an adjusted p of 0.36 at best: no verdict, however far apart."""
    rng = np.random.default_rng(3)
    few = compare_exponents(two_classes(rng))
    assert few.p_holm_smallest["sigma"][0, 9] == pytest.approx(45 * 2 / 252)
    assert set(few.verdict["sigma"].ravel()) == {"no verdict"}
    assert seeds_needed(45) == 7 and seeds_needed(6) == 5 and seeds_needed(1) == 4
    runs = two_classes(rng, num_seeds=7)
    runs = [run._replace(sigma=run.sigma + 2 * SHIFT * (run.name[0] == "b")) for run in runs]
    many = compare_exponents(runs)
    assert many.classes.tolist() == [1] * 5 + [2] * 5


def test_a_run_without_verdict_has_no_class():
    rng = np.random.default_rng(4)
    runs = [
        planted_run(rng, "a"),
        planted_run(rng, "one seed", SIGMA + SHIFT, num_seeds=1),
        planted_run(rng, "b", SIGMA + 4 * SHIFT),
    ]
    comparison = compare_exponents(runs)
    assert comparison.classes.tolist() == [1, 0, 2]
    assert np.isfinite(comparison.distance_se["sigma"]).all()  # with the scatter of the others


def test_classes_are_cut_where_runs_differ_and_nowhere_else():
    line = np.array([0.0, 1.0, 2.5, 10.0])
    tree = average_tree(np.abs(line[:, None] - line))
    nothing, all_decided = np.zeros((4, 4), bool), np.ones(4, bool)
    assert cut_classes(tree, nothing, all_decided).tolist() == [1, 1, 1, 1]
    one = nothing.copy()
    one[0, 2] = one[2, 0] = True
    # 0 and 1 merge, 2 is refused because it differs from 0; 3 could only join all of them.
    assert cut_classes(tree, one, all_decided).tolist() == [1, 1, 2, 3]
    lowest = nothing.copy()
    lowest[0, 1] = lowest[1, 0] = True
    # The first merge is refused, so 2 and 3, which could only join it, stay alone.
    assert cut_classes(tree, lowest, all_decided).tolist() == [1, 2, 3, 4]
    ends = nothing.copy()
    ends[0, 3] = ends[3, 0] = True
    assert cut_classes(tree, ends, all_decided).tolist() == [1, 1, 1, 2]
    assert cut_classes(tree, ends, np.array([1, 0, 0, 1], bool)).tolist() == [1, 0, 0, 2]


def test_no_false_classes_under_the_null():
    """Three equal runs: Holm keeps the chance of any cut at or below 5 %."""
    rng = np.random.default_rng(5)
    num = 300
    cut = 0
    for _ in range(num):
        runs = [planted_run(rng, name)._replace(excess={}) for name in "abc"]
        cut += compare_exponents(runs).classes.max() > 1
    assert cut / num < 0.05 + 3 * math.sqrt(0.05 * 0.95 / num)


def test_interpolation_by_stage():
    deep = tuple(f"stage{s}/block{b}" for s in (1, 2) for b in range(5))
    shallow = tuple(f"stage{s}/block{b}" for s in (1, 2) for b in range(3))
    match = match_blocks(shallow, deep)
    assert match.kind == "profile" and match.names == deep
    values = np.array([[0.0, 1.0, 4.0, 10.0, 20.0, 30.0]])
    want = [[0, 0.5, 1, 2.5, 4, 10, 15, 20, 25, 30]]
    np.testing.assert_allclose(match.a(values), want)
    other = np.arange(10.0)[None]
    np.testing.assert_array_equal(match.b(other), other)
    back = match_blocks(deep, shallow)
    np.testing.assert_allclose(back.b(values), want)
    assert match.a.num_in_stage.tolist() == [3] * 10 and match.b.num_in_stage.tolist() == [5] * 10


def test_a_stage_of_one_block_stands_for_all_depths():
    match = match_blocks(("stage1/block0",), ("stage1/block0", "stage1/block1", "stage1/block2"))
    np.testing.assert_array_equal(match.a(np.array([7.0])), [7, 7, 7])


def test_layers_without_stages_are_matched_by_depth():
    match = match_blocks(("layer0", "layer1"), tuple(f"layer{i}" for i in range(5)))
    np.testing.assert_allclose(match.a(np.array([0.0, 1.0])), [0, 0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize(
    "a, b",
    [
        (("stage1", "stage2"), ("stage1/block0", "stage2/block0")),
        (("layer0", "layer1"), ("stage1", "stage2")),
        (("stage1/block0", "stage2/block0"), ("stage1/block0", "stage2/block0", "stage3/block0")),
    ],
)
def test_blocks_that_cannot_be_matched(a, b):
    with pytest.raises(
        ValueError, match=r"^runs: blocks must have equal names or equal stages"
    ) as e:
        match_blocks(a, b)
    assert "\n" not in str(e.value)


def test_runs_of_different_depth_share_a_profile():
    """Sigma falls linearly with depth in both; the deeper run has it at more places."""
    rng = np.random.default_rng(6)
    deep = tuple(f"stage1/block{b}" for b in range(9))
    shallow = tuple(f"stage1/block{b}" for b in range(3))
    line = {"num_seeds": 5, "sd": 0.01}
    runs = [
        planted_run(rng, "shallow", np.linspace(0.1, -0.1, 3), blocks=shallow, **line),
        planted_run(rng, "deep", np.linspace(0.1, -0.1, 9), blocks=deep, **line),
        planted_run(rng, "opposite", np.linspace(-0.1, 0.1, 9), blocks=deep, **line),
    ]
    comparison = compare_exponents(runs)
    assert comparison.matched_by.tolist() == [
        ["block", "profile", "profile"],
        ["profile", "block", "block"],
        ["profile", "block", "block"],
    ]
    assert comparison.verdict["sigma"][0].tolist() == ["no verdict", "not told apart", "different"]
    assert comparison.distance["sigma"][0, 1] < 0.02 < 0.1 < comparison.distance["sigma"][0, 2]
    # Dense: every block holds 1/K of the weights, so the profile over depth is 1 everywhere.
    assert comparison.distance["param_share"][0, 1] < 0.1 * comparison.distance["param_share"][0, 2]


def test_count_shares_are_compared_at_equal_densities():
    rng = np.random.default_rng(8)
    coarse = planted_run(rng, "coarse", density=DENSITY, sd=0)
    fine_density = 0.9 ** np.arange(20)
    fine = planted_run(rng, "fine", density=fine_density, sd=0)
    other = planted_run(rng, "other", SIGMA[::-1], density=fine_density, sd=0)
    distance = compare_exponents([coarse, fine, other]).distance["param_share"]
    assert distance[0, 1] < 1e-3 < 0.02 < distance[0, 2]  # what is left is the chord's error


def test_missing_values_leave_out_what_they_touch():
    rng = np.random.default_rng(9)
    a, b, c = (planted_run(rng, name) for name in "abc")
    b.sigma[0, 2] = np.nan  # one seed stopped
    c.sigma[:, 4] = np.nan  # one block vanished in all seeds
    comparison = compare_exponents([a, b, c])
    kept = [0, 1, 2, 3, 5]
    want = permutation_test(a.sigma, b.sigma[1:])
    assert comparison.p_value["sigma"][0, 1] == want.p_value
    assert comparison.p_smallest["sigma"][0, 1] == 1 / math.comb(9, 4)
    assert (
        comparison.p_value["sigma"][0, 2] == permutation_test(a.sigma[:, kept], c.sigma[:, kept])[0]
    )
    gap = (a.sigma.mean(axis=0) - c.sigma.mean(axis=0))[kept]
    assert comparison.distance["sigma"][0, 2] == pytest.approx(math.sqrt(np.mean(gap**2)))
    assert np.isfinite(comparison.linkage).all()


def test_measures_that_one_run_lacks_are_undefined():
    rng = np.random.default_rng(10)
    a, b = planted_run(rng, "a"), planted_run(rng, "b")
    comparison = compare_exponents([a, b._replace(excess={"init": b.excess["init"]})])
    assert np.isnan(comparison.distance["excess_gaussian"][0, 1])
    assert comparison.verdict["excess_gaussian"][0, 1] == "no verdict"
    assert np.isfinite(comparison.distance["excess_init"][0, 1])


def test_mask_overlap_becomes_a_distance():
    rng = np.random.default_rng(11)
    runs = [planted_run(rng, name) for name in "abc"]
    overlap = np.array([[np.nan, 0.3, np.nan], [0.3, 1, 0.1], [np.nan, 0.1, 1]])
    comparison = compare_exponents(runs, mask_overlap=overlap)
    assert comparison.measures[-1] == "mask_overlap"
    np.testing.assert_allclose(comparison.distance["mask_overlap"][0], [0, 0.7, np.nan])


def test_scatter_of_one_seed_is_unknown():
    assert np.isnan(pooled_scatter([np.ones((1, 2)), np.zeros((1, 2))])).all()
    np.testing.assert_allclose(
        pooled_scatter([np.array([[0.0], [2.0]]), np.ones((1, 1))]), [2**0.5]
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "a"}, "runs: must have different names"),
        ({"blocks": BLOCKS[:5]}, r"runs: sigma of 'b' must be \[seed block\] = \(5, 5\)"),
        ({"excess": {"init": np.zeros((4, 6))}}, r"runs: excess\['init'\] of 'b' must be"),
        ({"density": DENSITY[:4]}, r"runs: param_share of 'b' must be \[seed level block\]"),
        ({"density": DENSITY[::-1]}, "runs: density of 'b' must fall"),
        ({"sigma": np.zeros((0, 6)), "excess": {}}, "none empty"),
    ],
)
def test_bad_runs(change, message):
    rng = np.random.default_rng(12)
    a, b = planted_run(rng, "a"), planted_run(rng, "b")
    with pytest.raises(ValueError, match=message):
        compare_exponents([a, b._replace(**change)])


def test_bad_arguments():
    rng = np.random.default_rng(13)
    a, b = planted_run(rng, "a"), planted_run(rng, "b")
    with pytest.raises(ValueError, match="at least two"):
        compare_exponents([a])
    with pytest.raises(ValueError, match=r"mask_overlap must be \[run run\]"):
        compare_exponents([a, b], mask_overlap=np.eye(3))
    with pytest.raises(ValueError, match="symmetric"):
        compare_exponents([a, b], mask_overlap=np.array([[1, 0.2], [0.1, 1]]))
