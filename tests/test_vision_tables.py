"""Findings and page of a vision experiment: planted exponents come back, verdicts follow them."""

import shutil

import numpy as np
import pandas as pd
import pytest
from vision_folder import STAGES, write_cells

from experiments.studies.vision.findings import (
    ALL,
    HELD,
    NOT_DECIDED,
    NOT_HELD,
    SIGNS_CLAIM,
    change_frame,
    claim_frame,
    decide,
    distance_by_seed,
    distance_frame,
    pairs,
    sigma_frame,
    write_findings,
)
from experiments.studies.vision.page import lead_table, make_page
from experiments.studies.vision.read import init_text, measure, read_runs, start_of
from imp_rg import published
from imp_rg.runs.files import read_csv, read_json, write_json

SCRATCH, FROM_C100, FROM_C10 = "scratch", "supervised:cifar100", "supervised:cifar10"
C10, C100 = (0.15, 0.12, 0.05, -0.30), (0.13, 0.16, 0.04, -0.06)
PT = (0.14, 0.13, 0.03, -0.12)
INIT = (0.20, 0.10, 0.05, -0.10)
SHORT = {"levels": 4, "init_null": INIT}
WEAK = SHORT | {"accuracy": (70.0, 60.0)}
CLOSER = {
    ("cifar10", SCRATCH): (C10, SHORT | {"noise": 0.01}),
    ("cifar10", FROM_C100): (PT, SHORT | {"noise": 0.01}),
    ("cifar100", SCRATCH): (C100, WEAK | {"noise": 0.01}),
    ("cifar100", FROM_C10): (PT, WEAK | {"noise": 0.01}),
}


def measured(folder, cells):
    found, missing = read_runs(write_cells(folder, cells))
    return [x for cell in found for x in measure(cell, ci_level=0.95)], missing


def of(frame, **values):
    for column, value in values.items():
        frame = frame[frame[column] == value]
    return frame


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Pre-training brings two tasks together; the init null is the same for all."""
    found, _ = measured(tmp_path_factory.mktemp("closer"), CLOSER)
    changes = change_frame(found, ci_level=0.95)
    return {
        "sigma": pd.concat([sigma_frame(x, ci_level=0.95) for x in found], ignore_index=True),
        "distances": distance_frame(found, ci_level=0.95),
        "changes": changes,
        "claims": claim_frame(found, changes, ci_level=0.95),
    }


def test_planted_sigma_comes_out_in_both_windows(tmp_path):
    (whole, later), _ = measured(tmp_path, {("cifar10", SCRATCH): (C10, SHORT)})
    assert (whole.window, later.window) == ("0-4", "1-4")
    for window in (whole, later):
        table = sigma_frame(window, ci_level=0.95)
        assert list(table["block"]) == list(STAGES)
        # Densities of whole weights differ from powers of 0.8 in the fifth digit.
        np.testing.assert_allclose(table["sigma"], C10, atol=2e-4)
        np.testing.assert_allclose(table["sigma_init"], INIT, atol=2e-4)
        np.testing.assert_allclose(table["excess_init"], np.subtract(C10, INIT), atol=2e-4)
        np.testing.assert_allclose(table["published"], published.rows(2)[0].values)


def test_windows_take_their_own_levels(tmp_path):
    """A step at the first pruning is in one mean and not in the other."""
    folder = write_cells(tmp_path, {("cifar10", SCRATCH): (C10, SHORT)})
    path = folder / "cifar10--scratch" / "flow.csv"
    flow = pd.read_csv(path)
    is_dense = (flow["level"] == 0) & (flow["block"] == "stage1")
    flow.loc[is_dense, ["magnitude", "share_all"]] /= 1.25**4
    flow.to_csv(path, index=False)
    (cell,), _ = read_runs(folder)
    whole, later = (sigma_frame(x, ci_level=0.95)["sigma"][0] for x in measure(cell, ci_level=0.95))
    assert later == pytest.approx(C10[0], abs=2e-4)
    total = 1 - 0.05 * (1 - 0.8**4)  # of all shares at level 0, where stage1 has 0.05
    assert whole - later == pytest.approx(1 + np.log(total) / (4 * np.log(1.25)), abs=2e-4)


@pytest.mark.parametrize(
    ("task", "dense", "is_withheld"),
    [
        ("cifar10", 85.0, False),
        ("cifar10", 84.9, True),
        ("cifar100", 55.0, False),
        ("cifar100", 54.9, True),
        ("cifar10+balanced=10000", 84.9, True),
        ("svhn_cropped", 20.0, False),
    ],
)
def test_verdict_is_withheld_below_the_floor(tmp_path, task, dense, is_withheld):
    settings = SHORT | {"accuracy": (dense, 50.0), "levels": 2}
    found, _ = measured(tmp_path, {(task, SCRATCH): (C10, settings)})
    table = sigma_frame(found[0], ci_level=0.95)
    assert table["sigma"].notna().all()
    floor = {"cifar10": "withheld: dense accuracy below 85 %"}.get(
        task.split("+")[0], "withheld: dense accuracy below 55 %"
    )
    assert table["verdict"].eq(floor).all() == is_withheld
    assert table["verdict"].str.startswith(("relevant", "irrelevant")).all() != is_withheld
    claims = claim_frame(found, change_frame(found, ci_level=0.95), ci_level=0.95)
    ours = of(claims, source="sigma", claim=SIGNS_CLAIM, window="0-2").iloc[0]
    assert (ours["verdict"] == HELD) != is_withheld and ours["found"] == HELD
    null = of(claims, source="init null", claim=SIGNS_CLAIM, window="0-2").iloc[0]
    assert null["verdict"] == HELD  # never trained, needs no accuracy


def test_published_rows_are_those_of_table_2(tables):
    of_stage4 = of(tables["sigma"], block="stage4", window="0-4")
    rows = {row.row: row.values[3] for row in published.rows(2)}
    assert list(of_stage4["published_row"]) == [
        "CIFAR-10",
        "PT CIFAR-10",
        "CIFAR-100",
        "PT CIFAR-100",
    ]
    assert list(of_stage4["published"]) == [rows[row] for row in of_stage4["published_row"]]


def test_distance_shrinks_where_it_was_planted(tables):
    change = of(tables["changes"], window="0-4", block=ALL).set_index("measure")
    apart = np.sqrt(np.mean(np.subtract(C10, C100) ** 2))
    assert change.loc["sigma", "scratch"] == pytest.approx(apart, abs=0.02)
    assert change.loc["sigma", "found"] == HELD and change.loc["sigma", "low"] > 0
    assert change.loc["init", "change"] == 0 and change.loc["init", "found"] == NOT_DECIDED
    assert change.loc["beyond_init", "change"] == pytest.approx(change.loc["sigma", "change"])
    closer = of(tables["claims"], window="0-4")
    closer = closer[closer["claim"].str.contains("shrinks")].set_index("source")["found"]
    assert closer["sigma"] == HELD and closer["init null"] == NOT_DECIDED


def test_distance_does_not_shrink_where_it_was_not(tmp_path):
    """Scatter of the seeds makes distances, never a change of them."""
    same = {key: (C10, settings) for key, (_, settings) in CLOSER.items()}
    found, _ = measured(tmp_path, same)
    changes = of(change_frame(found, ci_level=0.95), window="0-4")
    assert (changes["found"] == NOT_DECIDED).all() and len(changes) == 2 * 10
    distances = of(distance_frame(found, ci_level=0.95), window="0-4", measure="sigma")
    assert (distances["distance"] > 0).all() and (distances["low"] >= 0).all()


def test_what_the_init_null_does_is_not_counted_as_beyond(tmp_path):
    """Sigma follows its null: closer, but not beyond it."""
    cells = {key: (s, settings | {"init_null": s}) for key, (s, settings) in CLOSER.items()}
    found, _ = measured(tmp_path, cells)
    change = of(change_frame(found, ci_level=0.95), window="0-4", block=ALL).set_index("measure")
    found = change["found"]
    assert found["init"] == found["sigma"] == HELD
    assert found["beyond_init"] == NOT_DECIDED


def test_distance_by_seed_averages_to_the_distance():
    difference = pd.DataFrame(np.random.default_rng(0).standard_normal((5, 4)))
    expected = np.sqrt(np.mean(difference.mean() ** 2))
    assert distance_by_seed(difference).mean() == pytest.approx(expected)
    assert (distance_by_seed(0 * difference + 1e-16) == 0).all()


@pytest.mark.parametrize(
    ("low", "high", "signs", "found"),
    [
        ([0.1, -0.3], [0.2, -0.1], (1, -1), HELD),
        ([0.1, -0.3], [0.2, 0.1], (1, -1), NOT_DECIDED),
        ([-0.2, -0.3], [-0.1, 0.1], (1, -1), NOT_HELD),
        ([np.nan], [np.nan], (1,), NOT_DECIDED),
        ([0.0], [0.0], (1,), NOT_DECIDED),
    ],
)
def test_claims_need_every_interval(low, high, signs, found):
    assert decide(low, high, signs) == found


def test_pairs(tmp_path):
    found, _ = measured(tmp_path / "four", {key: (C10, SHORT) for key in CLOSER})
    names = [(p.between, *(run.name for run in p.runs), p.a.window) for p in pairs(found)]
    expected = [
        ("inits", "cifar10, scratch", "cifar10, supervised:cifar100"),
        ("tasks", "cifar10, scratch", "cifar100, scratch"),
        ("tasks", "cifar10, supervised:cifar100", "cifar100, supervised:cifar10"),
        ("inits", "cifar100, scratch", "cifar100, supervised:cifar10"),
    ]
    assert names == [(*name, window) for window in ("0-4", "1-4") for name in expected]
    more = {("svhn_cropped", init): (C10, SHORT) for init in (SCRATCH, FROM_C10, "a/moco.pth")}
    found, _ = measured(tmp_path / "more", {key: (C10, SHORT) for key in CLOSER} | more)
    couples = [tuple(run.name for run in p.runs) for p in pairs(found)]
    crossed = [couple for couple in couples if couple[1].startswith("svhn_cropped")]
    assert ("cifar100, supervised:cifar10", "svhn_cropped, supervised:cifar10") in crossed
    assert ("cifar10, supervised:cifar100", "svhn_cropped, supervised:cifar10") in crossed
    assert not any("moco" in b for a, b in crossed if a.startswith("cifar"))


def test_names_of_inits():
    assert [start_of(x) for x in ("scratch", "moco:digits", "a/b.pth")] == [
        "scratch",
        "moco",
        "a/b.pth",
    ]
    assert init_text("a/b.pth") == "b.pth" and init_text("moco:digits") == "moco:digits"


def test_page_names_what_is_missing(tmp_path):
    suffix = "+balanced=100"
    cells = {
        (f"cifar10{suffix}", SCRATCH): (C10, WEAK),
        (f"cifar10{suffix}", f"supervised:cifar100{suffix}"): (PT, WEAK),
        (f"cifar100{suffix}", SCRATCH): (C100, SHORT),
        (f"cifar100{suffix}", f"supervised:cifar10{suffix}"): (PT, SHORT),
        ("svhn_cropped", SCRATCH): (PT, SHORT | {"finished": False}),
        ("svhn_cropped", "moco.pth"): None,
    }
    write_findings(write_cells(tmp_path, cells))
    page = make_page(tmp_path)
    assert page.answers[0].startswith("No sigma verdict for cifar10 from scratch, cifar10 from ")
    sections = {section.title: section for section in page.sections}
    limits = sections["What limits this"].items
    assert "Not finished and left out: svhn_cropped, scratch; svhn_cropped, moco.pth." in limits
    assert any("parts of their data sets, +balanced=100," in limit for limit in limits)
    links = dict(sections["The runs"].links)  # to the folders, whose names stay whole
    folder = "cifar10+balanced=100--scratch"
    assert links[f"cifar10{suffix}, scratch"] == f"{folder}/report.html"
    table = lead_table(tmp_path)
    assert table["sigma"][0] == f"cifar10{suffix} from scratch"  # the page leaves it out
    shown = sections["Sigma by task and start (the paper's Table 2)"].table
    assert shown is not None and shown["sigma"][0] == "cifar10 from scratch"
    assert list(shown["stage1"][:2]) == ["+0.150 ± 0.000", "+0.200"]
    assert shown["verdict"][0] == "withheld: dense accuracy below 85 %"
    assert shown["verdict"][5] == "withheld: dense accuracy below 85 %"
    for name in ("sigma", "distances", "changes", "claims", "accuracy"):
        assert len(read_csv(tmp_path / f"{name}.csv")) > 0, name
    for name in ("flow", "sigma", "distances", "accuracy"):
        assert (tmp_path / "figures" / f"{name}.svg").is_file()
    accuracy = read_csv(tmp_path / "accuracy.csv")
    assert accuracy["accuracy"].iloc[0] == pytest.approx(70.0)
    assert accuracy["sd"].iloc[0] == pytest.approx(1.0)


def test_one_cell_of_other_blocks_and_one_seed(tmp_path):
    names = ("stage1/block0", "stage1/block1", "stage2/block0", "stage2/block1")
    settings = {"levels": 1, "seeds": 1, "blocks": names}
    folder = write_cells(tmp_path, {("digits", SCRATCH): (C10, settings)})
    write_findings(folder)
    page = make_page(folder)
    titles = [section.title for section in page.sections]
    assert not any("claim" in title for title in titles)
    assert any("One seed gives no interval" in x for s in page.sections for x in s.items)
    sigma = read_csv(folder / "sigma.csv")
    assert list(sigma["window"].unique()) == ["0-1"] and sigma["published"].isna().all()
    assert read_csv(folder / "distances.csv").empty and read_csv(folder / "claims.csv").empty


def test_folders_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="must hold config.json with a list of runs"):
        read_runs(tmp_path)
    folder = write_cells(tmp_path, {("digits", SCRATCH): None})
    with pytest.raises(ValueError, match="must hold a finished run folder, got 0"):
        read_runs(folder)
    listed = read_json(folder / "config.json")
    write_json(folder / "config.json", {"experiment": "vision"})
    with pytest.raises(ValueError, match="must hold a finished run folder"):
        read_runs(folder)
    assert listed["cells"][0]["mode"] == "rewind_lt"
    shutil.rmtree(folder)
