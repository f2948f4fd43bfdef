"""`python -m experiments.error_law`: run folders and CSVs in, tables, figures and one page out."""

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import error_law
from experiments.shell import cli
from experiments.studies.error_law.page import published_gamma
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
    page = (reported / "report.html").read_text()
    cells = {}
    gamma_table = page.split('id="gamma"')[1].split("</table>")[0]
    for row in re.findall(r"<tr>(.*?)</tr>", gamma_table, re.S)[1:]:
        first, *rest = map(html.unescape, re.findall(r"<td>(.*?)</td>", row))
        cells[first] = rest
    assert list(cells) == ["cifar10 (CIFAR-10)", "own", "CIFAR-100", "SVHN", "ImageNet", "simCLR"]
    assert cells["cifar10 (CIFAR-10)"][:4] == ["-0.14", "-0.10", "-0.16", "-0.21"]
    assert cells["simCLR"] == ["–", "–", "-1.01", "–", *["–"] * 4]
    row = pd.read_csv(reported / "exponents.csv").iloc[0]
    assert cells["cifar10 (CIFAR-10)"][4:] == [
        f"{row['paper_gamma']:+.2f}",
        f"[{row['paper_gamma_low']:+.2f}, {row['paper_gamma_high']:+.2f}]",
        f"{row['gamma']:+.2f}",
        f"[{row['gamma_low']:+.2f}, {row['gamma_high']:+.2f}]",
    ]
    assert page.count("data:image/svg+xml") == 2 and 'src="data:' in page
    assert (reported / "figures" / "collapse.png").stat().st_size > 5000


def test_our_own_runs_are_not_identified_and_the_page_says_so(tmp_path, capsys):
    runs = (RESULTS / "digits-resnet14", RESULTS / "cifar10-resnet20")
    error_law.run(error_law.Config(runs=runs, out=tmp_path))
    page = (tmp_path / "report.html").read_text()
    for run in runs:
        assert f"{run.name}: gamma is not identified: 0 densities lie on the power law" in page
    assert "No collapse is drawn" in page
    assert not (tmp_path / "figures" / "collapse.png").exists()
    assert capsys.readouterr().out.count("not identified:") == 2
    table = pd.read_csv(tmp_path / "exponents.csv")
    assert list(table["num_test"]) == [360, 10_000] and list(table["num_seeds"]) == [3, 1]


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
    (task,) = error_law._read_tasks(error_law.Config(runs=(tmp_path,)))
    assert task.errors.shape == (2, 13)


@pytest.mark.parametrize(
    ("dataset", "row"),
    [("cifar10", "CIFAR-10"), ("svhn_cropped", "SVHN"), ("CIFAR-100", "CIFAR-100"), ("digits", "")],
)
def test_published_rows_are_found_by_data_set(dataset, row):
    found = published_gamma(dataset)
    assert (found.row if found else "") == row


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


def test_command_line_says_one_line():
    command = [sys.executable, "-m", "experiments.error_law", "nowhere"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=RESULTS.parent.parent, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "error: runs: must be run folders with metrics.csv, got 'nowhere'\n"
