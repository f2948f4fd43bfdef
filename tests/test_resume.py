"""Killed at any moment and started again, a run ends with the same bits as one left alone."""

import builtins
import os
import shutil
import signal

import kill_points
import pytest
from kill_points import KINDS
from small_run import FLAGS, contents, everything, finished_run, run_in_process, start

from experiments import imp_flow
from experiments.shell import cli
from experiments.trunk import run
from experiments.trunk.progress import LevelProgress
from imp_rg.runs import files

SIGKILLED = -9


def kill_and_go_on(points, flags, tmp_path, *, in_process=False):
    """Starts the run once for each point, where it is killed, and once more to its end.

    That may happen here: another start of Python and JAX is saved.
    """
    out = tmp_path / "run"
    for i, point in enumerate(points):
        assert point.split(":")[0] in KINDS
        marker = tmp_path / f"marker{i}"
        child = start("tests/kill_points.py", point, str(marker), *flags, "--out", str(out))
        output = child.communicate(timeout=300)
        assert child.returncode == SIGKILLED, (point, output)
        assert marker.exists() and marker.read_text() != "MISSED", (point, output)
    flags = (*flags, "--out", str(out))
    if in_process:
        imp_flow.run(cli.parse(imp_flow.PRESETS, flags, prog="imp_flow"))
    else:
        child = start("-m", "experiments.imp_flow", *flags)
        output = child.communicate(timeout=300)
        assert child.returncode == 0, output
    assert (out / "report.html").exists()
    assert not [path for path in out.rglob("*") if files.is_temporary(path)]
    return out


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"checkpoint"}))  # it hooks no name
def test_every_kill_hooks_what_a_run_calls(kind, monkeypatch):
    """The long tests would be the first to see that a function is called something else."""
    hooked = []

    def put(owner, name, _):
        assert hasattr(owner, name) or hasattr(builtins, name), name
        hooked.append(name)

    monkeypatch.setattr(kill_points, "put", put)
    KINDS[kind](kill_points.Trap(1, "nowhere"), "x")
    assert hooked


def test_few_kills(tmp_path):
    """Within a table and a checkpoint; each takes a process of its own, so the others are long."""
    points = ["half:.flow.csv:2", "checkpoint::9"]
    out = kill_and_go_on(points, FLAGS, tmp_path, in_process=True)
    assert contents(out) == contents(finished_run())


@pytest.mark.long
def test_twenty_kills(tmp_path):
    points = [
        *("half:.config.json:1", "half:.environment.json:1", "half:seed1-level00.safetensors:1"),
        *("checkpoint::1", "checkpoint::6", "checkpoint::12", "checkpoint::18"),
        *("during:5:1", "during:40:1", "during:250:1"),
        *("half:.flow.csv:1", "rename:.flow.csv:1", "half:.null_flow.csv:1"),
        *("prune::3", "train::3", "null::1", "during:120:2", "rename:.metrics.csv:1"),
        *("half:.spectrum.csv:1", "half:.png:2", "half:.svg:1", "rename:.report.html:1"),
    ]
    flags = (*FLAGS, "--levels", "8")
    out = kill_and_go_on(points, flags, tmp_path)
    assert len(points) >= 20
    reference = run_in_process(*flags, "--out", str(tmp_path / "reference"))
    assert contents(out) == contents(reference)


@pytest.mark.long
def test_kills_of_a_convolutional_net(tmp_path):
    """Batch statistics, a convolution's bits, and two threads that share the cores."""
    flags = ("--model", "resnet14", "--width", "0.25", "--seeds", "2", "--levels", "4")
    flags = (*flags, "--num-steps", "30", "--rewind-step", "5")
    points = ["train::4", "half:.flow.csv:1", "prune::3", "checkpoint::10", "null::2"]
    out = kill_and_go_on(points, flags, tmp_path)
    reference = run_in_process(*flags, "--out", str(tmp_path / "reference"))
    assert contents(out) == contents(reference)


def test_interrupt_says_how_to_go_on(tmp_path, monkeypatch, capfd):
    args = [*FLAGS, "--out", str(tmp_path / "run")]
    on_progress = LevelProgress.on_progress
    num_reports = iter(range(100))

    def interrupt(*arguments):
        if next(num_reports) == 9:
            os.kill(os.getpid(), signal.SIGINT)
        on_progress(*arguments)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(LevelProgress, "on_progress", interrupt)
        patch.setattr("sys.argv", ["imp_flow", *args])
        with pytest.raises(SystemExit) as stop:
            cli.main(imp_flow.run, imp_flow.PRESETS, prog="imp_flow")
    signal.signal(signal.SIGINT, before)
    cli.interrupted.clear()
    assert stop.value.code == 130
    said = capfd.readouterr().err.split("\n")
    assert [line for line in said if line] == [
        "stopping; once more to stop at once",
        "stopped; finished levels are saved, the same command goes on from there",
    ]
    assert not (tmp_path / "run" / "spectrum.csv").exists()
    assert contents(run_in_process(*args)) == contents(finished_run())
    assert "continuing after level" in capfd.readouterr().out


def test_second_interrupt_stops_at_once():
    with pytest.raises(KeyboardInterrupt):
        for _ in range(2):
            cli._on_interrupt(signal.SIGINT, None)
    cli.interrupted.clear()


@pytest.fixture
def copy(tmp_path):
    """A finished run of one's own."""
    return shutil.copytree(finished_run(), tmp_path / "run")


def forbid(*arguments, **options):
    raise AssertionError("a finished run must not train")


def test_finished_run_reports_at_once(copy, monkeypatch, capsys):
    before = everything(copy)
    monkeypatch.setattr(run, "run_levels", forbid)
    run_in_process(*FLAGS, "--out", str(copy))
    assert "already finished; reporting again" in capsys.readouterr().out
    assert everything(copy) == before


@pytest.mark.parametrize("name", ["flow.csv", "spectrum.csv", "environment.json"])
def test_deleted_tables_come_back_without_training(copy, monkeypatch, name):
    (copy / name).unlink()
    monkeypatch.setattr(run, "run_level", forbid)
    run_in_process(*FLAGS, "--out", str(copy))
    assert contents(copy) == contents(finished_run())


def test_fresh_starts_again(copy, monkeypatch):
    class ReachedError(Exception):
        pass

    def reach(*arguments, **options):
        raise ReachedError

    monkeypatch.setattr(run, "run_level", reach)
    with pytest.raises(ReachedError):
        run_in_process(*FLAGS, "--out", str(copy), "--fresh")
    assert sorted(path.name for path in copy.iterdir()) == [
        "checkpoints",
        "config.json",
        "environment.json",
    ]


# Orbax, on its way out of a damaged checkpoint, leaves coroutines behind.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("num_damaged", [1, 3])
def test_damaged_checkpoints_are_named_and_passed_over(copy, capsys, num_damaged):
    levels = sorted(int(path.name) for path in (copy / "checkpoints").iterdir())
    for level in levels[-num_damaged:]:
        seal = copy / "checkpoints" / str(level) / "seal" / "metadata"
        seal.write_bytes(seal.read_bytes()[:20])
    (copy / "environment.json").unlink()
    run_in_process(*FLAGS, "--out", str(copy))
    said = capsys.readouterr().out.splitlines()
    warnings = [line for line in said if line.startswith("warning: checkpoint of level")]
    assert len(warnings) == num_damaged
    assert all(line.endswith("going back to the one before") for line in warnings)
    none_left = "warning: no sound checkpoint is left; starting from the beginning"
    assert (none_left in said) == (num_damaged == 3)
    assert contents(copy) == contents(finished_run())


def test_other_number_of_cores_is_warned_about(copy, capsys):
    environment = files.read_json(copy / "environment.json")
    files.write_json(copy / "environment.json", environment | {"cores": 64, "finished": False})
    run_in_process(*FLAGS, "--out", str(copy))
    assert "warning: begun on 64 cores" in capsys.readouterr().out
