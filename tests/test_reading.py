"""Runs of our own come back from every format as they were measured, and bad ones are refused."""

import exported_run
import numpy as np
import pandas as pd
import pytest
from exported_run import WITH_TORCH, WITHOUT_TORCH, finished_run, level, masked, prunable
from oracles import loop_read_shares
from safetensors.numpy import save_file

import imp_rg
from imp_rg.runs.files import read_csv

KEYS = ["seed", "level", "point", "block"]


def trained_rows(frame):
    rows = frame[frame["point"] == "trained"].copy()
    rows["seed"] = rows["seed"].astype(str).str.removeprefix("seed").astype(int)
    return rows.set_index(KEYS).sort_index()


def assert_same_flow(flow):
    ours = trained_rows(read_csv(finished_run() / "flow.csv"))
    theirs = trained_rows(flow.frame())
    pd.testing.assert_frame_equal(theirs, ours, rtol=1e-6, atol=0, check_exact=False)


@pytest.mark.parametrize("write", WITHOUT_TORCH, ids=lambda w: w.__name__)
def test_round_trip(write, tmp_path):
    write(tmp_path / "run")
    assert_same_flow(imp_rg.read(tmp_path / "run"))


@pytest.mark.parametrize("write", WITH_TORCH, ids=lambda w: w.__name__)
def test_round_trip_through_torch(write, tmp_path):
    pytest.importorskip("torch")
    write(tmp_path / "run")
    assert_same_flow(imp_rg.read(tmp_path / "run"))


def test_saved_levels_have_all_points_and_nulls():
    """With rewind weights beside them, they give what the run itself has measured."""
    flow = imp_rg.read(finished_run() / "levels")
    ours = read_csv(finished_run() / "flow.csv").set_index(KEYS).sort_index()
    theirs = flow.frame()
    theirs["seed"] = theirs["seed"].astype(str).str.removeprefix("seed").astype(int)
    theirs = theirs.set_index(KEYS).sort_index()
    pd.testing.assert_frame_equal(theirs, ours, rtol=1e-6, atol=0, check_exact=False)
    null = read_csv(finished_run() / "null_flow.csv")
    for name in ("init", "oneshot"):
        want = null[null["null"] == name]["magnitude"].to_numpy()
        np.testing.assert_allclose(flow.trajectory.nulls[name].magnitude.ravel(), want, rtol=1e-6)


def test_reader_equals_a_plain_loop():
    flow = imp_rg.read(finished_run() / "levels")
    files = [
        [finished_run() / "levels" / f"seed{s}" / f"level{n:02d}.safetensors" for n in range(4)]
        for s in range(2)
    ]
    names = flow.trajectory.blocks.names
    want = loop_read_shares(files, names)
    got = flow.trajectory.points["trained"].magnitude_share
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=0)


def test_a_run_folder_reads_as_it_was_written():
    flow = imp_rg.read(finished_run())
    ours = read_csv(finished_run() / "flow.csv")
    pd.testing.assert_frame_equal(flow.frame(), ours, rtol=1e-12, check_exact=False)
    spectrum = read_csv(finished_run() / "spectrum.csv")
    again = flow.spectrum_frame()[list(spectrum)]
    numbers = spectrum.select_dtypes("number").columns
    np.testing.assert_allclose(
        again[numbers].astype(float), spectrum[numbers].astype(float), rtol=1e-6, atol=1e-9
    )


def test_one_checkpoint_gives_its_one_shot_flow(tmp_path):
    save_file(masked(0, 0), tmp_path / "dense.safetensors")
    flow = imp_rg.read(tmp_path / "dense.safetensors", levels=3)
    null = read_csv(finished_run() / "null_flow.csv")
    rows = null[(null["null"] == "oneshot") & (null["seed"] == 0)]
    got = flow.trajectory.points["trained"].magnitude.ravel()
    np.testing.assert_allclose(got, rows["magnitude"], rtol=1e-6)
    assert set(flow.trajectory.nulls) == {"gaussian", "random"}
    assert flow.settings["kind"] == "single"


def write_levels(folder, trees):
    folder.mkdir(parents=True)
    for n, tree in enumerate(trees):
        save_file(tree, folder / f"level{n}.safetensors")


def with_nan(trees, names):
    trees[2][names[0]].flat[0] = np.nan


def revived(trees, names):
    where = np.flatnonzero(trees[1][names[0]] == 0)[0]
    trees[2][names[0]].flat[where] = 1.0


def other_shape(trees, names):
    trees[1][names[0]] = trees[1][names[0]][..., :-1].copy()


def lost_tensor(trees, names):
    del trees[3][names[0]]


def rising(trees, _):
    trees[1], trees[2] = trees[2], trees[1]


def equal(trees, _):
    trees[2] = trees[1]


def empty(trees, names):
    for name in names:
        trees[3][name][:] = 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_nan, ["level2.safetensors", "FIRST", "finite"]),
        (revived, ["level2.safetensors", "FIRST", "nested", "1 weights"]),
        (other_shape, ["level1.safetensors", "FIRST", "as in the first"]),
        (lost_tensor, ["level3.safetensors", "FIRST", "none"]),
        (rising, ["level2.safetensors", "nested"]),
        (equal, ["level2.safetensors", "density must fall"]),
        (empty, ["level3.safetensors", "keeps none"]),
    ],
)
def test_bad_levels_are_refused(change, words, tmp_path):
    names = prunable(0)
    trees = [{k: v.copy() for k, v in masked(0, n).items()} for n in range(4)]
    change(trees, names)
    write_levels(tmp_path / "run", trees)
    with pytest.raises(ValueError) as error:
        imp_rg.read(tmp_path / "run")
    for word in words:
        assert word.replace("FIRST", names[0]) in str(error.value)
    assert "\n" not in str(error.value)


def test_seeds_of_other_density_are_refused(tmp_path):
    trees = [masked(0, n) for n in range(4)]
    write_levels(tmp_path / "run" / "a", trees)
    write_levels(tmp_path / "run" / "b", [trees[0], trees[2], trees[3]])
    with pytest.raises(ValueError, match="level"):
        imp_rg.read(tmp_path / "run")
    (tmp_path / "run" / "a" / "level3.safetensors").unlink()
    with pytest.raises(ValueError, match="seeds must agree in density"):
        imp_rg.read(tmp_path / "run")


def test_observables_of_saved_levels():
    flow = imp_rg.read(finished_run() / "levels", observe=True)
    rows = flow.observables
    names = set(imp_rg.imp.observables.OBSERVABLES)
    assert set(rows["observable"]) == names
    kernels = [level(0, 2)[f"params/{k}"][level(0, 2)[f"masks/{k}"]] for k in prunable(0)
               if k.startswith("stage2/block1/")]  # fmt: skip
    chosen = rows[
        (rows["block"] == "stage2/block1")
        & (rows["level"] == 2)
        & (rows["observable"] == "mean_magnitude")
    ]
    want = np.abs(np.concatenate(kernels)).astype(float).mean()
    np.testing.assert_allclose(chosen["value"].iloc[0], want, rtol=1e-6)


def test_compare_reads_paths():
    comparison = imp_rg.compare([finished_run() / "levels", finished_run()])
    assert comparison.measures[0] == "sigma"
    np.testing.assert_allclose(comparison.distance["sigma"][0, 1], 0, atol=1e-5)


def test_nothing_there(tmp_path):
    with pytest.raises(ValueError, match="must be a file or folder"):
        imp_rg.read(tmp_path / "no")
    assert exported_run.LEVELS[-1] == 3
