"""`python -m experiments.error_law`: run folders and CSVs in, tables, figures and one page out."""

import html
import json
import runpy
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import error_law
from experiments.shell import cli
from experiments.studies.error_law.fits import read_curves
from experiments.studies.error_law.page import (
    gamma_table,
    make_page,
    published_side,
    read_exponents,
)
from imp_rg.plots.error_law import FittedCurve, error_collapse, error_curves
from imp_rg.rg import fit_error_law

RESULTS = Path(error_law.__file__).parent / "results"
DENSITY = 0.8 ** np.arange(26)
PLANTED = {"cifar10": (1.0, 0.004, 0.3, 1.0), "own": (1.4, 0.004, 0.2, 0.3)}


def planted_frame(*, num_seeds=3, sd=0.03):
    rng, frames = np.random.default_rng(0), []
    for task, (gamma, p, q, e_np) in PLANTED.items():
        exact = e_np * ((DENSITY**2 + q**2) / (DENSITY**2 + p**2)) ** (gamma / 2)
        for seed in range(num_seeds):
            error = exact * np.exp(sd * rng.standard_normal(26))
            frames.append(
                pd.DataFrame({"density": DENSITY, "error": error, "seed": seed, "task": task})
            )
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A folder of results from a CSV with two tasks."""
    folder = tmp_path_factory.mktemp("exponents")
    planted_frame().to_csv(folder / "data.csv", index=False)
    flags = ["--csv", str(folder / "data.csv"), "--window", "0.01", "0.3"]
    config = cli.parse(error_law.PRESETS, [*flags, "--out", str(folder / "out")], prog="exponents")
    assert error_law.run(config) == folder / "out"
    return folder / "out"


def test_planted_tasks_come_back(reported):
    table = pd.read_csv(reported / "exponents.csv").set_index("task").to_dict("index")
    assert list(table) == list(PLANTED)
    for task, (gamma, _, q, _) in PLANTED.items():
        row = table[task]
        assert row["identified"] and row["gamma_low"] < row["gamma"] < row["gamma_high"]
        assert row["gamma"] == pytest.approx(gamma, rel=0.03)
        assert (row["paper_gamma"], row["paper_p"]) == (-row["gamma"], row["q"])
        assert (row["paper_gamma_low"], row["paper_gamma_high"]) == (
            -row["gamma_high"],
            -row["gamma_low"],
        )
        assert row["q"] == pytest.approx(q, rel=0.15)
        assert row["num_seeds"] == 3 and 0 < row["held_out_rms"] < 3
        assert row["eq1_gamma_low"] < row["eq1_gamma"] < row["eq1_gamma_high"] < 0
    curves = pd.read_csv(reported / "curves.csv")
    assert len(curves) == 2 * 3 * 26
    assert np.abs(np.log(curves["fitted"] / curves["error"])).max() < 0.15


def test_the_page_puts_table_7_beside_ours(reported):
    table = read_exponents(reported)
    shown = gamma_table(table).set_index("task")
    assert list(shown.index) == [
        "cifar10 (CIFAR-10)", "own", "CIFAR-100", "SVHN", "ImageNet", "simCLR"
    ]  # fmt: skip
    assert list(shown.loc["cifar10 (CIFAR-10)"])[:4] == ["-0.14", "-0.10", "-0.16", "-0.21"]
    assert list(shown.loc["simCLR"]) == ["–", "–", "-1.01", "–", *["–"] * 3]
    row = table.iloc[0]
    assert list(shown.loc["cifar10 (CIFAR-10)"])[4:] == [
        f"{row['paper_gamma']:+.2f} "
        f"[{row['paper_gamma_low']:+.2f}, {row['paper_gamma_high']:+.2f}]",
        f"{row['gamma']:+.2f} [{row['gamma_low']:+.2f}, {row['gamma_high']:+.2f}]",
        "identified",
    ]


def test_the_page_is_made_of_its_folder_alone(reported):
    page = html.unescape((reported / "report.html").read_text(encoding="utf-8"))
    assert page.count("data:image/svg+xml") == 2
    before = (reported / "figures" / "errors.svg").read_bytes()
    made = make_page(reported)
    assert "2 of 2" in made.answers[0] and len(made.answers) == 3
    assert all(sentence in page for sentence in made.answers)
    assert (reported / "figures" / "errors.svg").read_bytes() == before
    (parameters,) = (x.table for x in made.sections if x.name == "parameters")
    assert parameters is not None and "gamma of Eq. 1" in parameters


def test_our_own_runs_are_not_identified_and_the_page_says_so(tmp_path, capsys):
    runs = (RESULTS / "digits-resnet14", RESULTS / "cifar10-resnet20")
    error_law.run(error_law.Config(runs=runs, out=tmp_path))
    assert capsys.readouterr().out.count("not identified:") == 2
    table = read_exponents(tmp_path)
    assert list(table["num_test"]) == [360, 10_000] and list(table["num_seeds"]) == [3, 1]
    assert not table["identified"].any() and list(table["num_in_window"]) == [0, 0]
    shown = gamma_table(table)
    assert list(shown["here, paper's gauge"])[:2] == ["not identified"] * 2
    assert shown["verdict"][0].startswith("not identified: 0 densities lie on the power law")
    assert not (tmp_path / "figures" / "collapse.png").exists()
    assert "0 of 2" in make_page(tmp_path).answers[0]


def test_the_papers_value_lies_within_or_outside():
    row = {"identified": True, "paper_gamma": -1.0, "paper_gamma_low": -1.2,
           "paper_gamma_high": -0.9}  # fmt: skip
    assert published_side(row) == ""
    assert published_side({**row, "published": -1.1}) == "within"
    assert published_side({**row, "published": -0.14}) == "outside"
    assert published_side({**row, "published": np.nan}) == ""
    assert published_side({**row, "published": -1.1, "identified": False}) == ""


@pytest.mark.parametrize("former", [False, True])
def test_an_old_default_folder_is_found(tmp_path, monkeypatch, former):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pathlib.Path.resolve", lambda path: path)  # the hash is of whole paths
    # As experiments.exponents called it before it was renamed.
    name = "data-1-9a459c31"
    if former:
        (tmp_path / "runs" / "exponents" / name).mkdir(parents=True)
    config = error_law.Config(csv=Path("/data.csv"), num_test=200)
    assert config.folder() == Path("runs", "exponents" if former else "error_law", name)


def test_figures_draw_the_data_and_the_law():
    errors = planted_frame().groupby("task")["error"]
    curves = []
    for task in PLANTED:
        values = errors.get_group(task).to_numpy().reshape(3, 26)
        curves.append(FittedCurve(task, DENSITY, values, fit_error_law(DENSITY, values)))
    flat = np.full((1, 26), 3.0) * np.exp(0.03 * np.random.default_rng(1).standard_normal(26))
    curves.append(FittedCurve("flat", DENSITY, flat, fit_error_law(DENSITY, flat)))
    (axis,) = error_curves(curves).axes
    drawn = {line.get_label(): line for line in axis.lines}
    np.testing.assert_allclose(
        np.asarray(drawn["own"].get_ydata()), curves[1].errors.mean(axis=0)[::-1]
    )
    assert drawn["fit, γ not identified"].get_linestyle() == "--"
    assert axis.get_xlim()[0] > axis.get_xlim()[1]
    (axis,) = error_collapse(curves).axes
    assert len(axis.lines) == 4  # the flat task has no scales
    law = curves[0].law
    x, y = np.asarray(axis.lines[1].get_xdata()), np.asarray(axis.lines[1].get_ydata())
    np.testing.assert_allclose(x[[0, -1]] * law.q, [DENSITY[-1], 1.0])
    np.testing.assert_allclose(y * law.e_np, law.error_at(x * law.q))
    # Where the error leaves e_np, in these units, all tasks have 2^(gamma / 2).
    assert np.interp(1.0, x, y) == pytest.approx(2 ** (law.gamma / 2), rel=0.01)


def test_seeds_that_stopped_are_left_out(tmp_path):
    frame = pd.read_csv(RESULTS / "digits-resnet14" / "metrics.csv")
    config = (RESULTS / "digits-resnet14" / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    frame[(frame["seed"] != 1) | (frame["level"] < 4)].to_csv(tmp_path / "metrics.csv", index=False)
    (curve,) = read_curves(error_law.Config(runs=(tmp_path,)))
    assert curve.errors.shape == (2, 13)


def change(**columns):
    return lambda frame: frame.assign(**columns)


BAD_CSV = {
    "few densities": (lambda f: f[f["density"] > 0.5], "cifar10: density: must hold at least 5"),
    "error above": (
        change(error=120.0),
        r"cifar10: error: must lie in \[0, 100\] percent, got 120",
    ),
    "error below": (change(error=-1.0), r"cifar10: error: must lie in \[0, 100\] percent, got -1"),
    "equal errors": (change(error=5.0), "cifar10: error: must not be the same everywhere"),
    "percent": (lambda f: f.assign(density=100 * f["density"]), r"density: must lie in \(0, 1\]"),
    "NaN": (
        lambda f: f.drop(columns="error").join(f["error"].drop(index=7)),
        "must have no empty or NaN cell, got 'line 9'",
    ),
    "text": (change(error="much"), "column error must hold numbers"),
    "column": (lambda f: f.drop(columns="error"), "must have the columns"),
    "twice": (lambda f: pd.concat([f, f[:3]]), "each seed and density once, got '3 more'"),
    "gaps": (lambda f: f.drop(index=3), "every seed must have the same densities, got '1 gaps'"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_bad_csv_is_one_line(tmp_path, case):
    make, words = BAD_CSV[case]
    make(planted_frame()).to_csv(tmp_path / "data.csv", index=False)
    with pytest.raises(ValueError, match=words) as caught:
        error_law.run(error_law.Config(csv=tmp_path / "data.csv", out=tmp_path / "out"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_zero_errors_need_the_number_of_test_examples(tmp_path):
    frame = planted_frame(num_seeds=1)
    frame["error"] = np.round(frame["error"] * 2) / 2 * (frame["density"] < 0.9)
    frame.to_csv(tmp_path / "data.csv", index=False)
    config = error_law.Config(csv=tmp_path / "data.csv", out=tmp_path / "out")
    with pytest.raises(ValueError, match="zero errors need the number of test examples"):
        error_law.run(config)
    error_law.run(error_law.Config(csv=config.csv, out=config.out, num_test=200))
    assert (tmp_path / "out" / "report.html").exists()


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match="runs: give a run folder or --csv"):
        error_law.run(error_law.Config())
    with pytest.raises(ValueError, match="csv: must be a file, got .*nowhere.csv"):
        error_law.run(error_law.Config(csv=tmp_path / "nowhere.csv"))
    with pytest.raises(ValueError, match="runs: must be run folders with metrics.csv"):
        error_law.run(error_law.Config(runs=(tmp_path,)))
    (tmp_path / "thesis.tex").write_text("")
    config = error_law.Config(runs=(RESULTS / "digits-resnet14",), out=tmp_path)
    with pytest.raises(ValueError, match="out: must be empty or hold earlier results"):
        error_law.run(config)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "metrics.csv").write_text("seed,level,density,test_metric\n0,0,1.0,3.5\n")
    (tmp_path / "config.json").write_text(json.dumps({"metric": "perplexity"}))
    with pytest.raises(ValueError, match="metric must be test accuracy"):
        error_law.run(error_law.Config(runs=(tmp_path,)))
    with pytest.raises(ValueError, match="num_test: goes with --csv"):
        error_law.Config(runs=(tmp_path,), num_test=10)
    with pytest.raises(ValueError, match="ci_level: must lie"):
        error_law.Config(ci_level=95)


def test_command_line_says_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["error_law", "nowhere"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(error_law.__file__), run_name="__main__")
    assert stop.value.code == 2
    said = "error: runs: must be run folders with metrics.csv, got 'nowhere'\n"
    assert capsys.readouterr().err == said
