"""The page of a comparison says what its tables say, and no more than the seeds allow."""

import html
import json
import re

import numpy as np
import pandas as pd
import pytest
from comparison_folder import deeper_run, three_runs, write_comparison_folder
from planted_runs import SHIFT, SIGMA, planted_run, two_classes
from run_folder import write_run_folder

from imp_rg.report.compare_folder import read_comparison
from imp_rg.report.compare_page import write_comparison_report
from imp_rg.report.compare_words import answer, comparison_caveats, pair_sentence, prediction
from imp_rg.report.paper import paper_comparison, write_paper_comparison
from imp_rg.rg import compare_exponents
from imp_rg.runs.comparison_tables import (
    RunEntry,
    block_difference_frame,
    comparison_frame,
    write_comparison,
)


def text_of(page):
    body = re.sub(r"<style>.*?</style>|data:image[^\"]*", " ", page, flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", body)))


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
    text = text_of(page)
    assert "The runs fall into 2 universality classes" in text
    assert "(class 1: digits-a, digits-b; class 2: cifar10)" in text
    assert "unproven" in text and "has not been shown here to predict transfer" in text
    for name in ("digits-a", "digits-b", "cifar10"):
        assert f'<a href="{name}/report.html">{name}</a>' in page
        assert f"resnet14, planted, {name}" in text
    assert re.findall(r'id="figure-(\w+)"', page) == ["tree", "profiles", "distances"]
    for name in ("tree", "profiles", "distances"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 2000
    assert 'src="http' not in page and "Published numbers" not in text


def test_page_is_a_pure_function_of_the_folder(three):
    folder, _, page = three
    assert write_comparison_report(folder).read_text("utf-8") == page


def test_page_shows_the_numbers_of_the_tables(three):
    folder, _, page = three
    frame = pd.read_csv(folder / "comparison.csv").query("measure == 'sigma'")
    table = re.search(r'<table id="pairs">(.*?)</table>', page, re.S)
    assert table is not None
    rows = re.findall(r"<tr>\s*<td>(.*?)</td></tr>", table.group(1), re.S)
    cells = [re.split(r"</td>\s*<td>", row) for row in rows]
    assert [c[0] for c in cells] == [f"{r.run_a}, {r.run_b}" for r in frame.itertuples()]
    np.testing.assert_allclose([float(c[1]) for c in cells], frame["distance"], atol=5e-4)
    np.testing.assert_allclose([float(c[2]) for c in cells], frame["distance_se"], atol=0.05)
    np.testing.assert_allclose([float(c[4]) for c in cells], frame["p_holm"], atol=5e-4)
    assert [c[5] for c in cells] == list(frame["verdict"])


def test_pair_sentences(three):
    tables = read_comparison(three[0])
    text = pair_sentence(tables, "digits-a", "cifar10")
    assert text.startswith(
        "digits-a and cifar10 flow differently (p = 0.0079, 0.024 after correction for 3 pairs)."
    )
    blocks = tables.blocks.query(
        "run_a == 'digits-a' and run_b == 'cifar10' and measure == 'sigma'"
    )
    largest = blocks.loc[blocks["difference"].abs().idxmax()]
    assert (
        f"{largest['difference']:+.3f} [{largest['ci_low']:+.3f}, {largest['ci_high']:+.3f}]"
        in text
    )
    assert f"in {largest['block']}" in text
    # The planted excess is the same in all runs, and counts follow sigma.
    assert "After the init null is taken off, they are not told apart" in text
    assert "by counts of surviving weights alone (P profile), they are different" in text
    same = pair_sentence(tables, "digits-a", "digits-b")
    assert same.startswith("digits-a and digits-b cannot be told apart (p = ")
    assert "allows differences up to" in same and "null" not in same


@pytest.mark.parametrize(
    "num_seeds, begins, has_interval",
    [
        (3, "No verdict on a and b: 3 against 3 seeds could not give a p-value below 0.1 ", True),
        (1, "No verdict on a and b: 1 against 1 seed could not give a p-value below 1 ", False),
    ],
)
def test_few_seeds_in_words(tmp_path, num_seeds, begins, has_interval):
    rng = np.random.default_rng(0)
    runs = [planted_run(rng, "a", num_seeds=num_seeds)]
    runs.append(planted_run(rng, "b", SIGMA + 9 * SHIFT, num_seeds=num_seeds))
    tables = tables_of(tmp_path, runs)
    text = pair_sentence(tables, "a", "b")
    assert text.startswith(begins)
    assert ("one seed gives no interval" in text) != has_interval
    assert "few seeds" in kinds_of(tables)
    first, last = answer(tables)
    assert "cannot be decided" in first and "4 seeds in every run would do" in first
    assert "No prediction" in last
    page = text_of(write_comparison_report(tmp_path).read_text("utf-8"))
    assert "predicted:" not in page and "undecided" in page


def test_many_pairs_in_words(tmp_path):
    tables = tables_of(tmp_path, two_classes(np.random.default_rng(1)))
    assert "many pairs" in kinds_of(tables)
    assert "smallest possible p-value is 0.36. 7 seeds in every run would do" in answer(tables)[0]
    assert "among 45 pairs could not give an adjusted p-value below 0.36" in pair_sentence(
        tables, "a0", "b0"
    )
    page = write_comparison_report(tmp_path).read_text("utf-8")
    assert "Each pair in words" in page and page.count('class="sentence"') == 45


def test_one_class_is_no_proof_of_sameness(tmp_path):
    rng = np.random.default_rng(2)
    tables = tables_of(tmp_path, [planted_run(rng, name) for name in "ab"])
    assert "That is no proof that they are the same (class 1: a, b)" in answer(tables)[0]
    page = write_comparison_report(tmp_path).read_text("utf-8")
    assert 'id="figure-tree"' not in page and page.index("figure-profiles") < page.index("<h2>")


def test_caveats_appear_when_the_data_say_so(three, tmp_path):
    tables = read_comparison(three[0])
    assert kinds_of(tables) == [
        "control", "excess init", "excess gaussian", "run", "run", "run",
    ]  # fmt: skip
    control = comparison_caveats(tables)[0].text
    assert "gives the same verdict in 3 of 3 pairs" in control
    rng = np.random.default_rng(3)
    shorter = planted_run(rng, "short", density=0.8 ** np.arange(5))
    mixed = tables_of(tmp_path, [planted_run(rng, "a"), deeper_run(rng, "deep"), shorter])
    assert {"profile", "densities"} <= set(kinds_of(mixed))
    assert "compared at equal relative depth" in pair_sentence(mixed, "a", "deep")
    assert "relative depth" not in pair_sentence(mixed, "a", "short")
    write_comparison_report(tmp_path)


def test_loose_pairs_are_named_and_not_predicted(three):
    """A pair of two classes that is not told apart: said, and no prediction made of it."""
    tables = read_comparison(three[0])
    is_pair = (tables.pairs["run_a"] == "digits-b") & (tables.pairs["run_b"] == "cifar10")
    tables.pairs.loc[is_pair & (tables.pairs["measure"] == "sigma"), "verdict"] = "not told apart"
    loose = [c.text for c in comparison_caveats(tables) if c.kind == "loose"]
    assert len(loose) == 1 and "digits-b and cifar10" in loose[0]
    rows = [prediction(row) for row in tables.of("sigma").to_dict("records")]
    assert rows == ["predicted: yes", "predicted: no", "no prediction"]


def test_measures_of_one_run_alone_are_left_out(tmp_path):
    rng = np.random.default_rng(4)
    a, b = planted_run(rng, "a"), planted_run(rng, "b")
    comparison = compare_exponents([a, b._replace(excess={})], mask_overlap=np.full((2, 2), np.nan))
    assert set(block_difference_frame(comparison)["measure"]) == {"sigma"}
    write_comparison_folder(tmp_path, [a, b._replace(excess={})])
    assert read_comparison(tmp_path).measures == ["sigma", "param_share"]
    assert "excess" not in " ".join(kinds_of(read_comparison(tmp_path)))
    write_comparison_report(tmp_path)


def test_names_are_escaped(tmp_path):
    rng = np.random.default_rng(5)
    write_comparison_folder(tmp_path, [planted_run(rng, name) for name in ("<b>a", "b & c", "d")])
    page = write_comparison_report(tmp_path).read_text("utf-8")
    assert "<b>a" not in page and "&lt;b&gt;a" in page


def test_published_numbers_on_the_page(tmp_path):
    folder = tmp_path / "comparison"
    write_comparison_folder(folder, three_runs())
    run = write_run_folder(tmp_path / "run")
    spectrum = pd.read_csv(run / "spectrum.csv")
    found = paper_comparison(spectrum, run="digits-a", density=0.8 ** np.arange(13))
    write_paper_comparison(folder, [found])
    text = text_of(write_comparison_report(folder).read_text("utf-8"))
    assert "digits-a beside ResNet-14 (Tables 4 to 6): same sign in 3 of 3 blocks" in text
    assert "The first block of each stage is left out of the tables" in text


@pytest.mark.parametrize(
    "name", ["comparison.json", "environment.json", "comparison.csv", "comparison_blocks.csv"]
)
def test_missing_files_are_named(tmp_path, name):
    write_comparison_folder(tmp_path, three_runs())
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"^folder: must hold {name}"):
        write_comparison_report(tmp_path)
