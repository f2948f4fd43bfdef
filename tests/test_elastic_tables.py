"""Spread of exponents, losses of moved tickets, and their prediction, on planted numbers."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_folder import write_run_folder

from experiments.studies.elastic import score as elastic_score
from experiments.studies.elastic import words
from experiments.studies.elastic.config import Config, Route
from experiments.studies.elastic.score import (
    ROUTE,
    compare_frame,
    loss_frame,
    mismatch_frame,
    score_frame,
    score_routes,
    transfer_frame,
)
from experiments.studies.elastic.tables import (
    STAGES,
    Exponents,
    paper_frame,
    read_exponents,
    sigma_frame,
    spread,
    spread_differences,
    spread_frame,
)
from imp_rg.published import cifar_resnet_sigma
from imp_rg.runs import read
from imp_rg.runs.files import read_csv
from imp_rg.tickets.stretching import appending, interpolation, squeeze


@pytest.fixture(scope="module")
def flow20(tmp_path_factory):
    """A planted run of a ResNet-20."""
    return read(write_run_folder(tmp_path_factory.mktemp("runs") / "depth20", depth=20))


def planted(depth, sigma, *, seeds=3, noise=0.0, seed=0):
    """Exponents of a depth: the same profile in each stage, scatter between seeds."""
    rng = np.random.default_rng(seed)
    values = {stage: np.array(sigma) + noise * rng.standard_normal((seeds, len(sigma)))
              for stage in STAGES}  # fmt: skip
    names = ("sigma", "param_share", *(f"{kind}_{null}" for kind in ("sigma", "excess")
                                       for null in ("init", "oneshot", "gaussian")))  # fmt: skip
    return Exponents(depth, 5, dict.fromkeys(names, values))


def test_exponents_are_those_of_the_run(flow20):
    table = sigma_frame([read_exponents(flow20, 20, last_level=12)], ci_level=0.95)
    spectrum = flow20.spectrum_frame()
    is_main = (spectrum["quantity"] == "magnitude_share") & (spectrum["point"] == "trained")
    is_main &= (spectrum["denominator"] == "prunable") & (spectrum["estimator"] == "paper")
    of_run = spectrum[is_main].set_index("block").loc[table["block"]]
    assert list(table["block"]) == [f"stage{s}/block{b}" for s in (1, 2, 3) for b in (1, 2)]
    for ours, theirs in (("sigma", "sigma"), ("sigma_low", "ci_low"), ("sigma_init", "sigma_init"),
                         ("excess_init_high", "excess_init_high")):  # fmt: skip
        np.testing.assert_allclose(table[ours], of_run[theirs], rtol=1e-12)
    assert dict(zip(table["block"], table["paper"], strict=True)) == cifar_resnet_sigma(20)


def test_fewer_levels_are_the_first_levels(flow20, tmp_path):
    short = write_run_folder(tmp_path / "run", depth=20)
    for name in ("flow", "null_flow"):
        table = read_csv(short / f"{name}.csv")
        table[table["level"] <= 7].to_csv(short / f"{name}.csv", index=False)
    expected = read_exponents(read(short), 20, last_level=7).values
    found = read_exponents(flow20, 20, last_level=7).values
    for name, stages in expected.items():
        for stage, values in stages.items():
            np.testing.assert_allclose(found[name][stage], values, rtol=1e-9)
    whole = read_exponents(flow20, 20, last_level=12).values
    assert np.abs(whole["sigma"]["stage1"] - found["sigma"]["stage1"]).max() > 1e-6


def test_spread_by_hand():
    found = spread(np.array([[0.1, 0.3], [0.2, 0.6]]))
    np.testing.assert_allclose(found.sd, [0.2 / np.sqrt(2), 0.4 / np.sqrt(2)])
    np.testing.assert_allclose(found.range, [0.2, 0.4])
    assert found.sd_of_mean == pytest.approx(0.3 / np.sqrt(2))
    # Interaction: +-0.05 in every cell, mean square 0.01 with one degree of freedom, half of it.
    assert found.sd_corrected == pytest.approx(np.sqrt(0.09 / 2 - 0.01 / 2))
    assert np.isnan(spread(np.array([[0.1, 0.3]])).sd_corrected)
    assert np.isnan(spread(np.array([[0.1, np.nan], [0.2, 0.3]])).sd_of_mean)


def test_scatter_between_seeds_is_taken_out():
    """4,000 draws: the plain spreads are too large, the corrected variance is right."""
    rng, truth, noise = np.random.default_rng(0), np.array([0.0, 0.1, 0.2, 0.3]), 0.1
    drawn = [spread(truth + noise * rng.standard_normal((3, 4)) + rng.standard_normal((3, 1)))
             for _ in range(4000)]  # fmt: skip
    variance = truth.var(ddof=1)
    per_seed, of_mean, corrected = (
        np.mean([np.mean(getattr(found, name) ** 2) for found in drawn])
        for name in ("sd", "sd_of_mean", "sd_corrected")
    )
    error = np.std([found.sd_corrected**2 for found in drawn]) / np.sqrt(len(drawn))
    assert per_seed == pytest.approx(variance + noise**2, rel=0.02)
    assert of_mean == pytest.approx(variance + noise**2 / 3, rel=0.02)
    # Cut off at 0 in a few draws, hence never below by more than the error.
    assert corrected == pytest.approx(variance, abs=5 * error)
    assert abs(of_mean - variance) > 5 * error


def test_spread_by_depth():
    shallow = planted(20, (0.1, 0.2), noise=0.001)
    deep = planted(32, (0.0, 0.2, 0.4, 0.6), noise=0.001, seed=1)
    networks = [planted(14, (0.1,)), shallow, deep]
    table: Any = spread_frame(networks, ci_level=0.95).set_index(["depth", "stage", "quantity"])
    assert set(table.index.get_level_values("depth")) == {20, 32}
    row = table.loc[32, "stage2", "sigma"]
    assert row["sd"] == pytest.approx(np.std([0, 0.2, 0.4, 0.6], ddof=1), abs=0.003)
    assert row["sd_low"] < row["sd"] < row["sd_high"] and row["num_blocks"] == 4
    assert table.loc[(20, "stage1", "sigma"), "paper_sd"] == pytest.approx(0.03 / np.sqrt(2))
    assert np.isnan(table.loc[(20, "stage1", "excess_init"), "paper_sd"])
    differences = spread_differences(networks, ci_level=0.95)
    assert set(zip(differences["depth_a"], differences["depth_b"], strict=True)) == {(20, 32)}
    assert (differences["low"] > 0).all()
    said = words.spread_sentence(differences, 5)
    assert "in 1 of 1 pairs of depths" in said and "ResNet-32 minus 20 +0.187" in said
    reverse = spread_differences([planted(20, (0, 0.4)), planted(32, (0.1,) * 4)], ci_level=0.95)
    assert "in 0 of 1 pairs" in words.spread_sentence(reverse, 5)


def test_the_papers_own_mismatches():
    """Table 4 by hand: in stage 1 the maps found worse mismatch less, in two comparisons of five.

    Dropping the first four leaves 0.18 0.21 0.11 0.24 beside -0.04 0.19 0.18 0.26.
    """
    table: Any = paper_frame().set_index("map")
    first = np.sqrt(np.mean(np.square([0.22, 0.02, 0.07, 0.02])))
    assert table.loc["drop-first-four", "stage1"] == pytest.approx(first)
    assert round(first, 3) == 0.116
    assert round(table.loc["drop-last-four", "stage1"], 3) == 0.160
    assert round(table.loc["copy-last-two", "rms"], 3) == 0.063
    assert round(table.loc["copy-first-two", "rms"], 3) == 0.085
    said = words.paper_sentence(paper_frame())
    assert "in 4 of 5 comparisons over all stages and in 3 of 5 in stage 1" in said
    assert "copy-last-two 0.063 against copy-first-two 0.085" in said


DENSITIES = np.array([1.0, 0.5, 0.25])


def metrics(offset=0.0):
    """Own tickets of two seeds: 98, 94, 86 percent and 2 points more."""
    rows = [
        {"seed": seed, "level": n, "density": d, "test_metric": 98 - 4 * (2**n - 1) + 2 * seed}
        for seed in (0, 1)
        for n, d in enumerate(DENSITIES)
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(test_metric=frame["test_metric"] + offset)


def cells(values, *, source=14, target=20, name="appending", level=2, density=0.25):
    """Rows of cells.csv: for each kind the metric of both seeds."""
    return pd.DataFrame(
        {
            "source_depth": source,
            "target_depth": target,
            "map": name,
            "block_map": name,
            "kind": kind,
            "level": level,
            "density": density,
            **{f"density_{stage}": density for stage in STAGES},
            "seed": seed,
            "test_metric": metric,
        }
        for kind, metric_of in values.items()
        for seed, metric in enumerate(metric_of)
    )


def test_losses_by_hand():
    middle = cells({"ticket": (80.0, 81.0)}, density=np.sqrt(0.5 * 0.25))
    beyond = cells({"ticket": (80.0, 81.0)}, density=0.2, name="copy-last")
    table = loss_frame(pd.concat([middle, beyond]), {20: metrics()})
    # Halfway in log-density between 94 and 86, for the second seed 2 more.
    np.testing.assert_allclose(table["own"], [90, 92, np.nan, np.nan])
    np.testing.assert_allclose(table["loss"], [10, 11, np.nan, np.nan])
    np.testing.assert_allclose(table["own_density"][2:], 0.25)
    np.testing.assert_allclose(table["dense"], [98, 100, 98, 100])


def test_seed_that_failed_at_the_target_has_no_loss():
    own = metrics()
    own.loc[own["seed"] == 1, "test_metric"] = np.nan
    table = loss_frame(cells({"ticket": (80.0, 81.0)}), {20: own})
    np.testing.assert_allclose(table["loss"], [6, np.nan])
    np.testing.assert_allclose(table["dense"], [98, np.nan])


def test_transfer_by_hand():
    good = {"ticket": (86.5, 88.0), "random": (60.0, 62.0), "reinit": (70.0, 70.0)}
    lost = {"ticket": (76.0, 79.0), "random": (60.0, 62.0)}
    saturated = {"ticket": (86.0, 88.0), "random": (97.0, 98.0)}
    trained = pd.concat([
        cells(good),
        cells(lost, name="copy-last"),
        cells(saturated, name="interpolation"),
        cells(good, source=20, name="identity"),
        cells(good, name="beyond", density=0.2),
    ])  # fmt: skip
    losses = loss_frame(trained, {20: metrics()})
    table: Any = transfer_frame(losses, ci_level=0.95).set_index("map")
    assert table.loc["appending", "loss"] == pytest.approx(-0.25)
    # sem of 86 and 88 is 1: the margin is 2.
    assert (table["margin"].drop("beyond") == 2).all()
    assert table["transfers"].to_dict() == {
        "appending": True, "copy-last": False, "interpolation": True, "identity": True,
        "beyond": False,
    }  # fmt: skip
    assert table.index[table["saturated"]].tolist() == ["interpolation"]
    assert set(table.index[table["counted"]]) == {"appending", "copy-last"}
    row = table.loc["appending"]
    assert row["minus_random"] == pytest.approx(26.25) and row["minus_reinit"] == 17.25
    assert row["minus_random_low"] < 26.25 < row["minus_random_high"]
    assert np.isnan(table.loc["copy-last", "minus_reinit"])
    said = words.transfer_sentence(table.reset_index())
    assert said.startswith("Moved between depths by the default maps, 1 of 1 tickets come within")
    assert "lose -0.2 points in the median" in said


def test_nothing_counts():
    saturated = cells({"ticket": (86.0, 88.0), "random": (97.0, 98.0)})
    losses = loss_frame(saturated, {20: metrics()})
    table = transfer_frame(losses, ci_level=0.95)
    assert "cannot be said" in words.transfer_sentence(table)
    assert compare_frame(losses, table, ci_level=0.95).empty
    read_at = {14: planted(14, (0.1,)), 20: planted(20, (0.1, 0.2))}
    mismatches = mismatch_frame([Route(14, 20, "appending", appending(1, 2))], read_at, read_at)
    score = score_frame(mismatches, table, seed=0)
    assert score["spearman"].isna().all() and set(score["verdict"]) == {"no power"}
    assert "cannot be said" in words.score_sentence(score)


def test_mismatch_by_hand():
    at = {14: planted(14, (0.1,)), 20: planted(20, (0.1, 0.4)), 32: planted(32, (0, 0.4, 0.1, 0.2))}
    routes = [
        Route(14, 14, "identity", appending(1, 1)),
        Route(20, 32, "appending", appending(2, 4)),
        Route(20, 32, "interpolation", interpolation(2, 4)),
        Route(32, 14, "drop-last", squeeze(4, (2, 3, 4))),
    ]
    table = mismatch_frame(routes, at, at).set_index("map")
    # 0.1 0.4 0.1 0.4 and 0.1 0.1 0.4 0.4 beside 0 0.4 0.1 0.2; 0 beside 0.1.
    np.testing.assert_allclose(table["sigma"], [np.sqrt(0.05 / 4), np.sqrt(0.23 / 4), 0.1])
    np.testing.assert_allclose(table["depth_ratio"], np.log([1.6, 1.6, 32 / 14]))
    assert list(table["depth_difference"]) == [12, 12, 18]


def routes_of(num_pairs=4, maps=3):
    group = np.repeat(np.arange(num_pairs), maps)
    return group, 0.1 * (1 + group % 3)


def test_a_planted_predictor_wins():
    group, control = routes_of()
    rng = np.random.default_rng(1)
    truth = rng.random(len(group))
    loss = truth + 0.05 * rng.standard_normal((3, len(group)))
    score = score_routes(truth, loss, control, group, seed=0)
    assert score.spearman > 0.9 and score.p_value < 0.001 and score.num_cells == 36
    assert 0 < score.low < score.difference < score.high
    assert score.verdict == "beats the ratio of depths"
    wrong = score_routes(-truth, loss, control, group, seed=0)
    assert wrong.spearman == pytest.approx(-score.spearman) and wrong.p_value > 0.999
    assert score.agree + wrong.agree == score.pairs == 3 * 4 * 3


def test_noise_has_no_power(monkeypatch):
    """60 predictors of noise: the permutation p is uniform enough, and few intervals miss 0."""
    monkeypatch.setattr(elastic_score, "NUM_DRAWS", 400)
    group, control = routes_of()
    rng = np.random.default_rng(2)
    scores = [
        score_routes(rng.random(12), rng.random((3, 12)), control, group, seed=i) for i in range(60)
    ]
    num_small = sum(score.p_value < 0.05 for score in scores)
    assert num_small <= 8  # binomial of 60 at 5 %: 3 expected, 9 or more once in 500
    assert sum(score.verdict == "beats the ratio of depths" for score in scores) <= 8


def test_few_ways_have_no_power():
    group, control = routes_of(2, 2)
    x = np.arange(4.0)
    score = score_routes(x, x[None], control, group, seed=0)
    assert score.spearman == 1 and score.verdict == "no power" and np.isnan(score.low)


def test_cells_that_do_not_count_are_left_out():
    group, control = routes_of()
    x = np.random.default_rng(3).random(12)
    loss = np.stack([x, x])
    loss[0, :4], loss[:, 5] = np.nan, np.nan
    x[5] = 100.0  # would spoil the order if it counted
    score = score_routes(x, loss, control, group, seed=0)
    assert score.spearman == pytest.approx(1) and score.num_routes == 11
    assert score.num_cells == 7 + 11 and score.agree == score.pairs


def test_maps_against_each_other():
    trained = pd.concat([
        cells({"ticket": (80.0, 81.0), "random": (60.0, 60.0)}, source=20, target=32, level=level,
              name=name, density=density)
        for level, density in ((1, 0.5), (2, 0.25))
        for name in ("appending", "copy-first")
    ])  # fmt: skip
    is_first = (trained["map"] == "copy-first") & (trained["kind"] == "ticket")
    trained.loc[is_first, "test_metric"] -= 5 + 0.1 * trained["seed"][is_first]
    losses = loss_frame(trained, {32: metrics()})
    table = compare_frame(losses, transfer_frame(losses, ci_level=0.95), ci_level=0.95)
    row: Any = table.set_index("statement").loc["unique blocks"]
    assert row["mean"] == pytest.approx(5.05) and row["num_levels"] == 2
    assert row["mean_low"] > 0
    assert words.tally(table, "unique blocks") == "1 worse"
    assert "copy-first against appending: +5.0" in words.comparison_sentence(table, "unique blocks")
    assert words.tally(table, "first blocks dropped") == "not tested"
    assert "56 to 32" in words.untested("first blocks dropped", (14, 32), "digits")
    assert words.untested("first blocks dropped", (32, 56), "cifar10") == "nothing"


def test_columns_name_a_way():
    """Every map once: the score pivots on these names."""
    for depths in ((14, 20, 32), (14, 20, 32, 44, 56)):
        routes = Config(depths=depths).routes()
        names = [(route.source_depth, route.target_depth, route.name) for route in routes]
        maps = [(route.source_depth, route.target_depth, route.block_map) for route in routes]
        assert len(set(names)) == len(names) == len(set(maps))
    assert ROUTE == ["source_depth", "target_depth", "map", "block_map"]
