"""The page tells the truth: numbers are those of spectrum.csv, caveats those of the data."""

import dataclasses
import html
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from run_folder import write_run_folder

from imp_rg.report import lead_columns, lead_rows, write_report
from imp_rg.report.caveats import caveats
from imp_rg.report.published_beside import agreement, answer, published_for
from imp_rg.report.run_tables import read_tables
from imp_rg.report.words import block_list, level_list, percent_text

MAIN = {
    "quantity": "magnitude_share",
    "point": "trained",
    "denominator": "prunable",
    "estimator": "paper",
}


def main_rows(folder):
    spectrum = pd.read_csv(folder / "spectrum.csv")
    is_main = (spectrum[list(MAIN)] == pd.Series(MAIN)).all(axis=1)
    return spectrum[is_main].set_index("block")


def page_of(folder):
    return write_report(folder).read_text("utf-8")


def cells_of(page, table_id):
    """Cells of every row of one table, tags removed."""
    body = re.search(rf'<table id="{table_id}">(.*?)</table>', page, re.S)
    assert body is not None
    rows = [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)
        for row in re.findall(r"<tr[^>]*>(.*?)</tr>", body.group(1), re.S)
    ]
    return [[html.unescape(re.sub(r"<[^>]*>", " ", cell)).strip() for cell in row] for row in rows]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = write_run_folder(tmp_path_factory.mktemp("run"))
    return folder, page_of(folder)


def test_lead_table_shows_the_numbers_of_the_spectrum(page):
    folder, text = page
    head, *rows = cells_of(text, "lead")
    assert tuple(head) == lead_columns(pd.read_csv(folder / "spectrum.csv"))
    want = main_rows(folder)
    assert [row[0] for row in rows] == list(want.index)
    columns = ["sigma", "ci_low", "ci_high"]
    for null in ("init", "oneshot"):
        columns += [f"sigma_{null}", f"excess_{null}", f"excess_{null}_low", f"excess_{null}_high"]
    for row in rows:
        shown = [float(x) for cell in row[1:-1] for x in re.findall(r"[+-]\d+\.\d+", cell)]
        np.testing.assert_allclose(shown, want.loc[row[0], columns].astype(float), atol=5.01e-4)


def test_lead_rows_feed_page_and_terminal_alike(page):
    folder, text = page
    rows = lead_rows(pd.read_csv(folder / "spectrum.csv"))
    shown = [[re.sub(r"\s+", " ", cell) for cell in row] for row in cells_of(text, "lead")[1:]]
    assert shown == [list(row.cells) for row in rows]


def lead_row(sigma=0.2, half=0.1, init=(0.1, 0.3), oneshot=(0.1, 0.3)):
    row = {**MAIN, "block": "a", "sigma": sigma, "ci_low": sigma - half, "ci_high": sigma + half}
    low = row["ci_low"]
    row["relevance"] = (
        "undetermined" if np.isnan(low) else "relevant" if low > 0
        else "irrelevant" if row["ci_high"] < 0 else "marginal"
    )  # fmt: skip
    for null, (a, b) in {"init": init, "oneshot": oneshot}.items():
        ends = {f"excess_{null}_low": a, f"excess_{null}_high": b}
        row |= {f"sigma_{null}": 0.0, f"excess_{null}": (a + b) / 2, **ends}
    return lead_rows(pd.DataFrame([row]))[0]


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "relevant; above both nulls"),
        ({"sigma": -0.2}, "irrelevant; above both nulls"),
        ({"sigma": 0.0}, "marginal; above both nulls"),
        ({"init": (-0.3, -0.1)}, "relevant; below init, above oneshot"),
        ({"init": (-0.1, 0.1), "oneshot": (-0.1, 0.1)}, "relevant; as both nulls"),
        ({"half": np.nan}, "undetermined: no interval from one seed"),
        ({"sigma": np.nan}, "no exponent: the share vanishes or no seed finished"),
    ],
)
def test_verdict(changes, verdict):
    assert lead_row(**changes).verdict == verdict


@pytest.fixture(scope="module")
def clean_folder(tmp_path_factory):
    """Six seeds, an excess everywhere, a task that pruning harms a little."""
    return write_run_folder(tmp_path_factory.mktemp("clean"), num_seeds=6)


@pytest.fixture
def clean(clean_folder):
    """Its tables, with the chance rejections of the curvature test taken out."""
    tables = read_tables(clean_folder)
    tables.spectrum["curvature_p"] = 0.5
    tables.spectrum[["window_first", "window_last"]] = [0.0, 12.0]
    return tables


def kinds(tables):
    return {caveat.kind for caveat in caveats(tables)}


def edited(tables, **columns):
    """Sets columns of the spectrum, for block stage2/block0 only."""
    spectrum = tables.spectrum.copy()
    for column, value in columns.items():
        spectrum.loc[spectrum["block"] == "stage2/block0", column] = value
    return dataclasses.replace(tables, spectrum=spectrum)


def test_a_clean_run_has_one_caveat_only(clean):
    assert kinds(clean) == {"lost accuracy"}


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ({"curvature_p": 0.049}, "curvature"),
        ({"curvature_p": 0.051}, None),
        ({"window_first": 1.0}, "window"),
        ({"window_last": 11.0}, "window"),
        ({"window_first": np.nan, "window_last": np.nan}, "no window"),
        ({"excess_init_low": -0.001, "excess_init_high": 0.2}, "excess init"),
        ({"excess_init_low": 0.001, "excess_init_high": 0.2}, None),
        ({"excess_init_low": -0.2, "excess_init_high": -0.001}, None),
        ({"excess_oneshot_low": -0.2, "excess_oneshot_high": 0.001}, "excess oneshot"),
        ({"sigma": np.nan}, "no exponent"),
        ({"curvature_p": np.nan}, "untested"),
    ],
)
def test_a_block_is_named_when_and_only_when_its_numbers_say_so(clean, columns, kind):
    found = caveats(edited(clean, **columns))
    assert {caveat.kind for caveat in found} - {"lost accuracy"} == ({kind} if kind else set())
    assert all("stage2/block0" in c.text for c in found if c.kind == kind)
    assert not any("stage1" in c.text for c in found)


@pytest.mark.parametrize(
    ("loss", "kind"), [(0.99, "saturated"), (1.01, "lost accuracy"), (5.0, "lost accuracy")]
)
def test_accuracy_lost_or_saturated(clean, loss, kind):
    metrics = clean.metrics.assign(test_metric=98.0)
    metrics.loc[metrics["level"] == 7, "test_metric"] = 98.0 - loss
    tables = dataclasses.replace(clean, metrics=metrics)
    assert kinds(tables) == {kind}
    text = caveats(tables)[0].text
    assert ("at level 7, at most by" in text) == (kind == "lost accuracy")


@pytest.mark.parametrize(
    ("num_seeds", "kind", "words"),
    [
        (1, "no interval", "One seed"),
        (2, "few seeds", "quantile 12.71"),
        (3, "few seeds", "quantile 4.30"),
        (4, "few seeds", "quantile 3.18"),
        (5, None, ""),
    ],
)
def test_seeds(tmp_path, num_seeds, kind, words):
    folder = write_run_folder(tmp_path, num_seeds=num_seeds)
    found = {c.kind: c.text for c in caveats(read_tables(folder))}
    assert found.keys() & {"no interval", "few seeds"} == ({kind} if kind else set())
    assert kind is None or words in found[kind]


def test_one_seed_is_never_classified_and_odd_names_are_escaped(tmp_path):
    folder = write_run_folder(tmp_path, num_seeds=1, dataset="npz:<b>&.npz")
    page = page_of(folder)
    assert "npz:&lt;b&gt;&amp;.npz" in page and "<b>&.npz" not in page
    assert all("undetermined" in row[-1] for row in cells_of(page, "lead")[1:])
    assert all(row[2] == "–" for row in cells_of(page, "lead")[1:])
    assert "no block can be classified" in answer(read_tables(folder))[0]


def test_stopped_replicate_is_named_and_left_out(tmp_path):
    folder = write_run_folder(tmp_path, stopped_seeds=(1,))
    found = {c.kind: c.text for c in caveats(read_tables(folder))}
    assert found["stopped"].startswith("Seed 1 met a non-finite loss at level 3")
    assert "2 seeds are few" in found["few seeds"]
    assert "Seed 1 met a non-finite loss" in page_of(folder)


def test_collapsed_layer_is_named(tmp_path):
    folder = write_run_folder(tmp_path, collapsed_block="stage3/block1")
    found = [c.text for c in caveats(read_tables(folder)) if c.kind == "collapsed"]
    assert len(found) == 3
    assert (
        "collapse from level 10 on (density 11 %). No weight is left in stage3/block1."
        in (found[0])
    )
    row = cells_of(page_of(folder), "lead")[6]
    assert row[:3] == ["stage3/block1", "–", "–"] and row[-1].startswith("no exponent")


@pytest.mark.parametrize("stops_at", [0, 1, 3])
def test_report_when_every_replicate_stopped(tmp_path, stops_at):
    folder = write_run_folder(tmp_path, stopped_seeds=(0, 1, 2), stops_at=stops_at)
    page = page_of(folder)
    assert "No seed reached the last level" in page
    assert "No block has an exponent" in page


def test_27_blocks(tmp_path):
    folder = write_run_folder(tmp_path, depth=56, num_levels=16)
    page = page_of(folder)
    assert len(cells_of(page, "lead")) == 1 + 28
    assert len(cells_of(page, "published")) == 1 + 24
    assert "many blocks" in kinds(read_tables(folder))
    for figure in folder.glob("figures/*.png"):
        assert figure.stat().st_size < 300_000, figure.name


def test_page_needs_nothing_else(page):
    _, text = page
    assert "http" not in text
    assert not re.findall(r"<(script|link|iframe)", text)
    sources = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\')]{0,40})', text)
    assert len(sources) == 6
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)


def test_report_is_a_pure_function_of_the_folder(page):
    folder, text = page
    names = ("sigma", "flow", "shares", "running", "density", "metric")
    files = [folder / "figures" / f"{name}.{end}" for name in names for end in ("png", "svg")]
    before = [file.read_bytes() for file in files]
    assert page_of(folder) == text
    assert [file.read_bytes() for file in files] == before


def test_published_numbers_stand_beside_ours(page):
    folder, text = page
    rows = cells_of(text, "published")[1:]
    assert [row[:2] for row in rows] == [
        ["stage1/block1", "+0.23"],
        ["stage2/block1", "+0.10"],
        ["stage3/block1", "-0.21"],
    ]
    sigma = main_rows(folder)["sigma"]
    assert [row[2] for row in rows] == [f"{sigma[row[0]]:+.3f}" for row in rows]
    assert "dataset digits / cifar10" in re.sub(r"\s+", " ", text)
    assert "batch_size 64 / 128" in re.sub(r"\s+", " ", text)
    assert "learning_rate 0.1 /" not in re.sub(r"\s+", " ", text)


def test_no_published_numbers_for_other_models(clean):
    assert published_for(clean) is not None
    other = dataclasses.replace(clean, config=clean.config | {"model": "lenet300-100"})
    assert published_for(other) is None


def test_agreement():
    blocks = list("abcd")
    ours = pd.Series([0.3, 0.1, -0.2, np.nan], blocks)
    theirs = pd.Series([0.2, -0.1, -0.5, 1.0], blocks)
    got = agreement(ours, theirs)
    assert (got.num_blocks, got.num_same_sign, got.largest_block) == (3, 2, "c")
    assert got.rank_correlation == pytest.approx(1)
    assert got.largest == pytest.approx(0.3)
    assert np.isnan(agreement(ours[:2], theirs[:2]).rank_correlation)


def test_answer_counts_what_the_table_says(clean):
    rows = clean.listed()
    text = " ".join(answer(clean))
    for kind in ("relevant", "irrelevant"):
        assert f" {(rows['relevance'] == kind).sum()} {kind} (" in text
    same = (np.sign(rows["sigma"]) == np.sign(rows["sigma_init"])).sum()
    assert f"same sign in {same} of {len(rows)}" in text
    flipped = edited(clean, sigma_init=-0.5)
    assert f"same sign in {same - 1} of {len(rows)}" in " ".join(answer(flipped))


@pytest.mark.parametrize(
    "name", ["config.json", "environment.json", "flow.csv", "null_flow.csv", "metrics.csv",
             "spectrum.csv"]
)  # fmt: skip
def test_a_missing_file_is_named(clean_folder, tmp_path, name):
    shutil.copytree(clean_folder, tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    with pytest.raises(ValueError, match=rf"folder: must hold {name}"):
        write_report(tmp_path / "run")


def test_lists_in_words():
    assert block_list(["stage1/block0", "stage1/block2", "stage2/block0", "head"]) == (
        "stage1: block0, block2; stage2/block0; head"
    )
    assert level_list([3, 7, 8, 9, 12]) == "3, 7 to 9, 12"
    assert [percent_text(x) for x in (1, 0.5120, 0.0687, 0.0092)] == [
        "100 %", "51 %", "6.9 %", "0.92 %",
    ]  # fmt: skip
