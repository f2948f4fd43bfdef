"""Settings, studies, the ledger of trainings and the progress display, which all commands share."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tyro
from rich.console import Console

from experiments.shell import cli, progress
from experiments.shell.ledger import Ledger
from experiments.shell.progress import Progress
from experiments.shell.settings import RunSettings, aside, identity, narrowed, settings
from experiments.shell.study import Study, duration_text, seconds_of, seconds_so_far
from experiments.trunk.progress import LevelProgress
from imp_rg.report.page import Page, Section
from imp_rg.runs.files import read_json
from imp_rg.runs.folder import RunFolder, config_hash


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5


@settings
class Config(RunSettings):
    """Of a test.

    Attributes:
      name: Own field.
      data: A path.
      preset: Says nothing of what is run.
      flat: Flags without a prefix.
      nested: Flags with one.
    """

    name: str = "a"
    data: Path | None = None
    preset: str = aside("default")
    flat: tyro.conf.OmitArgPrefixes[Inner] = Inner()
    nested: Inner = Inner(rate=0.25)


def test_identity_is_flat_where_flags_are_and_leaves_out_what_is_aside(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = identity(Config(data=Path("x"), out=Path("y"), fresh=True, preset="smoke"))
    expected = {"name": "a", "data": str(tmp_path / "x"), "rate": 0.5, "nested": {"rate": 0.25}}
    shared = {"seeds": 3, "levels": 12, "ci_level": 0.95, "device": "auto", "deterministic": False}
    assert found == expected | shared
    assert config_hash(found) == config_hash(identity(Config(data=Path("x"))))


def test_help_begins_with_own_fields_and_explains_every_one(capsys):
    with pytest.raises(SystemExit):
        cli.parse({"default": Config()}, ["--help"], prog="test")
    text = capsys.readouterr().out
    assert text.index("--name") < text.index("--preset") < text.index("--seeds")
    for words in ("Own field.", "Coverage of the intervals", "Throw away what it holds"):
        assert words in text


@pytest.mark.parametrize(
    ("field", "value"), [("ci_level", 95.0), ("seeds", 0), ("device", "abacus")]
)
def test_shared_settings_are_checked(field, value):
    changes: dict[str, Any] = {field: value}
    with pytest.raises(ValueError, match=f"^{field}: .*{value}"):
        Config(**changes)


def test_narrowed_takes_what_both_have_and_the_changes():
    @settings
    class Other(RunSettings):
        """Of a test."""

        name: str = "b"
        only_here: int = 1

    found = narrowed(Config(name="c", seeds=7), Other, levels=2)
    assert (found.name, found.seeds, found.levels, found.only_here) == ("c", 7, 2, 1)


def test_default_folder_is_named_by_settings_and_found_under_its_former_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    study = Study("new", quiet=True)
    digest = config_hash({"a": 1})
    assert study.default_folder("x", settings={"a": 1}) == Path(f"runs/new/x-{digest}")
    former = Path(f"runs/old/x-{digest}")
    assert study.default_folder("x", settings={"a": 1}, former="old") == Path(
        f"runs/new/x-{digest}"
    )
    former.mkdir(parents=True)
    assert study.default_folder("x", settings={"a": 1}, former="old") == former


def test_a_study_records_its_environment_and_writes_its_page(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.argv", ["x", "--name", "two words"])
    study = Study("some")
    folder = RunFolder(tmp_path / "out", {"a": 1}, fresh=False)
    assert seconds_so_far(folder) == 0
    study.describe(folder, is_finished=False, seconds=12.34)
    environment = read_json(folder.environment)
    assert environment["command"] == "python -m experiments.some --name 'two words'"
    assert environment["finished"] is False and seconds_so_far(folder) == 12.3
    table = pd.DataFrame({"head <1>": ["cell & more"]})
    page = Page(
        title="T",
        question="Q?",
        answers=["[yes] it is"],
        sections=[Section(title="S", table=table, items=["limit"], is_folded=True, name="s")],
    )
    assert study.report(page, folder.path) == folder.path
    study.table(table, "shown")
    said = capsys.readouterr().out
    assert "[yes] it is" in said and str(folder.path / "report.html") in said and "shown" in said
    html = (folder.path / "report.html").read_text()
    for part in ("head &lt;1&gt;", "cell &amp; more", "<details>", "<li>limit</li>", 'id="s"'):
        assert part in html
    assert "two words" in html  # the environment stands at the end


def test_renamed_command_says_its_new_name_in_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.renamed("old", "new")
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and "experiments.new" in error


def test_times():
    calls = []
    assert seconds_of(lambda: calls.append(1)) < 1 and len(calls) == 2
    assert duration_text(90) == "1.5 minutes" and duration_text(7200) == "2.0 hours"


# The ledger.

KEY, COLUMNS = ("task", "level"), ("task", "level", "seed", "metric")


def open_ledger(path, **options):
    return Ledger(path, key=KEY, columns=COLUMNS, num_rows=lambda key: 2, **options)


def rows(task, level, metrics=(1.5, np.nan)):
    return pd.DataFrame(
        {"task": task, "level": level, "seed": range(len(metrics)), "metric": metrics}
    )


def test_trainings_are_on_disk_and_known_after_a_restart(tmp_path):
    path = tmp_path / "cells.csv"
    ledger = open_ledger(path)
    ledger.add(rows("b", 2))
    ledger.add(rows("a", 10, (0.1, 0.2)))
    again = open_ledger(path)
    assert ("b", 2) in again and ("a", 10) in again and ("a", 2) not in again
    np.testing.assert_array_equal(again["a", 10], [0.1, 0.2])
    np.testing.assert_array_equal(again["b", 2], [1.5, np.nan])
    again.sort(lambda frame: [frame["task"], frame["level"], frame["seed"]])
    assert path.read_text().splitlines()[1:] == ["a,10,0,0.1", "a,10,1,0.2", "b,2,0,1.5", "b,2,1,"]


@pytest.mark.parametrize("cut", ["b,2,1,", "b,2,", "\n", "b,2,0,1.5\nb,2"])
def test_a_training_that_was_cut_off_is_forgotten(tmp_path, cut):
    path = tmp_path / "cells.csv"
    ledger = open_ledger(path)
    ledger.add(rows("a", 1))
    ledger.add(rows("b", 2))
    text = path.read_text()
    path.write_text(text[: text.rindex(cut)])
    again = open_ledger(path)
    assert ("a", 1) in again and ("b", 2) not in again
    assert len(again.frame()) == 2 and path.read_text().endswith("\n")
    again.add(rows("b", 2))
    assert path.read_text() == text


def test_a_full_disk_leaves_whole_rows(tmp_path, monkeypatch):
    path = tmp_path / "cells.csv"
    ledger = open_ledger(path)
    ledger.add(rows("a", 1))
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "fsync", full)
        ledger.add(rows("b", 2))
    assert path.read_bytes() == before and ("b", 2) not in ledger


def test_fresh_begins_anew_and_another_table_is_refused(tmp_path):
    path = tmp_path / "cells.csv"
    open_ledger(path).add(rows("a", 1))
    assert ("a", 1) not in open_ledger(path, fresh=True)
    path.write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match="must have the columns task, level, seed, metric"):
        open_ledger(path)


# Progress.


def test_time_left_counts_from_the_first_piece_of_work(monkeypatch, capsys):
    clock = iter([100.0, 104.0, 106.0, 110.0, 110.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1)
    with Progress(Console(width=80), total=4) as shown:
        shown.show("begins")  # 100: no work, no speed
        shown.advance(1, "one")  # 104: the first piece compiled
        shown.advance(1, "two")  # 106: 2 s a piece, 2 left
        shown.advance(2, "end")  # 110
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["begins", "one", "two · 0 min 04 s left", "end · 0 min 00 s left"]


def test_work_of_earlier_starts_tells_nothing_of_the_speed(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1)
    clock = iter([0.0, 10.0, 11.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    shown = LevelProgress(seeds=[3, 4], num_levels=3, steps=range(0, 5), console=Console(width=80))
    shown.start_level(1, 0.5, [0, 1])  # level 0 was done before: 10 of 30
    shown.on_progress(0, 5, 0.25)  # 15 of 30 at 10 s
    shown.on_progress(1, 5, 0.25)  # 20 of 30 at 11 s
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "level 1/2 · density 0.500" and "left" not in lines[1]
    assert lines[2].startswith("level 1/2 · density 0.500 · seed 4 · step 5/5 · loss 0.250")
    assert lines[2].endswith("0 min 02 s left")


def test_every_report_stops_after_an_interrupt():
    shown = Progress(Console(quiet=True), total=1)
    cli.interrupted.set()
    try:
        with pytest.raises(KeyboardInterrupt):
            shown.advance(1, "work")
    finally:
        cli.interrupted.clear()


def test_pieces_of_many_threads_add_up():
    with Progress(Console(quiet=True), total=400) as shown, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: shown.advance(1, "work"), range(400)))
        assert shown._done == 400
