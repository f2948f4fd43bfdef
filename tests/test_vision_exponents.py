"""`python -m experiments.vision_exponents`: cells and run folders beside the paper's Table 7."""

import numpy as np
import pandas as pd
import pytest
from vision_folder import write_cells

from experiments import vision_exponents
from experiments.shell import cli
from experiments.studies.vision_exponents.findings import find_published
from experiments.studies.vision_exponents.page import COLUMNS, make_page
from imp_rg import published
from imp_rg.report.columns import tabulate
from imp_rg.runs.files import read_json, write_json

DENSITY = 0.8 ** np.arange(26)
PT = (0.14, 0.13, 0.03, -0.12)
GAMMA, P, Q, E_NP = 1.0, 0.004, 0.3, 1.0


def plant_errors(folder):
    """Replaces the accuracies of a cell by those of a known law."""
    rng, frames = np.random.default_rng(0), []
    error = E_NP * ((DENSITY**2 + Q**2) / (DENSITY**2 + P**2)) ** (GAMMA / 2)
    for seed in range(3):
        metric = 100 - error * np.exp(0.02 * rng.standard_normal(26))
        columns = {"seed": seed, "level": range(26), "density": DENSITY, "test_metric": metric}
        frames.append(pd.DataFrame(columns))
    pd.concat(frames).to_csv(folder / "metrics.csv", index=False)
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "num_test": None})


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vision")
    settings = {"levels": 2}
    cells = {
        ("cifar10", "scratch"): (PT, settings),
        ("cifar100+balanced=100", "supervised:cifar10"): (PT, settings),
        ("svhn_cropped", "weights/moco_v2.pth"): None,
    }
    write_cells(folder / "runs", cells)
    for name in ("cifar10--scratch", "cifar100+balanced=100--supervised-cifar10"):
        plant_errors(folder / "runs" / name)
    flags = [str(folder / "runs"), "--out", str(folder / "out")]
    config = cli.parse(vision_exponents.PRESETS, flags, prog="vision_exponents")
    return vision_exponents.run(config)


def test_planted_gamma_stands_beside_table_7(reported, capsys):
    table = pd.read_csv(reported / "exponents.csv").set_index("task")
    assert list(table.index) == [
        "cifar10 from scratch",
        "cifar100+balanced=100 from supervised:cifar10",
    ]
    assert table["identified"].all()
    np.testing.assert_allclose(table["paper_gamma"], -GAMMA, rtol=0.05)
    rows = {row.row: row.by_label for row in published.rows(7)}
    assert list(table["published"]) == [
        rows["CIFAR-10"]["No pre-train"],
        rows["CIFAR-100"]["ImageNet"],
    ]
    shown = tabulate(table.reset_index(), COLUMNS)
    assert list(shown["Table 7"]) == ["CIFAR-10, No pre-train", "CIFAR-100, ImageNet"]
    assert list(shown["the paper's"]) == ["outside", "outside"]
    answers = make_page(reported).answers
    assert "2 of 2" in answers[0] and "-0.14 lies outside" in answers[1]
    assert "2 of 2" in (reported / "report.html").read_text(encoding="utf-8")
    assert (reported / "figures" / "errors.svg").is_file()
    vision_exponents.run(vision_exponents.Config(runs=(reported.parent / "runs",), out=reported))
    assert "not finished and left out: svhn_cropped from moco_v2.pth" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "row", "column"),
    [
        ({"dataset": "svhn_cropped", "init": "simclr:cifar10"}, "SVHN", "simCLR"),
        ({"dataset": "cifar10", "init": "w/moco_v2_800ep.pth"}, "CIFAR-10", "MoCo"),
        ({"dataset": "cifar10", "init": "w/resnet50-0676ba61.pth"}, "CIFAR-10", "ImageNet"),
        ({"dataset": "cifar10"}, "CIFAR-10", "No pre-train"),
        ({"dataset": "cifar10", "method": "simclr"}, "simCLR", "simCLR"),
        ({"dataset": "imagenet", "method": "supervised"}, "ImageNet", "ImageNet"),
    ],
)
def test_rows_and_columns_of_table_7(settings, row, column):
    found = find_published(settings)
    (expected,) = (x.by_label[column] for x in published.rows(7) if x.row == row)
    assert (found["row"], found["column"], found["published"]) == (row, column, expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"dataset": "digits"},
        {"dataset": "cifar10", "method": "moco"},
        {"dataset": "cifar10", "method": "supervised"},
    ],
)
def test_what_table_7_does_not_have(settings):
    assert np.isnan(find_published(settings)["published"])


def test_bad_runs_are_one_line(tmp_path):
    with pytest.raises(ValueError, match="runs: give a vision experiment or a run folder"):
        vision_exponents.run(vision_exponents.Config())
    with pytest.raises(ValueError, match="runs: must be run folders with metrics.csv"):
        vision_exponents.run(vision_exponents.Config(runs=(tmp_path,)))
    write_cells(tmp_path, {("digits", "scratch"): None})
    with pytest.raises(ValueError, match="runs: must hold a finished cell"):
        vision_exponents.run(vision_exponents.Config(runs=(tmp_path,)))
