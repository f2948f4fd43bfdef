"""Planted predictors are found, independent ones are not, and unknown cells change nothing."""

import math
from itertools import permutations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from imp_rg.rg import (
    leave_one_task_out,
    minimal_density,
    score_predictor,
    score_routes,
    transfer_outcomes,
    viable_levels,
)
from imp_rg.rg.stats import rank_correlation
from imp_rg.rg.ticket_transfer import mantel_test

OFF = ~np.eye(8, dtype=bool)


def planted(rng, *, num=8, weight=1.0, control_weight=0.0):
    """Distances of two kinds of positions, and a loss with effects of sources and of targets."""
    distance, control = (
        np.linalg.norm(x[:, None] - x[None], axis=-1) for x in rng.standard_normal((2, num, 2))
    )
    of_source, of_target = 0.7 * rng.standard_normal((2, num))
    loss = weight * distance + control_weight * control + 0.3 * rng.standard_normal((num, num))
    loss = loss + of_source[:, None] + of_target
    np.fill_diagonal(loss, np.nan)
    return distance, control, loss


def quick(distance, loss, control, *, transfers=None, num_permutations=199, num_resamples=200):
    return score_predictor(
        distance,
        loss,
        control=control,
        transfers=transfers,
        num_permutations=num_permutations,
        num_resamples=num_resamples,
    )


def spearman(x, y):
    return np.asarray(stats.spearmanr(x, y))[0]


def metrics(rng, *, num=5, num_seeds=4):
    """Percent: tickets near their own, random masks 10 points below dense."""
    own, dense = rng.normal(90, 0.3, (num, num_seeds)), rng.normal(92, 0.3, (num, num_seeds))
    transferred = own + rng.normal(-1, 1, (num, num, 1)) + rng.normal(0, 0.3, (num, num, num_seeds))
    return transferred, own, dense, dense - 10 + rng.normal(0, 0.3, (num, num, num_seeds))


# What was measured


def test_outcomes_equal_loops():
    rng = np.random.default_rng(0)
    transferred, own, dense, random_mask = metrics(rng)
    own[2] = [80, 90, 84, 86]  # noisy: its margin is two standard errors
    random_mask[1] = dense[:] - 2.9
    found = transfer_outcomes(transferred, own, dense, random_mask)
    for target in range(5):
        margin = max(1, 2 * stats.sem(own[target]))
        assert found.margin[target] == pytest.approx(margin)
        for source in range(5):
            cell = source, target
            minus_own = transferred[cell] - own[target]
            want = stats.ttest_1samp(minus_own, 0).confidence_interval(0.95)
            assert found.minus_own.mean[cell] == pytest.approx(np.mean(minus_own))
            assert found.minus_own.sem[cell] == pytest.approx(stats.sem(minus_own))
            assert found.minus_own.low[cell] == pytest.approx(want.low)
            minus_dense = np.mean(transferred[cell] - dense[target])
            minus_random = np.mean(transferred[cell] - random_mask[cell])
            assert found.minus_dense.mean[cell] == pytest.approx(minus_dense)
            assert found.minus_random.mean[cell] == pytest.approx(minus_random)
            assert found.transfers[cell] == (np.mean(minus_own) >= -margin)
            assert found.saturated[cell] == (source == 1 != target)
            assert found.counted[cell] == (source != target and source != 1)
    assert found.margin[2] > 3
    assert (found.num_counted, found.num_saturated) == (16, 4)
    np.testing.assert_array_equal(np.isnan(found.loss), ~found.counted)
    counted = found.counted
    np.testing.assert_allclose(found.loss[counted], -found.minus_own.mean[counted])


@pytest.mark.parametrize("dense", [99.3, 90.01, 90.02])
def test_borders_belong_to_those_who_lose_exactly_as_much(dense):
    """Also where the mean over seeds is off by rounding."""

    def below(value, points):
        return np.broadcast_to(np.round(value - points - np.array([-0.1, 0, 0.1]), 2), (2, 2, 3))

    own, of_dense = np.full((2, 3), round(dense - 2, 2)), np.full((2, 3), dense)
    for points, transfers in [(-2, True), (0, True), (1, True), (1.01, False), (3, False)]:
        lost = below(own[0, 0], points)
        assert np.all(transfer_outcomes(lost, own, of_dense, lost).transfers == transfers)
    for points, saturated in [(2.99, True), (3, False), (3.01, False), (-1, True)]:
        found = transfer_outcomes(below(0, 0), own, of_dense, below(dense, points))
        assert found.num_saturated == 2 * saturated
        assert found.num_counted == 2 * (not saturated)


def test_one_seed_has_a_margin_but_no_interval_and_missing_cells_do_not_count():
    transferred, own, dense, random_mask = metrics(np.random.default_rng(1), num_seeds=1)
    transferred[0, 1] = random_mask[0, 2] = np.nan
    found = transfer_outcomes(transferred, own, dense, random_mask)
    assert np.all(found.margin == 1) and np.isnan(found.minus_own.sem).all()
    assert not found.counted[0, 1] and not found.counted[0, 2] and not found.transfers[0, 1]
    assert (found.num_counted, found.num_saturated) == (18, 0)


def test_saturated_cells_change_nothing_whatever_they_hold():
    rng = np.random.default_rng(2)
    distance, control, loss = planted(rng, num=5)
    transferred, own, dense, random_mask = metrics(rng)
    transferred = own - 2 * np.nan_to_num(loss)[..., None]
    is_saturated = rng.random((5, 5)) < 0.3
    np.fill_diagonal(is_saturated, True)
    random_mask[is_saturated] = 95

    def results(held):
        metric = np.where(is_saturated[..., None], held, transferred)
        outcome = transfer_outcomes(metric, own, dense, random_mask)
        score = quick(distance, outcome.loss, control, transfers=outcome.transfers)
        out = leave_one_task_out(
            {"flow": distance}, outcome.transfers, counted=outcome.counted
        )["flow"]  # fmt: skip
        return np.concatenate([
            [x for one in score for x in one[:-1]], out.threshold, out.accuracy_by_task,
            [out.accuracy, out.majority, outcome.num_saturated],
        ])  # fmt: skip

    plain = results(90.0)
    assert plain[-1] == is_saturated.sum() - 5 > 3
    assert not np.isnan(plain).any()
    for held in (0.0, 100.0, np.nan, rng.uniform(0, 100, (5, 5, 4))):
        np.testing.assert_array_equal(results(held), plain)
    transferred[0] -= 5 * rng.random((5, 1))
    assert not np.array_equal(results(90.0), plain)


# How well a distance orders it


def test_spearman_is_that_of_scipy_with_ties_and_unknown_cells():
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 6, (2, 40, 20)).astype(float)
    x[rng.random(x.shape) < 0.2] = np.nan
    y[rng.random(y.shape) < 0.2] = np.nan
    want = []
    for a, b in zip(x, y, strict=True):
        known = ~np.isnan(a + b)
        want.append(spearman(a[known], b[known]))
    np.testing.assert_allclose(rank_correlation(x, y), want, atol=1e-12)
    assert np.isnan(rank_correlation(np.ones(9), np.arange(9.0)))
    assert np.isnan(rank_correlation(np.array([1, 2, np.nan]), np.arange(3.0)))
    assert rank_correlation(np.array([1, 2, np.inf]), np.arange(3.0)) == pytest.approx(1)


def test_scores_equal_scipy_and_scikit_learn():
    rng = np.random.default_rng(4)
    distance, control, loss = planted(rng)
    distance, loss[2, 5] = distance + 0.2 * rng.random((8, 8)), np.nan
    distance[4, 1] = np.nan
    distance = np.round(distance, 1)  # ties
    transfers = loss < np.nanmedian(loss)
    found = quick(distance, np.where(OFF, loss, 7), control, transfers=transfers)
    cells = ~np.isnan(distance + loss)
    assert found.directed.num_cells == cells.sum() == 54

    want = spearman(distance[cells], loss[cells])
    assert found.directed.spearman == pytest.approx(want)
    of_control = spearman(control[cells], loss[cells])
    assert found.directed.difference == pytest.approx(want - of_control)
    area = roc_auc_score(transfers[cells], -distance[cells])
    assert found.directed.auroc == pytest.approx(area)

    pairs = [(i, j) for i in range(8) for j in range(i) if cells[i, j] and cells[j, i]]
    there = np.array(pairs).T
    near, lost = (-(x[there[0], there[1]] + x.T[there[0], there[1]]) / 2 for x in (distance, loss))
    both = (transfers & transfers.T)[there[0], there[1]]
    assert found.symmetrised.num_cells == len(pairs) == 26
    assert found.symmetrised.spearman == pytest.approx(spearman(near, lost))
    assert found.symmetrised.auroc == pytest.approx(roc_auc_score(both, near))


def test_auroc_needs_both_classes():
    distance, control, loss = planted(np.random.default_rng(5))
    assert math.isnan(quick(distance, loss, control).directed.auroc)
    assert math.isnan(quick(distance, loss, control, transfers=OFF).directed.auroc)
    assert quick(distance, loss, control, transfers=distance < 1).directed.auroc == 1


@pytest.mark.parametrize("is_sparse", [False, True])
def test_mantel_equals_enumeration(is_sparse):
    rng = np.random.default_rng(6)
    distance, _, loss = planted(rng, num=5, weight=0.4)
    loss[0, 3] = loss[4] = distance[2, 1] = np.nan
    if is_sparse:  # some names leave too few cells, and no correlation
        loss[2:], distance[3:], distance[:, 3:] = np.nan, np.nan, np.nan
        loss[0, 1] = -2
    found = []
    for order in permutations(range(5)):
        renamed = np.array([[distance[i, j] for j in order] for i in order])
        both = ~np.isnan(renamed + loss)
        found.append(spearman(renamed[both], loss[both]) if both.sum() > 2 else 0)
    want = np.mean(np.array(found) >= found[0] - 1e-12)
    assert (found.count(0) > 5, found[0] < 0) == (is_sparse, is_sparse)
    assert 0.01 < want < 1
    assert mantel_test(distance, loss) == pytest.approx((found[0], want, 1 / 120))
    _, drawn, smallest = mantel_test(distance, loss, num_permutations=99)
    assert smallest == 1 / 100
    assert abs(drawn - want) < 4 * math.sqrt(want * (1 - want) / 99)


def test_names_of_tasks_and_batches_do_not_matter(monkeypatch):
    distance, control, loss = planted(np.random.default_rng(7), num=6)
    order = np.ix_(*2 * [np.random.default_rng(8).permutation(6)])
    plain = quick(distance, loss, control, num_permutations=720)
    renamed = quick(distance[order], loss[order], control[order], num_permutations=720)
    assert renamed.directed[:6] == pytest.approx(plain.directed[:6], nan_ok=True)
    only_one = quick(distance[order], loss, control, num_permutations=720)
    assert only_one.directed.spearman != pytest.approx(plain.directed.spearman)
    monkeypatch.setattr("imp_rg.rg.ticket_transfer._MAX_CELLS", 500)
    in_parts = quick(distance, loss, control, num_permutations=720)
    assert in_parts.directed[:3] == plain.directed[:3]
    assert in_parts.directed[5:] == plain.directed[5:]


def test_mantel_rejects_an_independent_predictor_as_often_as_it_says():
    """Cells share tickets and tasks, so a test over cells rejects far more often."""
    rng = np.random.default_rng(9)
    num, p_values, of_cells = 400, [], []
    for _ in range(num):
        distance, _, loss = planted(rng, weight=0)
        loss[:, rng.integers(8)] = loss[rng.integers(8, size=6), rng.integers(8, size=6)] = np.nan
        p_values.append(mantel_test(distance, loss, num_permutations=199)[1])
        cells = ~np.isnan(loss)
        of_cells.append(
            stats.spearmanr(distance[cells], loss[cells], alternative="greater")[1]
        )  # fmt: skip
    for size in (0.05, 0.2, 0.5):
        rejected = np.mean(np.array(p_values) <= size)
        assert abs(rejected - size) < 3 * math.sqrt(size * (1 - size) / num)
    assert np.mean(np.array(of_cells) <= 0.05) > 0.1


def test_planted_predictor_is_found_and_beats_the_control():
    rng = np.random.default_rng(10)
    found, swapped = [], []
    for _ in range(60):
        distance, control, loss = planted(rng, weight=1.5)
        found.append(quick(distance, loss, control).directed)
        swapped.append(quick(control, loss, distance).directed)
    assert np.mean([score.p_value < 0.05 for score in found]) > 0.9
    verdicts = [score.verdict for score in found]
    assert set(verdicts) == {"beats the control", "no power"}
    assert verdicts.count("beats the control") > 30
    for score, other, verdict in zip(found, swapped, verdicts, strict=True):
        assert other.difference == pytest.approx(-score.difference)
        assert other.ci_low == pytest.approx(-score.ci_high)
        assert other.verdict == verdict.replace("beats", "loses to")


@pytest.mark.parametrize("weights", [(0.6, 0.6), (1.0, 0.3)])
def test_bootstrap_over_tasks_covers_and_over_cells_does_not(weights):
    """Truth: the difference over very many tasks."""
    rng = np.random.default_rng(11)
    settings = {"weight": weights[0], "control_weight": weights[1]}
    distance, control, loss = planted(rng, num=900, **settings)
    of_distance, of_control = (
        rank_correlation(x.ravel(), loss.ravel()) for x in (distance, control)
    )
    truth, num, covers, cells_cover = of_distance - of_control, 120, 0, 0
    for _ in range(num):
        distance, control, loss = planted(rng, **settings)
        found = quick(distance, loss, control, num_permutations=1).directed
        covers += found.ci_low <= truth <= found.ci_high
        drawn = rng.integers(0, 56, (200, 56))
        near, other, lost = (x[OFF][drawn] for x in (distance, control, loss))
        of_cells = rank_correlation(near, lost) - rank_correlation(other, lost)
        low, high = np.quantile(of_cells, [0.025, 0.975])
        cells_cover += low <= truth <= high
    lowest = 0.95 - 3 * math.sqrt(0.95 * 0.05 / num)
    assert covers / num > lowest
    assert cells_cover / num < lowest


def test_verdicts():
    rng = np.random.default_rng(12)
    distance, _, loss = planted(rng, num=9, weight=3)
    assert quick(distance, loss, distance).directed.verdict == "no power"
    opposite = quick(distance, loss, -distance).directed
    assert opposite.ci_low > 0 and opposite.verdict == "beats the control"
    assert quick(-distance, loss, distance).directed.verdict == "loses to the control"
    noise = rng.random((9, 9))
    assert quick(noise, loss, -distance).directed.verdict == "beats the control, not chance"
    few = quick(distance[:4, :4], loss[:4, :4], -distance[:4, :4]).directed
    assert (few.verdict, few.p_smallest) == ("no verdict", 1 / 24)
    assert math.isnan(few.ci_low) and few.difference > 0
    apart = np.full((9, 9), np.nan)
    apart[[0, 2, 4], [1, 3, 5]] = 1, 2, 3  # most draws of tasks hold one of these cells, or none
    scarce = quick(distance, apart, -distance).directed
    assert (scarce.verdict, scarce.num_cells) == ("no verdict", 3) and scarce.difference != 0
    nothing = quick(distance, np.full((9, 9), np.nan), distance)
    for score in nothing:
        assert (score.num_cells, score.verdict) == (0, "no verdict")
        assert np.isnan([score.spearman, score.p_value, score.auroc, score.difference]).all()


# Will it transfer?


def loop_leave_one_out(distance, transfers, counted):
    """Every cell without its source, then without its target; every threshold tried."""
    right, share = [], []
    num = len(distance)
    cells = [(i, j) for i in range(num) for j in range(num) if counted[i, j] and i != j]
    for task in range(num):
        fitted = [c for c in cells if task not in c]
        places = sorted({distance[c] for c in fitted})
        between = [(a + b) / 2 for a, b in zip(places, places[1:], strict=False)]
        best, most = None, -1
        for threshold in [-math.inf, *between, math.inf]:
            hits = sum((distance[c] <= threshold) == transfers[c] for c in fitted)
            best, most = (threshold, hits) if hits > most else (best, most)
        right += [(distance[c] <= best) == transfers[c] for c in cells if task in c]
        share += [transfers[c] for c in cells if task in c]
    return np.mean(right), max(np.mean(share), 1 - np.mean(share))


def test_leave_one_out_equals_loops():
    rng = np.random.default_rng(13)
    for _ in range(5):
        distance, control, loss = planted(rng)
        transfers, counted = loss < np.nanquantile(loss, 0.4), rng.random((8, 8)) < 0.8
        control[3, 4] = np.nan
        found = leave_one_task_out({"a": distance, "b": control}, transfers, counted=counted)
        known = {"a": counted, "b": counted & ~np.isnan(control)}
        for name, matrix in (("a", distance), ("b", control)):
            want = loop_leave_one_out(matrix, transfers, known[name])
            assert (found[name].accuracy, found[name].majority) == pytest.approx(want)
            assert found[name].num_cells == np.sum(known[name] & OFF)


def test_leave_one_out_finds_a_planted_threshold_and_nothing_in_noise():
    rng = np.random.default_rng(14)
    accuracy, majority, of_noise = [], [], []
    for _ in range(40):
        distance, control, _ = planted(rng)
        transfers = distance < 1.5
        found = leave_one_task_out({"a": distance, "b": control}, transfers, counted=OFF)
        accuracy.append(found["a"].accuracy)
        majority.append(found["a"].majority)
        of_noise.append(found["b"].accuracy)
    assert np.mean(accuracy) > 0.95 > np.mean(majority) + 0.2
    assert np.mean(of_noise) < np.mean(majority)


def test_leave_one_out_where_all_cells_agree_or_none_is_left():
    distance = planted(np.random.default_rng(15))[0]
    for transfers, threshold in ((OFF, np.inf), (~OFF, -np.inf)):
        found = leave_one_task_out({"a": distance}, transfers, counted=OFF)["a"]
        assert found.accuracy == found.majority == 1
        assert np.all(found.accuracy_by_task == 1)
        assert np.all(found.threshold[1:] == found.threshold[0])
        assert np.all((distance[OFF] <= threshold) == transfers[OFF])
    one = np.zeros((8, 8), bool)
    one[0, 1] = True
    found = leave_one_task_out({"a": distance}, OFF, counted=one)["a"]
    assert math.isnan(found.accuracy) and math.isnan(found.majority)
    assert np.isnan(found.accuracy_by_task).all() and found.num_cells == 1


# How sparse it may be


def counting(transfers):
    asked = []

    def transfers_fn(level):
        asked.append(level)
        return transfers[level]

    return transfers_fn, asked


@pytest.mark.parametrize("num_levels", [1, 2, 3, 7, 27])
def test_search_equals_all_levels_for_every_monotone_curve(num_levels):
    density = 0.8 ** np.arange(num_levels)
    for num in range(num_levels + 1):
        transfers = np.arange(num_levels) < num
        transfers_fn, asked = counting(transfers)
        found = minimal_density(transfers_fn, density)
        of_all = minimal_density(transfers, density)
        assert found.level == of_all.level == (num - 1 if num else None)
        assert found.density == of_all.density == (density[num - 1] if num else np.inf)
        assert found.is_bound == of_all.is_bound == (num == num_levels)
        assert found.is_monotone and of_all.is_monotone
        assert found.num_evaluations == len(asked) == len(set(asked))
        assert len(asked) <= 2 + math.ceil(math.log2(num_levels))
        assert of_all.num_evaluations == num_levels


def test_curves_that_are_not_monotone():
    density = 0.8 ** np.arange(9)
    ends_disagree = np.array([0, 0, 1, 1, 0, 0, 0, 0, 1], bool)
    transfers_fn, asked = counting(ends_disagree)
    found = minimal_density(transfers_fn, density)
    assert asked == [0, 8] and not found.is_monotone
    of_all = minimal_density(ends_disagree, density)
    for result in (found, of_all):
        assert not result.is_monotone and not result.is_bound
        assert (result.level, result.density) == (None, np.inf)

    rng = np.random.default_rng(16)
    for _ in range(50):  # ends in order, anything between: the search finds some border
        bumpy = np.concatenate([[True], rng.random(7) < 0.5, [False]])
        found, of_all = (
            minimal_density(counting(bumpy)[0], density),
            minimal_density(bumpy, density),
        )
        assert found.level is not None and of_all.level is not None
        assert bumpy[found.level] and not bumpy[found.level + 1] and found.is_monotone
        assert of_all.level <= found.level
        assert of_all.level == np.argmin(bumpy) - 1
        assert of_all.is_monotone == (not bumpy[of_all.level + 1 :].any())


def test_viable_levels_end_where_the_own_ticket_loses_half_of_what_dense_gains():
    own = np.array([[97.0, 60, 9, 80], [54, 60, 9, 51], [53, 60, 9, 90]])
    dense, floor = np.array([98.0, 62, 11, 98]), np.array([10.0, 60, 10, 10])
    # Falls below 54 at the third; gains 2 points only; learns nothing; comes back too late.
    assert viable_levels(own, dense, floor).tolist() == [2, 0, 0, 1]


def test_minimal_densities_are_scored_like_losses_even_if_infinite():
    rng = np.random.default_rng(17)
    distance, control, _ = planted(rng)
    density = 0.8 ** np.arange(12)
    minimal = np.full((8, 8), np.nan)
    for i, j in np.argwhere(OFF):
        transfers = density > distance[i, j] / 2 - 0.1
        minimal[i, j] = minimal_density(transfers.__getitem__, density).density
    assert np.isinf(minimal).any() and len(np.unique(minimal[OFF])) > 5
    found = quick(distance, minimal, control)
    for score in found:
        assert score.spearman > 0.9 and score.p_value == 1 / 200
    finite = quick(distance, np.where(np.isinf(minimal), 5, minimal), control)
    assert finite.directed[:3] == found.directed[:3]


# Bad input


def test_bad_metrics_name_argument_rule_and_value():
    good = dict(
        zip(
            ("transferred", "own", "dense", "random_mask"),
            metrics(np.random.default_rng(18)),
            strict=True,
        )
    )
    for name, value, match in (
        (
            "transferred",
            np.zeros((4, 5, 4)),
            r"transferred: must be .source target seed. .*\(4, 5, 4\)",
        ),
        ("own", np.zeros((5, 3)), r"own: must have shape \(5, 4\), got \(5, 3\)"),
        ("random_mask", np.zeros((5, 4)), r"random_mask: must have shape \(5, 5, 4\)"),
        ("own", np.full((5, 4), np.inf), "own: must be finite or NaN"),
        ("dense", np.full((5, 4), 0.93), "dense: must be in percent, got 'at most 0.93'"),
    ):
        with pytest.raises(ValueError, match=match):
            transfer_outcomes(*(good | {name: value}).values())


def test_bad_matrices_and_densities_name_argument_rule_and_value():
    distance, control, loss = planted(np.random.default_rng(19))
    infinite = np.where(distance > 2, np.inf, distance)
    for values, match in (
        ((distance[:5], loss, control), r"distance: must be .* \(8, 8\), got \(5, 8\)"),
        ((distance, loss, control[0]), r"control: must be .* \(8, 8\), got \(8,\)"),
        ((distance, loss[:, :2], control), r"loss: must be .* \(8, 8\), got \(8, 2\)"),
        ((infinite, loss, control), "distance: must be finite or NaN"),
    ):
        with pytest.raises(ValueError, match=match):
            quick(*values)
    with pytest.raises(ValueError, match="num_resamples: must be at least 1, got 0"):
        quick(distance, loss, control, num_resamples=0)
    with pytest.raises(ValueError, match=r"sigma: must be .* \(8, 8\), got \(5, 5\)"):
        leave_one_task_out({"sigma": distance[:5, :5]}, OFF, counted=OFF)
    with pytest.raises(ValueError, match="density: must fall inside"):
        minimal_density(OFF[0], np.linspace(0.1, 1, 8))
    with pytest.raises(ValueError, match=r"transfers: must have one value a level, got \(8,\)"):
        minimal_density(OFF[0], np.array([1.0, 0.5]))


def routes_of(num_pairs=4, maps=3):
    group = np.repeat(np.arange(num_pairs), maps)
    return group, 0.1 * (1 + group % 3)


def test_a_planted_predictor_of_routes_wins():
    group, control = routes_of()
    rng = np.random.default_rng(1)
    truth = rng.random(len(group))
    loss = truth + 0.05 * rng.standard_normal((3, len(group)))
    score = score_routes(truth, loss, control=control, group=group)
    assert score.spearman > 0.9 and score.p_value < 0.001 and score.num_cells == 36
    assert 0 < score.low < score.difference < score.high
    wrong = score_routes(-truth, loss, control=control, group=group)
    assert wrong.spearman == pytest.approx(-score.spearman) and wrong.p_value > 0.999
    assert score.agree + wrong.agree == score.pairs == 3 * 4 * 3


def test_noise_has_no_power_over_routes():
    """60 predictors of noise: the permutation p is uniform enough, and few intervals miss 0."""
    group, control = routes_of()
    rng = np.random.default_rng(2)
    scores = [
        score_routes(
            *(rng.random(12), rng.random((3, 12))),
            control=control,
            group=group,
            num_samples=400,
            seed=i,
        )
        for i in range(60)
    ]
    num_small = sum(score.p_value < 0.05 for score in scores)
    assert num_small <= 8  # binomial of 60 at 5 %: 3 expected, 9 or more once in 500
    assert sum(score.low > 0 for score in scores) <= 8


def test_few_routes_have_no_interval():
    group, control = routes_of(2, 2)
    x = np.arange(4.0)
    score = score_routes(x, x[None], control=control, group=group)
    assert score.spearman == 1 and np.isnan(score.low) and np.isnan(score.high)


def test_routes_that_do_not_count_are_left_out():
    group, control = routes_of()
    x = np.random.default_rng(3).random(12)
    loss = np.stack([x, x])
    loss[0, :4], loss[:, 5] = np.nan, np.nan
    x[5] = 100.0  # would spoil the order if it counted
    score = score_routes(x, loss, control=control, group=group)
    assert score.spearman == pytest.approx(1) and score.num_routes == 11
    assert score.num_cells == 7 + 11 and score.agree == score.pairs
