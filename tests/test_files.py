"""Files and run folders: atomic, never another's, and the same bytes for the same content."""

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load
from small_run import start

from imp_rg.runs import files
from imp_rg.runs.files import read_json, write_bytes, write_csv
from imp_rg.runs.folder import RunFolder
from imp_rg.runs.tickets import write_ticket
from imp_rg.types import Variables

SETTINGS = {"model": "resnet14", "levels": 12, "seeds": 3, "blocks": "block"}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_failed_write_keeps_old_file(tmp_path, monkeypatch):
    path = tmp_path / "flow.csv"
    write_bytes(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"flow\.csv: cannot be written: No space left on device$"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and names(tmp_path) == ["flow.csv"]


def test_floats_round_trip_to_the_bit(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(500) * 10.0 ** rng.integers(-300, 300, 500)
    values = np.append(values, [0.1 + 0.2, 5e-324, np.nextafter(1, 2), -0.0])
    path = tmp_path / "floats.csv"
    write_csv(path, pd.DataFrame({"value": values}))
    read = np.array([float(line) for line in path.read_text().split()[1:]])
    assert read.tobytes() == values.tobytes()


def test_read_json_names_the_file(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"model": "res')
    with pytest.raises(ValueError, match=r"config\.json: must be a readable JSON file"):
        read_json(path)


def test_equal_tickets_have_equal_bytes(tmp_path):
    """safetensors orders metadata by a hash that is seeded anew each time."""
    rng = np.random.default_rng(0)
    weights = {"dense0": {"kernel": rng.standard_normal((3, 5)).astype(np.float32)}}
    masks = {"dense0": {"kernel": weights["dense0"]["kernel"] > 0}}
    metadata = {"seed": "0", "level": "3", "density": "0.512", "config_hash": "0123abcd"}
    for i in range(8):
        write_ticket(tmp_path / f"{i}", Variables(weights, {}), masks, metadata)
    contents = {(tmp_path / f"{i}").read_bytes() for i in range(8)}
    assert len(contents) == 1
    ticket = load(contents.pop())
    np.testing.assert_array_equal(ticket["params/dense0/kernel"], weights["dense0"]["kernel"])
    np.testing.assert_array_equal(ticket["masks/dense0/kernel"], masks["dense0"]["kernel"])


def test_folder_of_same_settings_opens_again(tmp_path):
    RunFolder(tmp_path / "run", SETTINGS, fresh=False)
    before = (tmp_path / "run" / "config.json").read_bytes()
    RunFolder(tmp_path / "run", SETTINGS, fresh=False)
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_folder_killed_before_its_config_opens(tmp_path):
    """What a SIGKILL within the very first write leaves is no reason to refuse."""
    (tmp_path / ".config.json.4321.tmp").write_bytes(b'{"mod')
    RunFolder(tmp_path, SETTINGS, fresh=False)
    assert names(tmp_path) == ["config.json"]


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    folder = RunFolder(tmp_path, SETTINGS, fresh=False)
    write_bytes(folder.ticket(0, 1), b"ticket")
    leftover = folder.ticket(0, 2).with_name(".seed0-level02.safetensors.77.tmp")
    leftover.write_bytes(b"half")
    RunFolder(tmp_path, SETTINGS, fresh=False)
    assert not leftover.exists() and folder.ticket(0, 1).exists()


@pytest.mark.parametrize("fresh", [False, True])
def test_folder_of_something_else_is_left_alone(tmp_path, fresh):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(ValueError, match="out: must be empty or a run folder"):
        RunFolder(tmp_path, SETTINGS, fresh=fresh)
    assert names(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("fresh", [False, True])
def test_another_programs_config_is_left_alone(tmp_path, fresh):
    """A model hub's snapshot, too, is a folder with a config.json."""
    (tmp_path / "config.json").write_text('{"hidden_size": 768, "model": "bert"}')
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="out: must be empty or a run folder"):
        RunFolder(tmp_path, SETTINGS, fresh=fresh)
    assert names(tmp_path) == ["checkpoints", "config.json"]


def test_other_settings_are_listed(tmp_path):
    RunFolder(tmp_path, SETTINGS, fresh=False)
    other = SETTINGS | {"levels": 5, "model": "lenet300-100"}
    with pytest.raises(ValueError, match="levels 12 there, 5 here; model 'resnet14' there"):
        RunFolder(tmp_path, other, fresh=False)
    assert read_json(tmp_path / "config.json") == SETTINGS


def test_fresh_removes_what_a_run_writes_and_nothing_else(tmp_path):
    folder = RunFolder(tmp_path, SETTINGS, fresh=False)
    for path in (folder.environment, folder.table("flow"), folder.ticket(0, 0)):
        write_bytes(path, b"{}")
    (folder.checkpoints / "3").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "my.csv").write_text("mine")
    other = SETTINGS | {"levels": 5}
    RunFolder(tmp_path, other, fresh=True)
    assert names(tmp_path) == ["config.json", "my.csv", "notes.txt"]
    assert read_json(folder.config) == other


HOLD = """
import sys, time
from pathlib import Path
from imp_rg.runs.lock import lock_folder
lock = lock_folder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_in_use_is_left_alone(fresh, tmp_path):
    RunFolder(tmp_path, SETTINGS, fresh=False)
    write_bytes(tmp_path / "flow.csv", b"of the other run")
    with start("-c", HOLD, str(tmp_path)) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        try:
            with pytest.raises(ValueError, match="out: must not be a folder that another run is"):
                RunFolder(tmp_path, SETTINGS, fresh=fresh)
        finally:
            other.kill()  # what the dead held is free
    assert (tmp_path / "flow.csv").read_bytes() == b"of the other run"
    kept = [RunFolder(tmp_path, SETTINGS, fresh=False) for _ in range(2)]
    assert len(kept) == 2  # this process may open its own folder twice


def test_unwritable_folder_names_the_flag(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"^out: must be a writable folder; .*Not a directory"):
        RunFolder(tmp_path / "file" / "run", SETTINGS, fresh=False)
