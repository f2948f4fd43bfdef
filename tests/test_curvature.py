"""The command that looks at the loss: its table holds what the library computes."""

import subprocess
import sys

import numpy as np
import pytest
from small_run import FLAGS, ROOT, run_in_process

from experiments import curvature
from experiments.shell import cli
from imp_rg.runs.files import read_csv


@pytest.fixture(scope="module")
def levels(tmp_path_factory):
    out = tmp_path_factory.mktemp("curvature") / "run"
    return run_in_process(*FLAGS, "--save-levels", "--out", str(out)) / "levels"


def run(*flags):
    flags = [str(flag) for flag in flags]
    return curvature.run(cli.parse(curvature.PRESETS, flags, prog="curvature"))


def test_the_table_by_level(levels, tmp_path):
    flags = ("--model", "lenet32-16", "--num-examples", 100, "--top", 3, "--probes", 4)
    out = run(levels, *flags, "--out", tmp_path / "out")
    rows = read_csv(out / "curvature.csv")
    table = rows.pivot(index=["seed", "level"], columns="quantity", values="value")
    assert len(table) == 2 * 4
    density = table.index.get_level_values("level").map(lambda n: 0.8**n)
    np.testing.assert_allclose(table["rewind_kept_of_weights"], density, atol=1e-3)
    for part in ("of_weights", "of_gradient", "of_top"):  # kept and pruned share the whole
        both = table[f"rewind_kept_{part}"] + table[f"rewind_pruned_{part}"]
        np.testing.assert_allclose(both, 1, atol=1e-6)
    dense = table.xs(0, level="level")
    np.testing.assert_allclose(dense["rewind_kept_in_top"], dense["rewind_energy_in_top"])
    assert (table["eigenvalue1"] >= table["eigenvalue3"]).all()
    assert (table["gradient_norm"] > 0).all() and (table["trace_standard_error"] > 0).all()
    barriers = table["loss_barrier"].unstack()
    assert barriers[0].isna().all() and (barriers[[1, 2, 3]] >= 0).all(axis=None)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("no-such-folder", "--model", "lenet32-16"), "no-such-folder"),
        (("{levels}", "--model", "lenet32-8"), "for lenet32-8"),
        (("{levels}", "--model", "lenet32-16", "--top", "0"), "top: must be at least 1"),
        (("{levels}", "--model", "lenet32-16", "--mean", "0.5"), "std: must have as many"),
        (("{levels}",), "--model"),
    ],
)
def test_bad_input_is_one_line(flags, words, levels, tmp_path):
    flags = [flag.format(levels=levels) for flag in flags]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.curvature", *flags, "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2 and words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
