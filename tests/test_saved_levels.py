"""`--save-levels` keeps the trained weights of every level, through a crash too."""

import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from small_run import FLAGS, contents, everything, finished_run, run_in_process

from experiments.trunk import run
from imp_rg.foreign.layout import find_levels
from imp_rg.runs.checkpoints import Checkpoints
from imp_rg.runs.folder import RunFolder

SAVING = (*FLAGS, "--save-levels")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return run_in_process(*SAVING, "--out", str(tmp_path_factory.mktemp("saved") / "run"))


def test_trained_weights_give_the_flow(saved):
    flow = pd.read_csv(saved / "flow.csv").query("point == 'trained' and block != 'rest'")
    layout = find_levels(saved)
    assert layout.kind == "saved levels" and layout.seeds == ("seed0", "seed1")
    for seed, levels in enumerate(layout.levels):
        for level, files in enumerate(levels):
            tensors = load_file(files.weights)
            for row in flow[(flow["seed"] == seed) & (flow["level"] == level)].itertuples():
                weight = tensors[f"params/{row.block}/kernel"]
                mask = tensors[f"masks/{row.block}/kernel"]
                assert mask.dtype == bool and mask.sum() == row.surviving
                assert not weight[~mask].any()
                assert np.abs(weight).sum() == pytest.approx(row.magnitude, rel=1e-6)
    assert layout.rewind[1] == saved / "tickets" / "seed1-level00.safetensors"


def test_the_flag_is_no_setting_of_the_run(saved):
    """Neither the numbers nor the name of a run know of it."""
    assert contents(saved) == contents(finished_run())
    assert (saved / "config.json").read_bytes() == (finished_run() / "config.json").read_bytes()
    assert not (finished_run() / "levels").exists()


def test_levels_are_written_before_the_checkpoint_that_vouches_for_them(
    saved, tmp_path, monkeypatch
):
    out, save = tmp_path / "run", Checkpoints.save

    def crash(self, level, flat):
        assert (out / "levels" / "seed1" / f"level{level:02d}.safetensors").exists()
        if level == 2:
            raise OSError("the disk is gone")
        save(self, level, flat)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", crash)
        with pytest.raises(OSError, match="the disk is gone"):
            run_in_process(*SAVING, "--out", str(out))
    run_in_process(*SAVING, "--out", str(out))
    assert everything(out / "levels") == everything(saved / "levels")


def test_a_run_begun_without_the_flag_is_warned_about(saved, tmp_path, capsys):
    out = shutil.copytree(finished_run(), tmp_path / "run")
    (out / "environment.json").unlink()
    run_in_process(*SAVING, "--out", str(out))
    warning = "warning: trained weights of levels up to 3 were not all saved"
    assert warning in capsys.readouterr().out
    shutil.copytree(saved / "levels", out / "levels")
    (out / "environment.json").unlink()
    run_in_process(*SAVING, "--out", str(out))
    assert warning not in capsys.readouterr().out


def test_fresh_throws_saved_levels_away(saved, tmp_path):
    out = shutil.copytree(saved, tmp_path / "run")
    settings = run.read_json(out / "config.json")
    RunFolder(out, settings, fresh=True)
    assert sorted(path.name for path in out.iterdir()) == ["config.json"]


def test_tickets_can_be_left_out(tmp_path):
    folder = run_in_process(*FLAGS, "--no-tickets", "--out", str(tmp_path / "run"))
    assert not (folder / "tickets").exists()
    assert (folder / "spectrum.csv").exists()
