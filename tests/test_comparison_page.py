"""The page of a comparison says what its tables say, and no more than the seeds allow."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from comparison_folder import deeper_run, three_runs, write_comparison_folder
from page_text import cells_of, skip_figures, text_of
from planted_runs import SHIFT, SIGMA, planted_run, two_classes
from run_folder import write_run_folder

from imp_rg.report.compare_page import write_comparison_report
from imp_rg.report.compare_verdict import (
    answers,
    classes,
    comparison_caveats,
    pair_frame,
    prediction,
)
from imp_rg.rg import compare_exponents
from imp_rg.runs.comparison_tables import (
    RunEntry,
    block_difference_frame,
    comparison_frame,
    read_comparison,
    write_comparison,
)
from imp_rg.runs.paper_tables import paper_comparison, write_paper_comparison


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Two runs of one class and one of another, five seeds each, with masks and notes."""
    folder = tmp_path_factory.mktemp("three")
    overlap = np.array([[1, 0.3, 0.02], [0.3, 1, 0.01], [0.02, 0.01, 1]])
    note = "Mean test accuracy stays within 1 point of dense."
    comparison = write_comparison_folder(folder, three_runs(), notes=[note], mask_overlap=overlap)
    return folder, comparison, write_comparison_report(folder).read_text("utf-8")


def tables_of(folder, runs, **settings):
    write_comparison_folder(folder, runs, **settings)
    return read_comparison(folder)


@pytest.fixture
def undrawn(monkeypatch, tmp_path):
    skip_figures(monkeypatch, tmp_path)


def pair_of(tables, run_a, run_b):
    rows = pair_frame(tables).to_dict("records")
    return next(row for row in rows if (row["run_a"], row["run_b"]) == (run_a, run_b))


def kinds_of(tables):
    return [caveat.kind for caveat in comparison_caveats(tables)]


def test_comparison_csv_has_a_row_per_pair_and_measure(three):
    folder, comparison, _ = three
    frame = pd.read_csv(folder / "comparison.csv")
    assert list(frame.columns) == [
        "run_a", "run_b", "measure", "matched_by", "distance", "distance_se", "p", "p_smallest",
        "p_holm", "p_holm_smallest", "verdict", "class_a", "class_b",
    ]  # fmt: skip
    assert len(frame) == 3 * 5
    assert not frame.duplicated(["run_a", "run_b", "measure"]).any()
    row = frame.query("run_a == 'digits-a' and run_b == 'cifar10' and measure == 'sigma'").iloc[0]
    assert row["distance"] == comparison.distance["sigma"][0, 2]
    assert row["distance_se"] == comparison.distance_se["sigma"][0, 2]
    assert row["p"] == row["p_smallest"] == 2 / 252
    assert row["p_holm"] == comparison.p_holm["sigma"][0, 2]
    assert (row["verdict"], row["class_a"], row["class_b"]) == ("different", 1, 2)


def test_block_differences(three):
    folder, comparison, _ = three
    frame = pd.read_csv(folder / "comparison_blocks.csv")
    assert len(frame) == 3 * 3 * 6  # pairs, sigma and two excesses, blocks
    runs = comparison.runs
    of_pair = frame.query("run_a == 'digits-a' and run_b == 'cifar10' and measure == 'sigma'")
    want = runs[0].sigma.mean(axis=0) - runs[2].sigma.mean(axis=0)
    np.testing.assert_allclose(of_pair["difference"], want)
    assert list(of_pair["block"]) == list(runs[0].blocks)
    assert (of_pair["ci_low"] < of_pair["difference"]).all()
    assert (of_pair[["num_seeds_a", "num_seeds_b"]] == 5).all(axis=None)


def test_undecided_classes_are_empty_cells(tmp_path):
    comparison = write_comparison_folder(tmp_path, three_runs(3))
    assert comparison_frame(comparison)["class_a"].isna().all()
    assert pd.read_csv(tmp_path / "comparison.csv")["class_b"].isna().all()
    assert [run["class"] for run in read_comparison(tmp_path).runs] == [None] * 3


def test_json_is_json(tmp_path):
    write_comparison_folder(tmp_path, three_runs(1))

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads((tmp_path / "comparison.json").read_text(), parse_constant=refuse)
    assert content["runs"][0]["exponents"]["ci_low"] == [None] * 6
    assert content["linkage_measure"] == "distance"


def test_entries_must_be_those_of_the_comparison(tmp_path):
    comparison = compare_exponents(three_runs())
    with pytest.raises(ValueError, match="^runs: must be .*'digits-b', 'cifar10'.* in this order"):
        write_comparison(tmp_path, comparison, [RunEntry("other", "", "")])
    assert not (tmp_path / "comparison.json").exists()


def test_page_holds_everything(three):
    folder, _, page = three
    for name in ("digits-a", "digits-b", "cifar10"):
        assert f'<a href="{name}/report.html">{name}</a>' in page
    assert [row[-1] for row in cells_of(page, "runs")[1:]] == [
        f"resnet14, planted, {name}" for name in ("digits-a", "digits-b", "cifar10")
    ]
    assert re.findall(r'id="figure-(\w+)"', page) == ["tree", "profiles", "distances"]
    for name in ("tree", "profiles", "distances"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 2000
    assert 'src="http' not in page and "Published numbers" not in page
    assert page.count("<summary>") == 1 + 3  # every measure, and the blocks of each pair


def test_classes_and_answers(three):
    tables = read_comparison(three[0])
    assert classes(tables) == {1: ["digits-a", "digits-b"], 2: ["cifar10"]}
    first, counts, transfer = answers(tables)
    assert "2 universality classes (class 1: digits-a, digits-b; class 2: cifar10)" in first
    assert counts == "Of 3 pairs: 2 different, 1 not told apart."
    assert "unproven" in transfer and all(text in text_of(three[2]) for text in answers(tables))


def test_page_is_a_pure_function_of_the_folder(three):
    folder, _, page = three
    assert write_comparison_report(folder).read_text("utf-8") == page


def test_page_shows_the_numbers_of_the_tables(three):
    folder, _, page = three
    frame = pd.read_csv(folder / "comparison.csv").query("measure == 'sigma'")
    _, *cells = cells_of(page, "pairs")
    assert [c[0] for c in cells] == [f"{r.run_a}, {r.run_b}" for r in frame.itertuples()]
    np.testing.assert_allclose([float(c[1]) for c in cells], frame["distance"], atol=5e-4)
    np.testing.assert_allclose([float(c[2]) for c in cells], frame["distance_se"], atol=0.05)
    assert [c[3] for c in cells] == [f"{r.p:.3f} ({r.p_smallest:.3f})" for r in frame.itertuples()]
    np.testing.assert_allclose([float(c[4]) for c in cells], frame["p_holm"], atol=5e-4)
    assert [c[5] for c in cells] == list(frame["verdict"])
    assert [c[6] for c in cells] == ["yes", "no", "no"]


def test_pairs_by_hand(three):
    tables = read_comparison(three[0])
    row = pair_of(tables, "digits-a", "cifar10")
    blocks = tables.blocks.query(
        "run_a == 'digits-a' and run_b == 'cifar10' and measure == 'sigma'"
    )
    largest = blocks.iloc[int(blocks["difference"].abs().argmax())]
    columns = ["largest", "largest_low", "largest_high", "largest_block"]
    assert [row[column] for column in columns] == list(
        largest[["difference", "ci_low", "ci_high", "block"]]
    )
    assert row["num_blocks"] == 6
    assert row["num_apart"] == ((blocks["ci_low"] > 0) | (blocks["ci_high"] < 0)).sum()
    assert row["bound"] == blocks[["ci_low", "ci_high"]].abs().to_numpy().max()
    # The planted excess is the same in all runs, and counts follow sigma.
    assert row["verdict_excess_init"] == "not told apart"
    assert row["verdict_param_share"] == "different"
    assert pair_of(tables, "digits-a", "digits-b")["verdict"] == "not told apart"


@pytest.mark.parametrize(("num_seeds", "smallest", "has_interval"), [(3, 0.1, True), (1, 1, False)])
def test_few_seeds(tmp_path, undrawn, num_seeds, smallest, has_interval):
    rng = np.random.default_rng(0)
    runs = [planted_run(rng, "a", num_seeds=num_seeds)]
    runs.append(planted_run(rng, "b", SIGMA + 9 * SHIFT, num_seeds=num_seeds))
    tables = tables_of(tmp_path, runs)
    row = pair_of(tables, "a", "b")
    assert (row["verdict"], row["prediction"]) == ("no verdict", "none")
    assert row["p_smallest"] == pytest.approx(smallest)
    assert np.isfinite(row["largest"]) and np.isfinite(row["bound"]) == has_interval
    assert "few seeds" in kinds_of(tables) and classes(tables) == {0: ["a", "b"]}
    first, last = answers(tables)
    assert "cannot be decided" in first and "4 seeds in every run would do" in first
    assert "No prediction" in last
    page = write_comparison_report(tmp_path).read_text("utf-8")
    assert [row[1] for row in cells_of(page, "runs")[1:]] == ["undecided"] * 2
    assert ("[" in cells_of(page, "differences")[1][1]) == has_interval


def test_many_pairs(tmp_path):
    tables = tables_of(tmp_path, two_classes(np.random.default_rng(1)))
    assert "many pairs" in kinds_of(tables)
    assert "smallest possible p is 0.36; 7 seeds in every run would do" in answers(tables)[0]
    assert pair_of(tables, "a0", "b0")["p_holm_smallest"] == pytest.approx(0.36, abs=0.005)
    assert len(pair_frame(tables)) == 45


def test_one_class_is_no_proof_of_sameness(tmp_path):
    rng = np.random.default_rng(2)
    tables = tables_of(tmp_path, [planted_run(rng, name) for name in "ab"])
    assert "no proof that they are the same (class 1: a, b)" in answers(tables)[0]
    page = write_comparison_report(tmp_path).read_text("utf-8")
    assert 'id="figure-tree"' not in page and page.index("figure-profiles") < page.index("<h2>")


def test_caveats_appear_when_the_data_say_so(three, tmp_path):
    tables = read_comparison(three[0])
    assert kinds_of(tables) == ["control", "excess", "excess", "run", "run", "run"]
    control, init, gaussian, *_ = (caveat.text for caveat in comparison_caveats(tables))
    assert "in 3 of 3 pairs" in control
    assert "the init null" in init and "the gaussian null" in gaussian
    assert "digits-a and cifar10; digits-b and cifar10" in init
    rng = np.random.default_rng(3)
    shorter = planted_run(rng, "short", density=0.8 ** np.arange(5))
    mixed = tables_of(tmp_path, [planted_run(rng, "a"), deeper_run(rng, "deep"), shorter])
    assert {"profile", "densities"} <= set(kinds_of(mixed))
    assert pair_of(mixed, "a", "deep")["matched_by"] == "profile"
    assert pair_of(mixed, "a", "short")["matched_by"] != "profile"
    write_comparison_report(tmp_path)


def test_loose_pairs_are_named_and_not_predicted(three):
    """A pair of two classes that is not told apart: said, and no prediction made of it."""
    tables = read_comparison(three[0])
    is_pair = (tables.pairs["run_a"] == "digits-b") & (tables.pairs["run_b"] == "cifar10")
    tables.pairs.loc[is_pair & (tables.pairs["measure"] == "sigma"), "verdict"] = "not told apart"
    loose = [c.text for c in comparison_caveats(tables) if c.kind == "loose"]
    assert len(loose) == 1 and "digits-b and cifar10" in loose[0]
    rows = [prediction(row) for row in tables.of("sigma").to_dict("records")]
    assert rows == ["yes", "no", "none"]


def test_measures_of_one_run_alone_are_left_out(tmp_path, undrawn):
    rng = np.random.default_rng(4)
    a, b = planted_run(rng, "a"), planted_run(rng, "b")
    comparison = compare_exponents([a, b._replace(excess={})], mask_overlap=np.full((2, 2), np.nan))
    assert set(block_difference_frame(comparison)["measure"]) == {"sigma"}
    tables = tables_of(tmp_path, [a, b._replace(excess={})])
    assert tables.measures == ["sigma", "param_share"]
    assert "excess" not in kinds_of(tables)
    assert pair_of(tables, "a", "b")["verdict_excess_init"] == "no verdict"
    write_comparison_report(tmp_path)


def test_names_are_escaped(tmp_path, undrawn):
    rng = np.random.default_rng(5)
    write_comparison_folder(tmp_path, [planted_run(rng, name) for name in ("<b>a", "b & c", "d")])
    page = write_comparison_report(tmp_path).read_text("utf-8")
    assert "<b>a" not in page and "&lt;b&gt;a" in page


def test_published_numbers_on_the_page(tmp_path, undrawn):
    folder = tmp_path / "comparison"
    write_comparison_folder(folder, three_runs())
    run = write_run_folder(tmp_path / "run")
    spectrum = pd.read_csv(run / "spectrum.csv")
    found = paper_comparison(spectrum, run="digits-a", density=(0.8 ** np.arange(13)).tolist())
    write_paper_comparison(folder, [found])
    page = write_comparison_report(folder).read_text("utf-8")
    rows = [row[:4] for row in cells_of(page, "paper")[1:]]
    assert ["digits-a", "Tables 4 to 6, ResNet-14", "trained", "3 of 3"] in rows
    assert ["digits-a", "Tables 4 to 6, ResNet-14", "init null", "3 of 3"] in rows
    assert "the first block of each stage is left out" in page


@pytest.mark.parametrize(
    "name", ["comparison.json", "environment.json", "comparison.csv", "comparison_blocks.csv"]
)
def test_missing_files_are_named(tmp_path, name):
    write_comparison_folder(tmp_path, three_runs())
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"^folder: must hold {name}"):
        write_comparison_report(tmp_path)
