"""Bad input: one line that names the setting, exit code 2, and nothing that was there is lost."""

import gc
import resource
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from small_run import FLAGS, everything, finished_run, run_in_process

from experiments import imp_flow
from experiments.shell import cli
from experiments.trunk import run as imp_run
from imp_rg import flow_point
from imp_rg.blocks import make_partition


def npz(**changes):
    """Arrays of a small data set, some of them replaced."""
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.random((80, 8, 8, 1), np.float32),
        "y_train": np.arange(80) % 4,
        "x_test": rng.random((20, 8, 8, 1), np.float32),
        "y_test": np.arange(20) % 4,
    }
    return arrays | changes


NAN = np.full((80, 8, 8, 1), np.nan, np.float32)

BAD_FLAGS = {
    "dataset": (["--dataset", "digitz"], "dataset", "digitz", "digits"),
    "dataset file": (["--dataset", "npz:nowhere.npz"], "dataset", "nowhere.npz"),
    "model": (["--model", "resnet21"], "model", "resnet21", "resnet20"),
    "model without widths": (["--model", "lenet0"], "model", "lenet0"),
    "block": (["--blocks", "blok"], "blocks", "blok", "block"),
    "block matches nothing": (["--blocks", "a=stage9"], "blocks", "stage9", "no prunable tensor"),
    "blocks overlap": (["--blocks", "a=stage1,b=stage1/block0"], "blocks", "a and b"),
    "block without pattern": (["--blocks", "a="], "blocks", "'a='"),
    "preset": (["--preset", "papre"], "preset", "papre", "paper"),
    "choice": (["--scope", "galactic"], "scope", "galactic"),
    "flag": (["--prune-fractoin", "0.5"], "--prune-fractoin", "--prune-fraction"),
    "flag without value": (["--levels"], "--levels"),
    "no number": (["--levels", "many"], "--levels", "many"),
    "fraction 0": (["--prune-fraction", "0"], "prune_fraction", "0.0"),
    "fraction 1": (["--prune-fraction", "1"], "prune_fraction", "1.0"),
    "fraction nan": (["--prune-fraction", "nan"], "prune_fraction", "nan"),
    "too many levels": (
        ["--model", "lenet8", "--prune-fraction", "0.8", "--levels", "4"],
        *("levels", "2 blocks", "4 levels, which keep 1"),
    ),
    "levels that prune nothing": (
        ["--model", "lenet8", "--levels", "60"],
        *("levels", "would remove none of the 2 weights left", "got 60"),
    ),
    "first seed": (["--first-seed", "3000000000"], "first_seed", "3000000000"),
    "no level": (["--levels", "0"], "levels", "0"),
    "original fraction": (
        ["--fraction-of", "original", "--levels", "5"],
        *("levels", "level 5 would keep none"),
    ),
    "no seed": (["--seeds", "0"], "seeds", "0"),
    "batch": (["--batch-size", "1438"], "batch_size", "1437", "1438"),
    "rewind step": (["--rewind-step", "200"], "rewind_step", "200"),
    "learning rate": (["--learning-rate", "-1"], "learning_rate", "-1.0"),
    "milestones": (["--milestones", "0.5", "0.2"], "milestones", "(0.5, 0.2)"),
    "width": (["--width", "0"], "width", "0.0"),
    "interval": (["--ci-level", "95"], "ci_level", "95.0"),
    "statistics": (["--normalize", "imagenet"], "normalize", "RGB", "(1437, 8, 8, 1)"),
    "driver": (["--driver", "dispatch", "--replicates", "vmap"], "replicates", "--driver scan"),
    "no gpu": (["--device", "gpu"], "device", "gpu must be present"),
}

BAD_ARRAYS = {
    "label above": ({"y_test": np.arange(20) % 7}, "y_test", "classes 4", "6"),
    "label below": ({"y_train": np.arange(80) % 4 - 1}, "y_train", "negative", "-1"),
    "label float": ({"y_train": np.arange(80) % 4 / 2}, "y_train", "integers", "float64"),
    "NaN": ({"x_train": NAN}, "x_train", "finite", "NaN"),
    "shape": ({"x_train": np.zeros((80, 64), np.float32)}, "x_train", "[N, H, W, C]", "(80, 64)"),
    "other images": ({"x_test": np.zeros((20, 9, 8, 1), np.float32)}, "x_test", "(9, 8, 1)"),
    "too few labels": ({"y_train": np.arange(79) % 4}, "y_train", "80 images", "79"),
    "type": ({"x_train": np.zeros((80, 8, 8, 1), int)}, "x_train", "uint8 or float", "int64"),
}


@pytest.fixture
def refusal(monkeypatch, capsys):
    """Calls the command with flags that must be refused; returns the line it says."""

    def refused(*flags):
        monkeypatch.setattr("sys.argv", ["imp_flow", *map(str, flags)])
        monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
        with pytest.raises(SystemExit) as stop:
            cli.main(imp_flow.run, imp_flow.PRESETS, prog="imp_flow")
        said = capsys.readouterr().err
        assert stop.value.code == 2
        assert said.startswith("error: ") and said.endswith("\n") and said.count("\n") == 1
        return said

    return refused


@pytest.mark.parametrize("name", BAD_FLAGS)
def test_bad_flags(refusal, tmp_path, name):
    flags, *words = BAD_FLAGS[name]
    out = tmp_path / "run"
    said = refusal(*flags, "--out", out)
    assert all(word in said for word in words), said
    assert not out.exists()


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays(refusal, tmp_path, name):
    changes, *words = BAD_ARRAYS[name]
    np.savez(tmp_path / "own.npz", **npz(**changes))
    out = tmp_path / "run"
    said = refusal("--dataset", f"npz:{tmp_path}/own.npz", "--out", out)
    assert all(word in said for word in words), said
    assert not out.exists()


def test_truncated_arrays(refusal, tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, **npz())
    path.write_bytes(path.read_bytes()[:-100])
    assert "npz:" in refusal("--dataset", f"npz:{path}", "--out", tmp_path / "run")


def test_good_arrays_are_not_refused(tmp_path, monkeypatch):
    np.savez(tmp_path / "own.npz", **npz())
    monkeypatch.setattr(imp_run, "run_levels", lambda *_, **__: None)
    flags = ("--dataset", f"npz:{tmp_path}/own.npz", "--model", "lenet8", "--levels", "2")
    run_in_process(*flags, "--out", str(tmp_path / "run"))
    assert (tmp_path / "run" / "config.json").exists()


def test_help_is_left_whole(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.parse(imp_flow.PRESETS, ["--help"], prog="imp_flow")
    assert stop.value.code == 0 and "--prune-fraction" in capsys.readouterr().out


def test_last_preset_counts():
    config = cli.parse(imp_flow.PRESETS, ["--preset", "smoke", "--preset=paper"], prog="imp_flow")
    assert config == imp_flow.PRESETS["paper"]


def test_run_of_other_settings(refusal):
    run = finished_run()
    before = everything(run)
    said = refusal(*FLAGS, "--levels", 4, "--learning-rate", 0.2, "--out", run)
    assert "learning_rate 0.1 there, 0.2 here; levels 3 there, 4 here" in said
    assert everything(run) == before


def test_folder_of_something_else(refusal, tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    assert "out: must be empty or a run folder" in refusal(*FLAGS, "--out", tmp_path, "--fresh")
    assert list(everything(tmp_path)) == ["thesis.tex"]


def test_unwritable_folder(refusal, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "out: must be a writable folder" in refusal(*FLAGS, "--out", tmp_path / "file" / "run")


def test_damaged_config(refusal, tmp_path):
    run = shutil.copytree(finished_run(), tmp_path / "run")
    (run / "config.json").write_text('{"model": ')
    before = everything(run)
    assert "config.json: must be a readable JSON file" in refusal(*FLAGS, "--out", run)
    assert everything(run) == before


# Orbax, on its way out of a write that fails, leaves threads with closed loops behind.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("limit", "what"), [(12_000, "safetensors"), (16_000, "checkpoint")])
def test_full_disk(refusal, tmp_path, limit, what):
    """A limit on the size of files refuses writes as a full disk does."""
    run = shutil.copytree(finished_run(), tmp_path / "run")
    (run / "environment.json").unlink()
    shutil.rmtree(run / "checkpoints" / "3")
    before = everything(run)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        said = refusal(*FLAGS, "--out", run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        gc.collect()
    assert what in said and "cannot be written" in said and "too large" in said
    after = everything(run)
    assert {name: after.get(name) for name in before} == before


def test_masks_of_other_structure():
    params = {"a": {"kernel": jnp.ones((4, 3))}, "b": {"kernel": jnp.ones((3, 2))}}
    blocks = make_partition(params, {"a": ["a"], "b": ["b"]}, prunable=["*kernel"])
    masks = {"a": {"kernel": jnp.ones((4, 3), bool)}}
    with pytest.raises(ValueError, match="masks: must have the structure of params"):
        flow_point(params, masks, blocks=blocks)
    with pytest.raises(ValueError, match=r"masks: b/kernel must be bool of shape \(3, 2\)"):
        flow_point(params, masks | {"b": {"kernel": jnp.ones((2, 3), bool)}}, blocks=blocks)
    with pytest.raises(ValueError, match="masks: b/kernel must be bool"):
        flow_point(params, masks | {"b": {"kernel": jnp.ones((3, 2))}}, blocks=blocks)
