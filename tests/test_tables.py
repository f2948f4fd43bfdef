"""The tables of a run: complete, consistent with each other, and true about what went wrong."""

import csv

import numpy as np
import pandas as pd
import pytest
from small_run import finished_run, run_in_process

from experiments.trunk import run
from imp_rg.report import write_report
from imp_rg.rg import excess, measure_spectrum
from imp_rg.runs.files import read_json
from imp_rg.types import POINTS

SEEDS, LEVELS, BLOCKS = [0, 1], [0, 1, 2, 3], ["dense0", "dense1", "head"]
NULLS = ("gaussian", "init", "oneshot", "random")
SCAN = ("--model", "lenet32-16", "--seeds", "3", "--levels", "3", "--num-steps", "12")
SCAN = (*SCAN, "--rewind-step", "2", "--batch-size", "32")


@pytest.fixture(scope="module")
def run_folder():
    return finished_run()


@pytest.fixture(scope="module")
def flow(run_folder):
    return pd.read_csv(run_folder / "flow.csv")


@pytest.fixture(scope="module")
def null_flow(run_folder):
    return pd.read_csv(run_folder / "null_flow.csv")


@pytest.fixture(scope="module")
def spectrum(run_folder):
    return pd.read_csv(run_folder / "spectrum.csv")


def cube(frame, column, point="trained"):
    """One column as [seed level block]."""
    rows = frame[frame["point"] == point]
    table = rows.pivot(index=["seed", "level"], columns="block", values=column)[BLOCKS]
    return table.to_numpy().reshape(len(SEEDS), -1, len(BLOCKS))


def main_rows(spectrum, estimator="paper", **key):
    key = {"quantity": "magnitude_share", "point": "trained", "denominator": "prunable"} | key
    for name, value in (key | {"estimator": estimator}).items():
        spectrum = spectrum[spectrum[name] == value]
    return spectrum.set_index("block").loc[BLOCKS]


def test_flow_has_every_row_once(flow):
    assert list(flow) == [
        *("seed", "level", "point", "block", "density", "scale_factor", "magnitude"),
        *("magnitude_share", "share_blocks", "share_all", "surviving", "param_share"),
        "block_density",
    ]
    found = list(flow[["seed", "level", "point", "block"]].itertuples(index=False, name=None))
    wanted = [
        (seed, level, point, block)
        for point in POINTS
        for seed in SEEDS
        for level in LEVELS
        for block in BLOCKS
        if (level, point) != (0, "postprune")
    ]
    assert found == wanted
    last = flow["level"] == LEVELS[-1]
    assert (flow["scale_factor"].isna() == last).all()
    assert flow.drop(columns="scale_factor").notna().all(axis=None)


def test_flow_agrees_with_itself(flow):
    cells = flow.groupby(["seed", "level", "point"])
    for column in ("magnitude_share", "share_blocks", "param_share"):
        np.testing.assert_allclose(cells[column].sum(), 1, rtol=1e-12)
    assert (cells["share_all"].sum() < 1).all()  # biases are never pruned
    sizes = {"dense0": 2048, "dense1": 512, "head": 160}
    density = flow["surviving"] / flow["block"].map(sizes)
    np.testing.assert_array_equal(flow["block_density"], density)
    kept = cells["surviving"].sum() / sum(sizes.values())
    np.testing.assert_array_equal(kept, cells["density"].first())
    assert flow["surviving"].dtype == np.int64
    per_level = flow.groupby("level")[["density", "scale_factor"]].first()
    ratio = per_level["density"].to_numpy()[:-1] / per_level["density"].to_numpy()[1:]
    np.testing.assert_allclose(per_level["scale_factor"][:-1], ratio, rtol=1e-15)


def test_pruning_takes_the_same_weights_from_all_points(flow):
    """Masks are those of the level, whichever weights they are put on."""
    trained, rewound, postprune = (cube(flow, "surviving", point) for point in POINTS)
    np.testing.assert_array_equal(trained, rewound)
    np.testing.assert_array_equal(trained[:, 1:], postprune)
    assert (np.diff(trained, axis=1) <= 0).all()


def test_floats_are_written_in_full(run_folder):
    """Shortest text that reads back to the same bits."""
    with open(run_folder / "flow.csv") as file:
        cells = [row[name] for row in csv.DictReader(file) for name in ("magnitude", "param_share")]
    assert len(cells) > 100 and cells == [repr(float(cell)) for cell in cells]


def test_nulls_keep_what_the_run_keeps(flow, null_flow):
    assert list(null_flow) == ["null", *flow]
    assert sorted(set(null_flow["null"])) == sorted(NULLS)
    for name, frame in null_flow.groupby("null"):
        kept = cube(frame, "surviving").sum(axis=-1)
        wanted = cube(flow, "surviving").sum(axis=-1)
        np.testing.assert_allclose(kept, wanted, rtol=1e-9 if name == "gaussian" else 0)


def test_metrics_and_timing_have_a_row_for_each_level(run_folder):
    metrics = pd.read_csv(run_folder / "metrics.csv")
    columns = ["seed", "level", "density", "train_loss", "test_metric", "steps", "status"]
    assert list(metrics) == columns
    timing = pd.read_csv(run_folder / "timing.csv")
    for frame in (metrics, timing):
        rows = sorted(frame[["seed", "level"]].itertuples(index=False, name=None))
        assert rows == [(seed, level) for seed in SEEDS for level in LEVELS]
    assert set(metrics["status"]) == {"ok"} and set(metrics["steps"]) == {18}
    assert metrics["test_metric"].between(0, 100).all() and (timing["seconds"] > 0).all()
    assert read_json(run_folder / "config.json")["metric"] == "test accuracy (%)"


def test_spectrum_has_every_measurement(spectrum):
    keys = ["quantity", "point", "denominator", "estimator"]
    found = set(spectrum[keys].itertuples(index=False, name=None))
    shares = {
        ("magnitude_share", point, denominator, "paper")
        for point in POINTS
        for denominator in ("prunable", "blocks", "all")
    }
    counts = {("param_share", point, "prunable", "paper") for point in POINTS}
    others = {
        (quantity, "trained", "prunable", estimator)
        for quantity in ("magnitude_share", "param_share")
        for estimator in ("slope", "absolute", "logratio")
    }
    assert found == shares | counts | others
    assert len(spectrum) == len(found) * len(BLOCKS)
    assert all(list(rows["block"]) == BLOCKS for _, rows in spectrum.groupby(keys))
    for null in NULLS:
        columns = [f"sigma_{null}", *(f"excess_{null}{end}" for end in ("", "_low", "_high"))]
        assert spectrum[columns].notna().all(axis=None)
    classified = spectrum["estimator"].isin(["paper", "slope"])
    assert (spectrum["relevance"].notna() == classified).all()
    assert (spectrum["sem_levels"].notna() == (spectrum["estimator"] == "paper")).all()


@pytest.mark.parametrize("estimator", ["paper", "slope", "absolute", "logratio"])
def test_spectrum_is_that_of_the_flow(flow, spectrum, estimator):
    factor = flow.groupby("level")["scale_factor"].first().to_numpy()[:-1]
    measured = measure_spectrum(
        cube(flow, "magnitude_share"), factor, magnitude=cube(flow, "magnitude")
    )
    rows = main_rows(spectrum, estimator)
    for column in ("sigma", "ci_low", "ci_high", "sem_seeds"):
        wanted = getattr(measured, column)[estimator]
        np.testing.assert_allclose(rows[column], wanted, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(rows["curvature_p"], measured.curvature_p, rtol=1e-9)
    np.testing.assert_allclose(rows["lambda_mean"], measured.lambda_mean, rtol=1e-12)


@pytest.mark.parametrize("denominator", ["blocks", "all"])
def test_other_denominators(flow, spectrum, denominator):
    factor = flow.groupby("level")["scale_factor"].first().to_numpy()[:-1]
    measured = measure_spectrum(cube(flow, f"share_{denominator}"), factor)
    rows = main_rows(spectrum, denominator=denominator)
    np.testing.assert_allclose(rows["sigma"], measured.sigma["paper"], rtol=1e-9)


def test_postprune_starts_at_level_one(flow, spectrum):
    factor = flow.groupby("level")["scale_factor"].first().to_numpy()[1:-1]
    measured = measure_spectrum(cube(flow, "magnitude_share", "postprune"), factor)
    rows = main_rows(spectrum, point="postprune")
    np.testing.assert_allclose(rows["sigma"], measured.sigma["paper"], rtol=1e-9)


def test_excess_is_the_paired_difference(flow, null_flow, spectrum):
    factor = flow.groupby("level")["scale_factor"].first().to_numpy()[:-1]
    rows = main_rows(spectrum)
    own = measure_spectrum(cube(flow, "magnitude_share"), factor).sigma_per_seed["paper"]
    for name, frame in null_flow.groupby("null"):
        null = measure_spectrum(cube(frame, "magnitude_share"), factor).sigma_per_seed["paper"]
        beyond = excess(own, null)
        np.testing.assert_allclose(rows[f"sigma_{name}"], null.mean(axis=0), atol=1e-9)
        difference = rows["sigma"] - rows[f"sigma_{name}"]
        np.testing.assert_allclose(rows[f"excess_{name}"], difference, atol=1e-12)
        np.testing.assert_allclose(rows[f"excess_{name}_low"], beyond.low, atol=1e-9)
        np.testing.assert_allclose(rows[f"excess_{name}_high"], beyond.high, atol=1e-9)


def test_random_pruning_has_no_exponent(spectrum):
    """Five standard errors of the share that is left of a block, over the RG time of the run.

    Counts are hypergeometric: var of ln P is (1 / kept - 1 / size) / seeds; kept is 0.512 of size.
    """
    rows = main_rows(spectrum, quantity="param_share")
    sizes, density = np.array([2048, 512, 160]), 0.512
    error = np.sqrt((1 / density - 1) / sizes / len(SEEDS)) / -np.log(density)
    assert (np.abs(rows["sigma_random"]) < 5 * error).all()
    # So small a bound would see magnitude pruning.
    assert abs(rows.loc["head", "sigma_init"]) > 5 * error[-1]


def fail_at(level, rows, monkeypatch):
    """Lets replicates meet a non-finite loss."""
    run_level = run.run_level
    levels = iter(range(100))

    def failing(scheme, keys, state, data, test_data):
        state, record = run_level(scheme, keys, state, data, test_data)
        if next(levels) == level:
            is_finite, loss = record.is_finite.copy(), record.train_loss.copy()
            is_finite[rows], loss[rows] = False, np.nan
            record = record._replace(is_finite=is_finite, train_loss=loss)
        return state, record

    monkeypatch.setattr(run, "run_level", failing)


def status_of(folder):
    metrics = pd.read_csv(folder / "metrics.csv")
    return {(row.seed, row.level): row.status for row in metrics.itertuples()}


def test_others_go_on_when_one_replicate_stops(tmp_path, monkeypatch, capsys):
    whole = run_in_process(*SCAN, "--replicates", "loop", "--out", str(tmp_path / "whole"))
    fail_at(2, [1], monkeypatch)
    flags = (*SCAN, "--replicates", "loop", "--out", str(tmp_path / "run"))
    out = run_in_process(*flags)
    assert "warning: seed 1 stops at level 2" in capsys.readouterr().out
    status = status_of(out)
    assert status[1, 2] == "non-finite loss" and (1, 3) not in status
    assert {key for key, text in status.items() if text == "ok"} == {
        (seed, level) for seed in range(3) for level in range(4) if seed != 1 or level < 2
    }
    flow, wanted = (pd.read_csv(folder / "flow.csv") for folder in (out, whole))
    assert flow[flow["seed"] == 1]["level"].max() == 1
    for seed in (0, 2):  # to the bit what they are without the failure
        mine, theirs = (f[f["seed"] == seed].reset_index(drop=True) for f in (flow, wanted))
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)
    rows = main_rows(pd.read_csv(out / "spectrum.csv"))
    assert rows[["sigma", "ci_low", "excess_init"]].notna().all(axis=None)
    assert "eed 1 met a non-finite loss at level 2" in write_report(out).read_text()


def test_a_stopped_replicate_stays_stopped_after_resuming(tmp_path, monkeypatch):
    flags = (*SCAN, "--out", str(tmp_path / "run"))
    fail_at(0, [0], monkeypatch)
    out = run_in_process(*flags)
    before = (out / "flow.csv").read_bytes()
    (out / "environment.json").unlink()
    out = run_in_process(*flags)
    assert (out / "flow.csv").read_bytes() == before
    assert status_of(out)[0, 0] == "non-finite loss"


def test_all_replicates_blow_up(tmp_path, capsys):
    """No patch: a learning rate that no network survives."""
    out = run_in_process(*SCAN, "--learning-rate", "1e30", "--out", str(tmp_path / "run"))
    assert status_of(out) == {(seed, 0): "non-finite loss" for seed in range(3)}
    assert "no replicate is left" in capsys.readouterr().out
    assert read_json(out / "environment.json")["finished"]
    assert write_report(out).exists()


def test_collapsed_layer_is_named(tmp_path):
    """Random pruning to 7 of 2,720 weights cannot keep a layer of 160 alive in every seed."""
    flags = (*SCAN, "--score", "random", "--prune-fraction", "0.95", "--levels", "2")
    out = run_in_process(*flags, "--out", str(tmp_path / "run"))
    flow = pd.read_csv(out / "flow.csv")
    is_empty = (flow["point"] == "trained") & (flow["surviving"] == 0)
    wanted = {}
    for (seed, level), rows in flow[is_empty].groupby(["seed", "level"]):
        wanted[seed, level] = f"collapsed: {', '.join(rows['block'])}"
    assert wanted
    status = status_of(out)
    assert {key: text for key, text in status.items() if text != "ok"} == wanted
    assert write_report(out).exists()
