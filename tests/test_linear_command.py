"""`python -m experiments.linear`: a run in, the linear flow of its groups of blocks out."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from run_folder import write_run_folder
from scipy.integrate import solve_ivp
from scipy.linalg import helmert

from experiments import linear
from experiments.shell import cli
from experiments.studies.linear.findings import (
    TRAINED,
    findings,
    fit_run,
    linear_frame,
    read_fit,
    stability,
)
from experiments.studies.linear.groups import group_blocks, group_shares
from experiments.studies.linear.page import eigenvalues, lead_tables, limits, make_page
from imp_rg.plots.linear import linear_plane, linear_prediction
from imp_rg.runs import read
from imp_rg.runs.files import read_json

RESULTS = Path(linear.__file__).parent / "results"
B = np.array([0.2, -0.1])
G = np.array([[-0.5, 0.3], [-0.2, -0.3]])
STAGES = ("stage1", "stage2", "stage3")
START = np.array([[0.4, -0.3], [-0.5, 0.1], [0.2, 0.6], [-0.1, -0.5]])


def planted_shares(time, start):
    """Shares of three stages along dz/dl = B + G z, integrated numerically."""
    done = solve_ivp(
        lambda _, z: B + G @ z, (0, time[-1]), start, t_eval=time, rtol=1e-11, atol=1e-12
    )
    shares = np.exp(done.y.T @ helmert(3))
    return shares / shares.sum(axis=-1, keepdims=True)


def plant(folder, *, num_seeds=3, num_levels=13):
    """A run folder whose trained stages follow the planted flow, split 0.7 to 0.3; one null."""
    write_run_folder(folder, num_seeds=num_seeds, num_levels=num_levels)
    frame = pd.read_csv(folder / "flow.csv")
    time = -np.log(frame.groupby("level")["density"].first().to_numpy())
    shares = np.stack([planted_shares(time, START[s]) for s in range(num_seeds)])
    for i, stage in enumerate(STAGES):
        for block, part in (("block0", 0.7), ("block1", 0.3)):
            is_row = (frame["point"] == "trained") & (frame["block"] == f"{stage}/{block}")
            values = part * shares[frame["seed"][is_row], frame["level"][is_row], i]
            frame.loc[is_row, "magnitude"], frame.loc[is_row, "share_all"] = values, values / 2
    frame.to_csv(folder / "flow.csv", index=False)
    nulls = pd.read_csv(folder / "null_flow.csv")
    nulls[nulls["null"] == "init"].to_csv(folder / "null_flow.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return plant(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def reported(planted, tmp_path_factory):
    """The folder that the command fills."""
    out = tmp_path_factory.mktemp("linear") / "out"
    flags = [str(planted), "--without-rest", "--out", str(out)]
    assert linear.run(cli.parse(linear.PRESETS, flags, prog="linear")) == out
    return out


def select(folder, quantity, source="trained"):
    table = pd.read_csv(folder / "linear.csv")
    return table[(table["quantity"] == quantity) & (table["source"] == source)]


def fit(folder, *, nulls=(), without_rest=True):
    """The fit of a folder, and of these of its nulls only: each takes its time."""
    flow = read(folder)
    kept = {name: flow.trajectory.nulls[name] for name in nulls}
    flow = dataclasses.replace(flow, trajectory=flow.trajectory._replace(nulls=kept))
    return fit_run(flow, "stage", without_rest=without_rest, ci_level=0.95)


@pytest.fixture(scope="module")
def fitted(reported):
    """As the page reads it."""
    return read_fit(reported)


def test_planted_flow_comes_back_from_disk(reported):
    np.testing.assert_allclose(select(reported, "G")["value"], G.ravel(), atol=1e-6)
    np.testing.assert_allclose(select(reported, "b")["value"], B, atol=1e-6)
    low, high = select(reported, "G")[["low", "high"]].to_numpy().T
    assert np.all((low < G.ravel() + 1e-6) & (G.ravel() - 1e-6 < high))
    values = np.linalg.eigvals(G)
    np.testing.assert_allclose(select(reported, "eigenvalue_real")["value"], values.real, atol=1e-6)
    imag = select(reported, "eigenvalue_imag")["value"]
    np.testing.assert_allclose(np.sort(imag), np.sort(values.imag), atol=1e-6)
    fixed = np.exp(helmert(3).T @ -np.linalg.solve(G, B))
    np.testing.assert_allclose(
        select(reported, "fixed_point")["value"], fixed / fixed.sum(), atol=1e-6
    )
    assert list(select(reported, "fixed_point")["of"]) == list(STAGES)
    assert select(reported, "one_step")["value"].item() < 1e-6
    assert select(reported, "one_step_diagonal")["value"].item() > 0.01
    assert set(pd.read_csv(reported / "linear.csv")["source"]) == {"trained", "init"}


def test_the_page_answers(reported):
    found = read_json(reported / "findings.json")
    assert found["reasons"] == [] and found["stability"] == "attracting"
    assert found["cross_terms_help"] and not found["misfit"]["is_misfit"]
    assert (found["null"], found["num_complete"], found["num_entries"]) == ("init", 3, 4)
    assert found["outside"] == ["stage3"]
    page = make_page(reported)
    assert page.answers[0].startswith("b and G are identified: 36 transitions of 3 seeds for 6")
    assert "-0.40 ± 0.22i [-0.40, -0.40]" in page.answers[3] and "attracting" in page.answers[3]
    leads = lead_tables(reported)
    assert list(leads["Eigenvalues of G"]["eigenvalue"])[:1] == ["-0.40 ± 0.22i"]
    sections = {section.title: section for section in page.sections}
    assert len(sections["The flow"].figures) == 2
    coupling: Any = sections["b and G"].table
    assert list(coupling.columns[1:]) == [
        "b",
        "G on stage1 over stage2",
        "G on stage1 to stage2 over stage3",
    ]
    assert coupling.iloc[0, 2].startswith("-0.50 [")
    assert {path.name for path in (reported / "figures").glob("*.png")} == {
        "plane.png",
        "prediction.png",
    }
    assert page.answers[0] in (reported / "report.html").read_text()
    assert (reported / "environment.json").is_file()


def test_too_many_groups_are_not_identified(planted, tmp_path):
    linear.run(linear.Config(run=planted, out=tmp_path))
    (reason,) = read_json(tmp_path / "findings.json")["reasons"]
    assert reason == "36 transitions of all seeds for 12 parameters, 60 are needed"
    said = make_page(tmp_path).answers
    assert said[0].startswith(f"b and G are not identified: {reason}")
    assert "attracting" not in " ".join(said)
    verdicts = lead_tables(tmp_path)["Prediction error (root mean square, log-ratio coordinates)"]
    assert set(verdicts["verdict"]) == {"not identified"}
    assert not (tmp_path / "figures" / "plane.png").exists()
    assert list(select(tmp_path, "visited")["of"]) == [*STAGES, "rest"]


def test_one_seed_has_no_interval(tmp_path):
    folder = plant(tmp_path / "run", num_seeds=1, num_levels=31)
    out = linear.run(linear.Config(run=folder, without_rest=True, out=tmp_path / "out"))
    np.testing.assert_allclose(select(out, "G")["value"], G.ravel(), atol=1e-6)
    assert select(out, "G")[["low", "high"]].isna().all(axis=None)
    found = read_json(out / "findings.json")
    assert found["misfit"] is None and found["stability"] == "of open stability"
    assert found["beside_null"] == "unknown"
    (value,) = eigenvalues(pd.read_csv(out / "linear.csv"), TRAINED)
    assert value["text"] == "-0.40 ± 0.22i" and np.isnan(value["real"].low)
    assert "met, not predicted" in make_page(out).answers[1]


def test_without_a_null_that_is_said(planted):
    found = findings(fit(planted))
    assert (found["null"], found["beside_null"]) == (None, "no null")


def test_two_levels_are_not_identified(tmp_path):
    found = findings(fit(plant(tmp_path / "run", num_levels=2)))
    assert found["reasons"][0].startswith("3 transitions of all seeds for 6 parameters")


def test_seeds_that_stopped_are_left_out(tmp_path):
    result = fit(write_run_folder(tmp_path, stopped_seeds=(1,)))
    found = findings(result)
    assert len(result.fits[TRAINED].shares) == found["num_complete"] == 2
    assert found["num_seeds"] == 3 and result.laws[TRAINED].num_transitions == 24
    assert any(text.startswith("1 of 3 seeds left out") for text in limits(found, {"ridge": 0}))


def test_fit_comes_back_from_disk(planted, fitted):
    before = fit(planted).fits[TRAINED]
    assert fitted.groups == before.groups
    for name in ("time", "shares", "b", "G", "fixed_point"):
        np.testing.assert_array_equal(getattr(fitted, name), getattr(before, name))


def test_figures_draw_the_seeds_and_the_law(fitted):
    np.testing.assert_allclose(fitted.predicted(), fitted.z, atol=1e-6)
    missed = fitted.predicted_diagonal() - fitted.z
    assert np.abs(missed[:, 0]).max() < 1e-12 and np.abs(missed).max() > 0.1
    axes = linear_prediction(fitted).axes
    for i, axis in enumerate(axes):
        drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axis.lines}
        np.testing.assert_allclose(drawn["mean of seeds"], fitted.shares[..., i].mean(axis=0))
        mean = np.exp(fitted.z.mean(axis=0) @ fitted.basis.T)
        mean = mean[:, i] / mean.sum(axis=1)
        np.testing.assert_allclose(drawn["linear flow from level 0"], mean, atol=1e-6)
        assert np.abs(drawn["diagonal model (G = 0)"] - mean).max() > 1e-3
    (axis,) = linear_plane(fitted).axes
    drawn = {str(line.get_label()): np.column_stack(line.get_data()) for line in axis.lines}
    np.testing.assert_allclose(drawn["seeds"], fitted.z[-1])
    np.testing.assert_allclose(drawn["fixed point"][0], -np.linalg.solve(G, B), atol=1e-6)


BLOCKS = ("stem", "stage1/block0", "stage1/block1", "stage2/block0", "rest")


@pytest.mark.parametrize(
    ("group", "without_rest", "expected"),
    [
        ("stage", False, {"stem": (0,), "stage1": (1, 2), "stage2": (3,), "rest": (4,)}),
        ("stage", True, {"stem": (0,), "stage1": (1, 2), "stage2": (3,)}),
        ("block", True, {name: (i,) for i, name in enumerate(BLOCKS[:4])}),
        ("a=stage1,b=*/block0*+stem", False, None),
        ("a=stage1+stem,b=stage2", False, {"a": (0, 1, 2), "b": (3,), "rest": (4,)}),
        ("b=stage2,a=stem", False, {"a": (0,), "b": (3,), "rest": (1, 2, 4)}),
        ("a=stage*,b=stem+rest", False, {"b": (0, 4), "a": (1, 2, 3)}),
    ],
)
def test_groups(group, without_rest, expected):
    if expected is None:
        with pytest.raises(ValueError, match="block stage1/block0 must lie in one group"):
            group_blocks(BLOCKS, group, without_rest=without_rest)
        return
    assert group_blocks(BLOCKS, group, without_rest=without_rest) == expected


def test_shares_are_summed_over_complete_seeds():
    shares = np.tile([0.1, 0.2, 0.3, 0.4], (4, 3, 1))
    shares[1, 2] = np.nan
    shares[2, 1, :2] = 0
    shares[3, 1, 0] = 0  # the group lives on in its other block
    sums = group_shares(shares, {"a": (0, 1), "c": (3,)})
    assert sums.shape == (2, 3, 2)
    np.testing.assert_allclose(sums[0, 0], [3 / 7, 4 / 7])
    np.testing.assert_allclose(sums[1, 1], [1 / 3, 2 / 3])


def test_a_conjugate_pair_is_named_once(reported):
    table = pd.read_csv(reported / "linear.csv")
    assert len(select(reported, "eigenvalue_real")) == 2
    assert len([*eigenvalues(table, TRAINED)]) == 1
    is_imag = table["quantity"] == "eigenvalue_imag"
    table.loc[is_imag, "value"] = 1e-17  # where rounding made it
    assert [value["text"] for value in eigenvalues(table, TRAINED)] == 2 * ["-0.40"]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([[-2, -1], [-1, -0.5]], "attracting"),
        ([[1, 2], [0.1, 0.2]], "repelling"),
        ([[1, 2], [-2, -1]], "a saddle"),
        ([[1, 2], [-2, 1]], "of open stability"),
        ([[np.nan] * 2] * 2, "of open stability"),
    ],
)
def test_stability_is_said_where_intervals_tell_it(ends, expected):
    assert stability(np.array(ends, float)) == expected


def test_digits_by_stage():
    """What the committed results say: a null without learning shows the same cross terms."""
    result = fit(RESULTS / "digits-resnet14", nulls=["init"])
    law, found = result.laws[TRAINED], findings(result)
    assert law.identified and law.one_step < 0.8 * law.one_step_diagonal
    assert (law.one_step, law.one_step_diagonal) == pytest.approx((0.018, 0.024), abs=5e-4)
    (value,) = eigenvalues(linear_frame(result), TRAINED)
    assert f"{value['text']} {value['real'].ends(2)}" == "+0.24 ± 0.25i [+0.05, +0.43]"
    np.testing.assert_allclose(law.fixed_point, [0.089, 0.206, 0.704], atol=5e-4)
    assert (found["stability"], found["beside_null"]) == ("repelling", "as")
    assert found["misfit"]["is_misfit"]
    assert found["misfit"]["missed"] == pytest.approx(0.094, abs=5e-4)
    assert found["misfit"]["error"] == pytest.approx(0.007, abs=5e-4)
    committed = select(RESULTS / "digits-resnet14-linear", "G")["value"]
    np.testing.assert_allclose(law.G.ravel(), committed, atol=1e-6)


BAD_INPUT = {
    "pattern": ({"group": "a=stage1,b=stag3"}, "group: each pattern must match a block .nearest: "),
    "word": ({"group": "layer"}, "group: must be stage, block or NAME=PATTERN.*, got 'layer'"),
    "empty pattern": ({"group": "a=,b=stage1"}, "group: must be stage, block or NAME=PATTERN"),
    "rest": ({"group": "a=stage1,rest=stage2"}, "group: the name rest is kept"),
    "single": ({"group": "a=stage*", "without_rest": True}, "must leave at least two groups"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_groups_are_one_line(planted, tmp_path, case):
    settings, words = BAD_INPUT[case]
    with pytest.raises(ValueError, match=words) as caught:
        linear.run(linear.Config(run=planted, out=tmp_path / "out", **settings))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_bad_runs_and_folders_are_one_line(planted, tmp_path):
    with pytest.raises(ValueError, match="ci_level: must lie"):
        linear.Config(run=planted, ci_level=95)
    with pytest.raises(ValueError, match="seed that has every level"):
        fit(write_run_folder(tmp_path / "stopped", stopped_seeds=(0, 1, 2)))
    one_level = write_run_folder(tmp_path / "one")
    for name in ("flow.csv", "null_flow.csv"):
        frame = pd.read_csv(one_level / name)
        frame[frame["level"] == 0].to_csv(one_level / name, index=False)
    with pytest.raises(ValueError, match="must hold at least two levels, got 1"):
        fit(one_level)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="out: must be empty or a run folder"):
        linear.run(linear.Config(run=planted, out=tmp_path / "thesis"))
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["thesis.tex"]


def test_other_settings_need_fresh(planted, reported, tmp_path):
    out = shutil.copytree(reported, tmp_path / "out")
    config = linear.Config(run=planted, without_rest=True, out=out, ci_level=0.9)
    with (
        mock.patch.object(linear, "fit_run"),
        pytest.raises(ValueError, match="ci_level 0.95 there, 0.9 here"),
    ):
        linear.run(config)
    wide = select(out, "b")
    pages = {name: mock.DEFAULT for name in ("make_page", "lead_tables")}
    with mock.patch.multiple(linear, **pages), mock.patch.object(linear.Study, "report"):
        linear.run(dataclasses.replace(config, fresh=True))
    assert np.all(select(out, "b")["high"].to_numpy() < wide["high"].to_numpy())


def test_command_line_says_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.linear", "nowhere"],
        capture_output=True,
        text=True,
        cwd=RESULTS.parent.parent,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "error: nowhere: must be a file or folder, there is none\n"
