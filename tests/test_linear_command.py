"""`python -m experiments.linear`: a run in, the linear flow of its groups of blocks out."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_folder import write_run_folder
from scipy.integrate import solve_ivp
from scipy.linalg import helmert

from experiments import linear
from experiments.shell import cli
from experiments.studies.linear.groups import group_blocks, group_shares
from experiments.studies.linear.words import answers, caveats, distinct, stability_text
from imp_rg import read
from imp_rg.plots.linear import linear_plane, linear_prediction

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
    return linear.fit_run(flow, linear.Config(run=folder, without_rest=without_rest))


@pytest.fixture(scope="module")
def fitted(planted):
    return fit(planted).trained


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
    page = (reported / "report.html").read_text()
    assert "b and G are identified: 36 transitions of 3 seeds for 6 parameters" in page
    assert "-0.40 ± 0.22i [-0.40, -0.40]" in page and "is attracting" in page
    assert "The init null, pruning without learning, has eigenvalues" in page
    assert page.count('src="data:image/svg+xml') == 2
    for kind in ("identifiability", "closure", "noise", "shape", "seeds", "fixed point"):
        assert f'data-kind="{kind}"' in page
    assert {path.name for path in (reported / "figures").glob("*.png")} == {
        "plane.png",
        "prediction.png",
    }
    assert "no misfit is seen" in page
    assert (reported / "environment.json").is_file()


def test_too_many_groups_are_not_identified(planted, tmp_path, capsys):
    linear.run(linear.Config(run=planted, out=tmp_path))
    page = (tmp_path / "report.html").read_text()
    reason = "36 transitions of all seeds for 12 parameters, 60 are needed"
    assert f"b and G are not identified: {reason}" in page
    assert "they are no exponents" in page and "is attracting" not in page
    assert "not identified" in capsys.readouterr().out
    assert not (tmp_path / "figures" / "plane.png").exists()
    assert list(select(tmp_path, "visited")["of"]) == [*STAGES, "rest"]


def test_one_seed_has_no_interval_and_the_page_says_what_that_means(tmp_path):
    folder = plant(tmp_path / "run", num_seeds=1, num_levels=31)
    linear.run(linear.Config(run=folder, without_rest=True, out=tmp_path / "out"))
    np.testing.assert_allclose(select(tmp_path / "out", "G")["value"], G.ravel(), atol=1e-6)
    assert select(tmp_path / "out", "G")[["low", "high"]].isna().all(axis=None)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "without intervals as there is one seed: -0.40 ± 0.22i" in page
    assert "One seed: no interval exists" in page and "is met, not predicted" in page
    assert "of open stability" in page and "no interval tells the two apart" in page


def test_without_a_null_the_answer_says_so(planted):
    assert answers(fit(planted))[-1].startswith("The run has no null")


def test_two_levels_are_not_identified(tmp_path):
    folder = plant(tmp_path / "run", num_levels=2)
    linear.run(linear.Config(run=folder, without_rest=True, out=tmp_path / "out"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "3 transitions of all seeds for 6 parameters, 30 are needed" in page


def test_seeds_that_stopped_are_left_out(tmp_path):
    folder = write_run_folder(tmp_path, stopped_seeds=(1,))
    result = fit(folder)
    assert len(result.trained.shares) == 2
    assert caveats(result)["stopped"].startswith("1 of 3 seeds left out")
    assert "24 transitions" in answers(result)[0]


def test_figures_draw_the_seeds_and_the_law(fitted):
    np.testing.assert_allclose(fitted.predicted(), fitted.z, atol=1e-6)
    missed = fitted.predicted_diagonal() - fitted.z
    assert np.abs(missed[:, 0]).max() < 1e-12 and np.abs(missed).max() > 0.1
    axes = linear_prediction(fitted).axes
    for i, axis in enumerate(axes):
        drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axis.lines}
        np.testing.assert_allclose(drawn["mean of seeds"], fitted.shares[..., i].mean(axis=0))
        mean = np.exp(fitted.z.mean(axis=0) @ fitted.law.basis.T)
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


def test_a_conjugate_pair_is_named_once(fitted):
    assert len(fitted.law.eigenvalues) == 2 and len(distinct(fitted.law)) == 1
    real = dataclasses.replace(fitted.law, eigenvalues=np.array([1 + 1e-17j, -1 - 1e-17j]))
    assert distinct(real) == [0, 1]


@pytest.mark.parametrize(
    ("eigenvalues", "expected"),
    [
        ([[-2, -1], [-1, -0.5]], "attracting"),
        ([[1, 2], [0.1, 0.2]], "repelling"),
        ([[1, 2], [-2, -1]], "a saddle"),
        ([[1, 2], [-2, 1]], "of open stability"),
        ([[np.nan] * 2] * 2, "of open stability"),
    ],
)
def test_stability_is_said_where_intervals_tell_it(fitted, eigenvalues, expected):
    law = dataclasses.replace(fitted.law, eigenvalues_ci=np.array(eigenvalues, float))
    assert stability_text(law) == expected


def test_digits_by_stage():
    """What the committed results say: a null without learning shows the same cross terms."""
    result = fit(RESULTS / "digits-resnet14", nulls=["init"])
    law = result.trained.law
    assert law.identified and law.one_step < 0.8 * law.one_step_diagonal
    said = " ".join(answers(result))
    assert "to 0.018" in said and "with G = 0 to 0.024" in said
    assert "+0.24 ± 0.25i [+0.05, +0.43]" in said
    assert "stage1 0.089, stage2 0.206, stage3 0.704" in said and "is repelling" in said
    assert "0.094, where that mean has a standard error of 0.007: a constant G is not" in said
    assert "no effect of learning on the cross terms is shown" in said
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


def test_other_settings_need_fresh(planted, tmp_path):
    linear.run(linear.Config(run=planted, without_rest=True, out=tmp_path))
    config = linear.Config(run=planted, without_rest=True, out=tmp_path, ci_level=0.9)
    with pytest.raises(ValueError, match="ci_level 0.95 there, 0.9 here"):
        linear.run(config)
    wide = select(tmp_path, "b")
    linear.run(dataclasses.replace(config, fresh=True))
    assert np.all(select(tmp_path, "b")["high"].to_numpy() < wide["high"].to_numpy())


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
