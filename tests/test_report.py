"""The page tells the truth: numbers are those of spectrum.csv, caveats those of the data."""

import dataclasses
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from page_text import cells_of, skeleton, skip_figures
from run_folder import write_run_folder

from imp_rg.report.caveats import caveats
from imp_rg.report.lead import lead_frame, lead_table, verdict
from imp_rg.report.paper import paper_sections
from imp_rg.report.run_page import make_page, write_report
from imp_rg.report.verdict import answers, run_verdict
from imp_rg.report.words import block_list, level_list, percent_text
from imp_rg.runs.agreement import agreement
from imp_rg.runs.paper_tables import differing_settings, published_for
from imp_rg.runs.run_tables import read_tables

SKELETON = """
h1: IMP flow: resnet14 on digits
answer: Of 6 blocks: 4 relevant (their share grows); 2 irrelevant (their share shrinks). | \
Signs alone are no evidence of learning: the rewind weights, pruned without any training, have the \
same sign in 6 of 6. | The excess over the nulls differs from zero in 6 of 6 over init and in 6 of \
6 over oneshot.
figure: sigma
table: block | sigma | init null | excess over init | oneshot null | excess over oneshot | verdict
h2: What limits this result
h2: Checks
h2: More figures
figure: flow
figure: shares
figure: running
figure: density
figure: metric
h2: Published numbers beside ours
table: run | paper | measured | same sign | rank correlation | distance
table: block | sigma, here | init null, here | oneshot null, here | paper, ResNet-14
fold: Every published row, measured every way
table: run | paper | measured | same sign | rank correlation | distance | of
fold: Sigma by other estimators, points and denominators
table: block | M, trained / prunable, paper | M, trained / prunable, slope | \
M, trained / prunable, absolute | M, trained / prunable, logratio | M, trained / blocks, paper | \
M, trained / all, paper | P, trained / prunable, paper | P, trained / prunable, slope | \
P, trained / prunable, absolute | P, trained / prunable, logratio | M, rewound / prunable, paper | \
M, rewound / blocks, paper | M, rewound / all, paper | P, rewound / prunable, paper | \
M, postprune / prunable, paper | M, postprune / blocks, paper | M, postprune / all, paper | \
P, postprune / prunable, paper
fold: All nulls, and the excess over each
table: block | gaussian | over gaussian | init | over init | oneshot | over oneshot | random | \
over random
fold: Is it an exponential?
table: block | mean lambda | its relative standard error over levels | curvature p | \
scaling window (levels) | sigma in it (selected) | sigma, all levels
fold: Settings
table: setting | value
h2: Environment
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = write_run_folder(tmp_path_factory.mktemp("run"))
    return folder, write_report(folder).read_text("utf-8")


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


@pytest.fixture
def undrawn(monkeypatch, tmp_path):
    skip_figures(monkeypatch, tmp_path)


def edited(tables, **columns):
    """Sets columns of the spectrum, for block stage2/block0 only."""
    spectrum = tables.spectrum.copy()
    for column, value in columns.items():
        spectrum.loc[spectrum["block"] == "stage2/block0", column] = value
    return dataclasses.replace(tables, spectrum=spectrum)


def kinds(tables):
    return {caveat.kind for caveat in caveats(tables)}


def test_golden_page(page):
    assert skeleton(page[1]) == SKELETON.strip().splitlines()


def test_words_and_tables_load_without_matplotlib():
    modules = ("page", "columns", "lead", "caveats", "verdict", "run_page", "compare_page")
    code = f"import sys, {', '.join(f'imp_rg.report.{name}' for name in modules)}\n"
    code += "sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_lead_table_shows_the_numbers_of_the_spectrum(page):
    folder, text = page
    spectrum = pd.read_csv(folder / "spectrum.csv")
    frame = lead_frame(spectrum)
    is_lead = (spectrum["quantity"] == "magnitude_share") & (spectrum["point"] == "trained")
    is_lead &= (spectrum["denominator"] == "prunable") & (spectrum["estimator"] == "paper")
    want = spectrum[is_lead].set_index("block")
    assert list(frame["block"]) == list(want.index)
    columns = ["sigma", "ci_low", "ci_high"]
    for null in ("init", "oneshot"):
        columns += [f"sigma_{null}", f"excess_{null}", f"excess_{null}_low", f"excess_{null}_high"]
    head, *rows = cells_of(text, "lead")
    assert head == list(lead_table(frame).columns)
    for row in rows:
        shown = [float(x) for cell in row[1:-1] for x in re.findall(r"[+-]\d+\.\d+", cell)]
        np.testing.assert_allclose(shown, want.loc[row[0], columns].astype(float), atol=5.01e-4)


def lead_row(sigma=0.2, half=0.1, init=(0.1, 0.3), oneshot=(0.1, 0.3)):
    low, high = sigma - half, sigma + half
    row = {
        "quantity": "magnitude_share", "point": "trained", "denominator": "prunable",
        "estimator": "paper", "block": "a", "sigma": sigma, "ci_low": low, "ci_high": high,
        "relevance": "undetermined" if np.isnan(low) else "relevant" if low > 0
        else "irrelevant" if high < 0 else "marginal",
    }  # fmt: skip
    for null, (a, b) in {"init": init, "oneshot": oneshot}.items():
        ends = {f"excess_{null}_low": a, f"excess_{null}_high": b}
        row |= {f"sigma_{null}": 0.0, f"excess_{null}": (a + b) / 2, **ends}
    (found,) = lead_frame(pd.DataFrame([row])).to_dict("records")
    return {str(name): value for name, value in found.items()}


@pytest.mark.parametrize(
    ("changes", "sides", "words"),
    [
        ({}, ("above", "above"), "relevant; above both nulls"),
        ({"sigma": -0.2}, ("above", "above"), "irrelevant; above both nulls"),
        ({"sigma": 0.0}, ("above", "above"), "marginal; above both nulls"),
        ({"init": (-0.3, -0.1)}, ("below", "above"), "relevant; below init, above oneshot"),
        ({"init": (-1, 1), "oneshot": (-1, 1)}, ("as", "as"), "relevant; as both nulls"),
        (
            {"half": np.nan, "init": (np.nan,) * 2},
            ("unknown", "above"),
            "undetermined: no interval from one seed",
        ),
        (
            {"sigma": np.nan},
            ("above", "above"),
            "no exponent: the share vanishes or no seed finished",
        ),
    ],
)
def test_lead_verdict(changes, sides, words):
    row = lead_row(**changes)
    assert (row["side_init"], row["side_oneshot"]) == sides
    assert verdict(row) == words


def test_verdict_counts_what_the_table_says(clean):
    rows = clean.listed()
    found = run_verdict(clean)
    assert found.classes == {"relevant": 4, "irrelevant": 2}
    assert found.classes["relevant"] == (rows["relevance"] == "relevant").sum()
    assert found.num_same_sign == (np.sign(rows["sigma"]) == np.sign(rows["sigma_init"])).sum()
    assert found.beyond == {"init": 6, "oneshot": 6}
    other = run_verdict(
        edited(clean, sigma_init=-0.5, excess_oneshot_low=-0.1, excess_oneshot_high=0.1)
    )
    assert (found.num_same_sign, other.num_same_sign) == (6, 5)
    assert other.beyond == {"init": 6, "oneshot": 5}


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
        ({"excess_init_low": -0.001, "excess_init_high": 0.2}, "as null"),
        ({"excess_init_low": 0.001, "excess_init_high": 0.2}, None),
        ({"excess_init_low": -0.2, "excess_init_high": -0.001}, None),
        ({"excess_oneshot_low": -0.2, "excess_oneshot_high": 0.001}, "as null"),
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
    (caveat,) = caveats(dataclasses.replace(clean, metrics=metrics))
    assert caveat.kind == kind
    assert ("at level 7, by" in caveat.text) == (kind == "lost accuracy")


@pytest.mark.parametrize(
    ("num_seeds", "kind", "words"),
    [
        (1, "no interval", "one seed"),
        (2, "few seeds", "12.71"),
        (3, "few seeds", "4.30"),
        (4, "few seeds", "3.18"),
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
    page = write_report(folder).read_text("utf-8")
    assert "npz:&lt;b&gt;&amp;.npz" in page and "<b>&.npz" not in page
    assert all(row[-1].startswith("undetermined") for row in cells_of(page, "lead")[1:])
    assert not any("[" in row[1] for row in cells_of(page, "lead")[1:])
    found = run_verdict(read_tables(folder))
    assert not found.has_intervals and found.classes == {"undetermined": 6}
    assert "no block is classified" in answers(found)[0]


def test_what_stopped_or_collapsed_is_named_and_left_out(tmp_path):
    folder = write_run_folder(tmp_path, stopped_seeds=(1,), collapsed_block="stage3/block1")
    found = caveats(read_tables(folder))
    by_kind = {caveat.kind: caveat.text for caveat in found}
    assert by_kind["stopped"].startswith("seed 1 met a non-finite loss at level 3")
    assert by_kind["few seeds"].startswith("2, ")
    collapsed = [c.text for c in found if c.kind == "collapsed"]
    assert [text[:6] for text in collapsed] == ["seed 0", "seed 2"]
    assert "left in stage3/block1, from level 10 on (density 11 %)" in collapsed[0]
    page = write_report(folder).read_text("utf-8")
    assert cells_of(page, "lead")[6][:2] == ["stage3/block1", "–"]
    assert cells_of(page, "lead")[6][-1].startswith("no exponent") and by_kind["stopped"] in page


@pytest.mark.parametrize("stops_at", [0, 1])
def test_report_when_every_replicate_stopped(tmp_path, stops_at):
    folder = write_run_folder(tmp_path, stopped_seeds=(0, 1, 2), stops_at=stops_at)
    write_report(folder)
    tables = read_tables(folder)
    assert run_verdict(tables).classes == {"no exponent": 6}
    assert "no seed reached" in {c.kind: c.text for c in caveats(tables)}["no interval"]


def test_27_blocks(tmp_path):
    tables = read_tables(write_run_folder(tmp_path, depth=56, num_levels=16))
    assert len(lead_frame(tables.spectrum)) == 28
    paper = published_for(tables)
    assert paper is not None and len(paper.blocks) == 24
    assert "many blocks" in kinds(tables)


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
    assert write_report(folder).read_text("utf-8") == text
    assert [file.read_bytes() for file in files] == before


def test_published_numbers_stand_beside_ours(clean):
    found = published_for(clean)
    assert found is not None and set(found.rows["row"]) == {"ResNet-14"}
    table = paper_sections(found)[1].table
    assert table is not None
    assert list(table["block"]) == ["stage1/block1", "stage2/block1", "stage3/block1"]
    assert list(table["paper, ResNet-14"]) == ["+0.23", "+0.10", "-0.21"]
    sigma = clean.exponents().set_index("block")["sigma"]
    assert [x.split(" ")[0] for x in table["sigma, here"]] == [
        f"{sigma[block]:+.3f}" for block in table["block"]
    ]
    differing = differing_settings(clean)
    assert differing["dataset"] == ("digits", "cifar10") and differing["batch_size"] == (64, 128)
    assert "learning_rate" not in differing


def test_no_published_numbers_for_other_models(clean_folder, clean, undrawn):
    other = dataclasses.replace(clean, config=clean.config | {"model": "lenet300-100"})
    assert published_for(other) is None and differing_settings(other) == {}
    names = [section.name for section in make_page(clean_folder).sections]
    assert "paper" in names and names.index("limits") < names.index("paper")


def test_agreement():
    blocks = list("abcd")
    ours = pd.Series([0.3, 0.1, -0.2, np.nan], blocks)
    theirs = pd.Series([0.2, -0.1, -0.5, 1.0], blocks)
    got = agreement(ours, theirs)
    assert (got.num_blocks, got.num_same_sign, got.largest_block) == (3, 2, "c")
    assert got.rank_correlation == pytest.approx(1)
    assert got.largest == pytest.approx(0.3)
    assert got.rms == pytest.approx(np.sqrt((0.1**2 + 0.2**2 + 0.3**2) / 3))
    assert np.isnan(agreement(ours[:2], theirs[:2]).rank_correlation)


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
