"""The command that reads runs: its folders, its words, its refusals."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from exported_run import finished_run, masked, write_npz_with_masks
from page_text import cells_of, skip_figures
from safetensors.numpy import save_file
from small_run import ROOT

from experiments import analyse
from experiments.shell import cli
from imp_rg.report.caveats import caveats
from imp_rg.runs.files import read_csv, read_json
from imp_rg.runs.run_tables import read_tables

PROG = "python -m experiments.analyse"


@pytest.fixture(autouse=True)
def undrawn(monkeypatch, tmp_path_factory):
    """Tests of figures are elsewhere."""
    skip_figures(monkeypatch, tmp_path_factory.mktemp("undrawn"))


def run(*flags):
    flags = [str(flag) for flag in flags]
    return analyse.run(cli.parse({"default": analyse.Config()}, flags, prog=PROG))


def test_one_run_gives_a_run_folder(tmp_path, capsys):
    out = run(finished_run() / "levels", "--against", "paper", "--out", tmp_path / "out")
    spectrum = read_csv(out / "spectrum.csv")
    ours = read_csv(finished_run() / "spectrum.csv")
    keys = ["block", "quantity", "point", "denominator", "estimator"]
    merged = spectrum.merge(ours, on=keys, suffixes=("", "_ours"))
    assert len(merged) == len(ours)
    np.testing.assert_allclose(merged["sigma"], merged["sigma_ours"], atol=1e-6)
    page = (out / "report.html").read_text()
    assert "IMP flow: levels" in page and "Published numbers beside ours" in page
    assert set(read_csv(out / "observables.csv")["level"]) == {0, 1, 2, 3}
    measured = [row[2] for row in cells_of(page, "paper")[1:]]
    assert measured == ["trained", "init null", "oneshot null"]  # nulls, too, beside the paper
    printed = capsys.readouterr().out
    assert "saved levels, 2 seeds, levels 0 to 3" in printed and "cifar-resnet" in printed
    assert read_json(out / "environment.json")["finished"]


def test_several_runs_are_compared(tmp_path, capsys):
    write_npz_with_masks(tmp_path / "other")
    out = run(finished_run(), tmp_path / "other", "--out", tmp_path / "out")
    pairs = read_csv(out / "comparison.csv")
    sigma = pairs[pairs["measure"] == "sigma"].iloc[0]
    assert sigma["distance"] == pytest.approx(0, abs=1e-6)  # the same run in two formats
    assert sigma["verdict"] == "no verdict"
    assert {"run", "other"} <= {path.name for path in out.iterdir()}
    page = (out / "report.html").read_text()
    assert 'href="run/report.html"' in page and 'href="other/report.html"' in page
    assert "comparison:" in capsys.readouterr().out
    assert run(finished_run(), tmp_path / "other", "--out", out) == out  # again, same settings


def test_one_checkpoint_says_what_it_is(tmp_path):
    save_file(masked(0, 2), tmp_path / "pruned.safetensors")
    out = run(tmp_path / "pruned.safetensors", "--levels", 4, "--out", tmp_path / "out")
    kinds = [caveat.kind for caveat in caveats(read_tables(out))]
    assert kinds[:2] == ["one checkpoint", "first level pruned"]
    head = cells_of((out / "report.html").read_text(), "lead")[0]
    assert "gaussian null" in head and "init null" not in head
    flow = read_csv(out / "flow.csv")
    assert flow["density"].max() == pytest.approx(0.64, abs=1e-3)


def test_names_tell_runs_apart(tmp_path):
    paths = (tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "c.pt")
    assert analyse._run_names(paths) == ["a-run", "b-run", f"{tmp_path.name}-c"]
    assert analyse._run_names((tmp_path / "x.y.pt",)) == ["x.y"]
    with pytest.raises(ValueError, match="runs: must differ"):
        analyse._run_names((tmp_path, tmp_path))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "runs: give at least one"),
        (("no-such-folder",), "no-such-folder: must be a file or folder"),
        (("{levels}", "--blocks", "cifar-resnt"), "cifar-resnet"),
        (("{levels}", "--blocks", "a=nothing*"), "matches no prunable tensor"),
        (("{levels}", "--blocks", "{tmp}/no.toml"), "no.toml"),
        (("{levels}", "--ci-level", "2"), "ci_level: must lie in (0, 1)"),
        (("{run}", "--blocks", "per-tensor"), "a run of ours keeps its own"),
        (("{levels}", "{levels}"), "runs: must differ"),
        (("{levels}", "--blocks", "per-tensor", "--against", "paper"), "against: the paper lists"),
        (("{levels}", "--blokcs", "x"), "--blocks"),
    ],
)
def test_bad_input_is_one_line(flags, words, tmp_path, monkeypatch, capsys):
    names = {"levels": finished_run() / "levels", "run": finished_run(), "tmp": tmp_path}
    flags = [flag.format(**names) for flag in flags]
    monkeypatch.setattr("sys.argv", ["analyse", *flags, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        cli.main(analyse.run, {"default": analyse.Config()}, prog=PROG)
    said = capsys.readouterr().err
    assert stop.value.code == 2, said
    assert words in said
    assert len(said.strip().splitlines()) == 1 and said.startswith("error: ")


def test_the_command_itself_says_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.analyse", "no-such-folder"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: no-such-folder") and done.stderr.count("\n") == 1


def test_other_runs_do_not_share_a_folder(tmp_path):
    run(finished_run(), "--out", tmp_path / "out")
    with pytest.raises(ValueError, match="other settings|something else"):
        run(finished_run() / "levels", "--out", tmp_path / "out")
    assert len(pd.read_csv(tmp_path / "out" / "flow.csv"))
