"""Tables of commands are, byte by byte, those of the commit before the house was rebuilt."""

import subprocess

import pytest
import same_results


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_what_differs_is_named_and_seconds_are_not(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    for folder, seconds in ((before, "1.5"), (after, "2.5")):
        write(folder, "sub/metrics.csv", f"seed,seconds,loss\n0,{seconds},0.25\n1,{seconds},0.5\n")
        write(folder, "timing.csv", f"seed\n{seconds}\n")
        write(folder, "flow.csv", "seed,density\n0,0.8\n")
        write(folder, "notes.txt", seconds)
    assert same_results.differences(before, after) == []
    write(after, "flow.csv", "seed,density\n0,0.80\n")
    write(after, "sub/metrics.csv", "seed,seconds,loss\n0,1.5,0.25\n1,1.5,0.75\n")
    write(after, "more.csv", "seed\n")  # a table that the earlier tree did not write
    write(before, "fewer.csv", "seed\n")
    assert same_results.differences(before, after) == [
        "fewer.csv: is missing",
        "flow.csv: differs from line 2 on",
        "sub/metrics.csv: differs from line 3 on",
    ]
    write(after, "flow.csv", "seed,density\n0,0.8\n1,0.8\n")
    assert "flow.csv: differs from line 3 on" in same_results.differences(before, after)


def test_a_revision_that_is_not_there_is_said(tmp_path, monkeypatch):
    with pytest.raises(same_results.NoRevisionError):
        same_results.export("no-such-revision", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(same_results.NoRevisionError, match="there is no git"):
        same_results.export("HEAD", tmp_path)


def test_commands_are_called_what_the_tree_calls_them(tmp_path, monkeypatch):
    called = []

    def run(command, **settings):
        called.append((command[2].removeprefix("experiments."), settings["cwd"].name))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(same_results.subprocess, "run", run)
    for tree in (tmp_path / "old", same_results.ROOT):
        same_results.run_command("rg_axioms", tree, tmp_path / f"out-{tree.name}")
    same_results.run_command("linear", same_results.ROOT, tmp_path / "out")
    own = same_results.ROOT.name
    assert called == [
        ("projection", "old"),
        ("rg_axioms", own),
        ("imp_flow", own),  # what linear reads
        ("linear", own),
    ]


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    try:
        folder = tmp_path_factory.mktemp("tree")
        return same_results.export(same_results.BEFORE_THE_REBUILDING, folder), same_results.ROOT
    except same_results.NoRevisionError as error:
        pytest.skip(f"no earlier tree to compare with: {error}")


@pytest.mark.long  # every command runs twice, in processes of its own, half a minute each time
@pytest.mark.parametrize("name", ["imp_flow", "rg_axioms"])
def test_tables_are_those_of_the_earlier_commit(name, trees, tmp_path):
    assert same_results.compare(name, trees, tmp_path) == []
