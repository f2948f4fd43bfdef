"""Tables and page of an encoder by task: planted exponents come back, and verdicts follow."""

import dataclasses
import shutil
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from language_folder import DENSITY, encoder_partition, write_task, write_tasks
from scipy import stats

from experiments.language_flow import report
from experiments.shell.study import Study
from experiments.studies.language import page
from experiments.studies.language.findings import (
    INIT,
    MASKS,
    ONESHOT,
    between_tasks,
    by_kind,
    by_layer,
    contrast_frame,
    differences,
    exponents,
    kind_of,
    layer_of,
    published_frame,
    read_tasks,
    task_frame,
    verdict,
    write_tables,
)
from experiments.studies.language.page import VERDICTS, make_page, table3, verdict_sentence
from imp_rg.models.bert import KINDS, make_bert
from imp_rg.models.bert_config import BertConfig
from imp_rg.rg import gaussian_null, measure_spectrum
from imp_rg.runs.files import read_csv, write_csv, write_json

EXCESS = (0.02, 0.0, -0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"), rte=EXCESS, mrpc=EXCESS, wnli=EXCESS)


@pytest.fixture(scope="module")
def flows(folder):
    return read_tasks(folder)


def test_names_are_those_of_the_model():
    blocks = make_bert(BertConfig(num_layers=3)).partition("tensor").names
    assert blocks == encoder_partition(3).names
    assert [layer_of(b) for b in blocks] == [f"layer{i}" for i in range(3) for _ in range(6)] + [
        "rest"
    ]
    assert [kind_of(b) for b in blocks[:6]] == [b.split("/")[1] for b in blocks[:6]]
    assert kind_of("pooler") == kind_of("layer0") == "rest"


def test_flows_add_up(flows):
    """A layer holds the sum of its matrices, at every level and in every null."""
    whole, parts = flows["rte"].trajectory, by_layer(flows)["rte"].trajectory
    assert parts.blocks.names == ("layer0", "layer1", "layer2", "rest")
    assert parts.blocks.sizes == (12_000, 12_000, 12_000, 1000)
    for before, after in zip(
        [*whole.points.values(), *whole.nulls.values()],
        [*parts.points.values(), *parts.nulls.values()],
        strict=True,
    ):
        expected = before.magnitude[..., 6:12].sum(axis=-1)
        np.testing.assert_allclose(after.magnitude[..., 1], expected, rtol=1e-12)
        np.testing.assert_allclose(after.magnitude_share.sum(axis=-1), 1, rtol=1e-12)
        np.testing.assert_array_equal(after.total, before.total)


def test_sigma_of_the_null_is_the_closed_form(flows):
    table = exponents(by_layer(flows), ci_level=0.95)
    blocks = encoder_partition(3)
    scales = 0.05 * (1 + 0.1 * np.cos(np.arange(len(blocks.names))))
    block_of = np.append(np.repeat(np.arange(3), 6), 3)
    shares = gaussian_null(np.array(blocks.sizes), scales, block_of, DENSITY)
    expected = measure_spectrum(shares[None], DENSITY[:-1] / DENSITY[1:]).sigma["paper"][:3]
    for task in flows:
        np.testing.assert_allclose(table[table["task"] == task]["init"], expected, atol=1e-9)


def test_planted_differences_come_back(flows):
    """Shares sum to one, so the excess is found up to a constant: contrasts of layers are exact."""
    frame = differences(by_layer(flows), ci_level=0.95)
    for contrast, factor in ((INIT, 1.0), (ONESHOT, 0.5), (MASKS, 0.1)):
        rows = frame[frame["contrast"] == contrast]
        mean = rows.pivot(index="task", columns="block", values="mean").to_numpy(float)
        found = mean - mean[:, [1]]
        # The standard error of a mean of three is 0.002 / sqrt(3), of a difference sqrt(2) that.
        error = factor * 0.002 * np.sqrt(2 / 3)
        assert np.abs(found - factor * np.array(EXCESS)).max() < 3.5 * error
    np.testing.assert_array_equal(frame["p_holm"] >= frame["p"], True)
    assert (frame[frame["contrast"] == INIT]["p_holm"] < 0.05).any()


def test_interval_is_that_of_seed_differences(flows):
    layers = by_layer(flows)
    sigma = layers["mrpc"].spectrum().sigma_per_seed["paper"][:, 0]
    null = layers["mrpc"].null_spectrum("init").sigma_per_seed["paper"][:, 0]
    expected: Any = stats.ttest_1samp(sigma - null, 0)
    frame = differences(layers, ci_level=0.9)
    row = frame.query("contrast == @INIT and task == 'mrpc' and block == 'layer0'").iloc[0]
    assert row["p"] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.9)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))


def test_distance_moved_is_that_of_all_blocks(flows):
    """Two blocks that moved by 3 of 10 and 4 of 20: by 5 of the root of 500."""
    key = {"seed": 0, "level": 0, "block": ["a", "b"]}
    distance = pd.DataFrame(key | {"observable": "distance", "value": [3.0, 4.0]})
    relative = pd.DataFrame(key | {"observable": "relative_distance", "value": [0.3, 0.2]})
    other = distance.assign(observable="kurtosis")
    observables = pd.concat([distance, relative, other])
    moved = {"rte": dataclasses.replace(flows["rte"], observables=observables)}
    table = exponents(by_layer(moved), ci_level=0.95)
    tasks = task_frame(table, differences(by_layer(moved), ci_level=0.95), moved)
    assert tasks["moved"].item() == pytest.approx(5 / np.sqrt(500))
    assert (tasks["metric_dense"].item(), tasks["metric_last"].item()) == (80, 71)


def test_spread_tells_tasks_from_seeds(tmp_path, flows):
    same = between_tasks(by_layer(flows))
    assert (same["p_holm"] > 0.05).all()
    other = write_tasks(tmp_path, rte=(0.0,), mrpc=(0.03,), wnli=(0.0,))
    found = between_tasks(by_layer(read_tasks(other)))
    assert found["p_holm"][0] < 0.001
    assert found["spread"][0] == pytest.approx(0.02, abs=0.005)  # 0.03, less its share
    one = {"rte": flows["rte"]}
    assert between_tasks(by_layer(one))["p"].isna().all()


def make_rows(means, half_widths, p_holm):
    return pd.DataFrame(
        {
            "contrast": INIT,
            "task": "rte",
            "block": [f"layer{i}" for i in range(len(means))],
            "mean": means,
            "low": np.array(means) - half_widths,
            "high": np.array(means) + half_widths,
            "p_holm": p_holm,
        }
    )


@pytest.mark.parametrize(
    ("half_widths", "p_holm", "expected", "counts"),
    [
        ([0.005, 0.005], [0.01, 0.9], "differs", (1, 1)),
        ([0.005, 0.005], [0.2, 0.9], "by chance", (1, 0)),
        ([0.05, 0.005], [0.2, 0.9], "not shown", (0, 0)),
        ([np.nan, np.nan], [np.nan, np.nan], "unknown", (0, 0)),
    ],
)
def test_verdict_follows_the_intervals(half_widths, p_holm, expected, counts):
    rows = make_rows([0.01, 0.0], half_widths, p_holm)
    assert verdict(rows) == expected
    (row,) = contrast_frame(rows).to_dict("records")
    assert (row["num_beyond"], row["num_holm"]) == counts and row["largest"] == 0.01
    if expected != "unknown":
        assert row["bound"] == pytest.approx(0.01 + half_widths[0])
    said = verdict_sentence(rows, pd.DataFrame({"sigma": [0.1, 0.0]}))
    assert said.startswith(VERDICTS[expected])
    assert ("differences is 1 % of that of sigma" in said) == (expected != "unknown")  # 0.1^2


def test_page_and_tables(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    layers = [f"layer{i}" for i in range(3)]
    values = {"cka": [0.9, 0.8, 0.7], "cka_first": 0.5, "attention": [np.nan, 0.4, 0.6]}
    key = {"task": "rte", "weights": "pretrained", "seed": 0, "layer": layers}
    write_csv(tmp_path / "rte" / "similarity.csv", pd.DataFrame(key | values))
    report(tmp_path, Study("language_flow", quiet=True))
    for name in ("table3", "kinds", "differences", "tasks", "spread", "similarity", "likeness"):
        assert len(read_csv(tmp_path / f"{name}.csv")) > 0, name
    for name in ("sigma", "differences", "kinds", "likeness"):
        assert (tmp_path / "figures" / f"{name}.svg").is_file()
    assert VERDICTS["differs"] in (tmp_path / "report.html").read_text(encoding="utf-8")
    table = read_csv(tmp_path / "table3.csv")
    shown = table3(table)  # three layers are not twelve: nothing of the paper's
    assert list(shown["task"]) == ["rte", "mrpc", "wnli", "init null", "oneshot null"]
    row = table.query("task == 'mrpc' and block == 'layer0'").to_dict("records")[0]
    half_width = float(str(shown.loc[1, "layer0"]).split(" ± ")[1])
    assert half_width == pytest.approx(row["high"] - row["sigma"], rel=0.05)


def test_page_is_a_function_of_the_folder(folder, tmp_path):
    """Without kinds and likeness it leaves their sections out."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    write_tables(tmp_path, by_layer(read_tasks(tmp_path)), ci_level=0.95)
    figures = "sigma_by_layer", "differences_by_block"
    with (
        mock.patch.multiple(page.plots, **dict.fromkeys(figures, mock.DEFAULT)),
        mock.patch.object(page, "save_figure"),
    ):
        made = make_page(tmp_path)
    titles = [section.title for section in made.sections if section.title]
    assert "By kind of matrix" not in titles and len(titles) == 5
    tables: Any = {section.title: section.table for section in made.sections}
    assert len(tables["Do tasks share their exponents?"]) == 3
    assert list(tables["Was anything learned?"]["at the last level (%)"]) == 3 * ["71.0"]
    stars = tables["What learning adds: differences within each seed"]
    assert stars["layer0"].str.endswith("*").any()
    assert made.answers[1] == "How far the weights move was not recorded."


def test_runs_by_layer_have_no_kinds(flows):
    assert by_kind(by_layer(flows)) is None
    kinds = by_kind(flows)
    assert kinds is not None
    assert list(exponents(kinds, ci_level=0.95)["block"].unique()) == list(KINDS)


def test_published_rows_stand_beside_twelve_layers():
    table = pd.DataFrame({"task": "rte", "block": [f"layer{i}" for i in range(12)]})
    published = published_frame(table)
    assert published is not None
    rte = published[published["task"] == "RTE"].set_index("block")["sigma"]
    assert (rte["layer0"], rte["layer11"]) == (-0.058, 0.006)
    assert published_frame(table.iloc[:6]) is None


def test_unfinished_tasks_and_single_seeds_are_named(tmp_path):
    write_task(tmp_path / "rte", seeds=1)
    write_task(tmp_path / "mrpc", finished=False)
    write_json(tmp_path / "config.json", {"tasks": ["rte", "mrpc", "wnli"]})
    assert list(read_tasks(tmp_path)) == ["rte"]
    write_tables(tmp_path, read_tasks(tmp_path), ci_level=0.95)
    with mock.patch.object(page, "_figures"):
        made = make_page(tmp_path)
    assert made.sections[-1].text[0] == "Not finished and left out: mrpc, wnli."
    assert made.answers[0].startswith(VERDICTS["unknown"])
    assert made.answers[2].startswith("One task, or one seed")


def test_runs_that_do_not_belong_together(tmp_path):
    with pytest.raises(ValueError, match="must hold a finished run folder of a task, got"):
        read_tasks(tmp_path)
    write_task(tmp_path / "mrpc")
    write_task(tmp_path / "rte", num_layers=2)
    with pytest.raises(ValueError, match="rte: must have the blocks and levels of mrpc"):
        read_tasks(tmp_path)
