"""`experiments.language_flow`: one run folder a task, continued where it stopped, errors named."""

import dataclasses
import json
from unittest import mock

import pytest
from interrupting import stopped_before
from language_inputs import LETTERS, planted_rows, write_checkpoint, write_rows, write_tasks
from rich.console import Console

from experiments import language_flow
from experiments.shell import cli
from experiments.studies.language.assemble import load_texts, prepare
from experiments.studies.language.config import PRESETS
from experiments.trunk import run

TABLES = ("flow.csv", "null_flow.csv", "metrics.csv", "spectrum.csv", "observables.csv")
SMALL = (
    *("--preset", "smoke", "--max-length", "24", "--levels", "2"),
    *("--batch-size", "8", "--buckets", "1"),
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Flags that name a tiny checkpoint and tiny tasks."""
    folder = tmp_path_factory.mktemp("language")
    checkpoint, texts = write_checkpoint(folder / "checkpoint"), write_tasks(folder / "texts")
    return ("--checkpoint", str(checkpoint), "--source", f"jsonl:{texts}")


def run_in_process(*flags):
    """Runs the experiment as the command would, here."""
    return language_flow.run(cli.parse(PRESETS, (*SMALL, *flags), prog="language_flow"))


def run_without_pages(*flags):
    with (
        mock.patch.object(run, "report"),
        mock.patch.object(language_flow, "report", side_effect=lambda folder, study: folder),
    ):
        return run_in_process(*flags)


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """The folder of a finished run on two tasks."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return run_without_pages(*inputs, "--tasks", "mrpc", "wnli", "--out", str(out))


def test_each_task_has_a_run_folder(finished):
    assert json.loads((finished / "config.json").read_text())["tasks"] == ["mrpc", "wnli"]
    digests, widths = set(), set()
    for task in ("mrpc", "wnli"):
        assert all((finished / task / name).exists() for name in TABLES)
        settings = json.loads((finished / task / "config.json").read_text())
        assert (settings["dataset"], settings["num_train"]) == (task, 24)
        assert settings["metric"] == "test accuracy (%)"
        assert settings["num_truncated"] == settings["num_empty"] == [0, 0]
        assert (finished / task / "similarity.csv").exists()
        digests.add(settings["data_sha256"])
        widths.add(tuple(settings["widths"]))
    assert len(digests) == 2 and len(widths) == 1  # other rows, the same program


def test_again_it_only_writes_the_pages(inputs, finished, capsys):
    """Of all tasks in the folder, whichever the command names."""
    before = (finished / "mrpc" / "flow.csv").read_bytes()
    run_in_process(*inputs, "--tasks", "mrpc", "--out", str(finished))
    said = capsys.readouterr().out
    assert "already finished" in said and "about" not in said
    assert (finished / "mrpc" / "flow.csv").read_bytes() == before
    assert (finished / "mrpc" / "report.html").exists()
    assert "wnli" in (finished / "report.html").read_text()


def test_a_stopped_run_ends_with_the_same_bits(inputs, finished, tmp_path):
    flags = (*inputs, "--tasks", "mrpc", "--out", str(tmp_path / "run"))
    with stopped_before(2):
        run_without_pages(*flags)
    run_without_pages(*flags)
    for name in TABLES:
        there, here = (folder / "mrpc" / name for folder in (finished, tmp_path / "run"))
        assert there.read_bytes() == here.read_bytes(), name


def test_long_and_empty_texts_are_counted(inputs, tmp_path, capsys):
    rows = planted_rows(20, seed=0)
    rows[3]["sentence1"] = " ".join(LETTERS * 9)
    rows[5]["sentence2"] = " "
    for split in ("train", "validation"):
        write_rows(tmp_path / "texts", "mrpc", split, rows)
    flags = (*inputs, "--source", f"jsonl:{tmp_path / 'texts'}", "--tasks", "mrpc")
    stop = mock.patch.object(language_flow, "estimate_seconds", side_effect=KeyboardInterrupt)
    with stop, pytest.raises(KeyboardInterrupt):
        run_in_process(*flags, "--out", str(tmp_path / "run"))
    assert "2 cut to the limit, 2 with an empty text" in capsys.readouterr().out
    settings = json.loads((tmp_path / "run" / "mrpc" / "config.json").read_text())
    assert settings["num_truncated"] == settings["num_empty"] == [1, 1]


def missing_field(folder):
    rows = planted_rows(20, seed=0)
    del rows[6]["sentence2"]
    write_rows(folder / "texts", "mrpc", "train", rows)
    return ("--source", f"jsonl:{folder / 'texts'}")


def strange_label(folder):
    rows = planted_rows(20, seed=0)
    rows[1]["label"] = 2
    write_rows(folder / "texts", "mrpc", "train", rows)
    return ("--source", f"jsonl:{folder / 'texts'}")


def other_vocabulary(folder):
    path = write_checkpoint(folder / "other")
    words = (path / "vocab.txt").read_text()
    (path / "vocab.txt").write_text(words + "spare\n")
    return ("--checkpoint", str(path))


def more_layers(folder):
    return ("--checkpoint", str(write_checkpoint(folder / "other", num_hidden_layers=3)))


@pytest.mark.parametrize(
    ("make_flags", "sentence"),
    [
        (missing_field, "train.jsonl line 7: must have the column sentence2"),
        (strange_label, "train.jsonl line 2: label must be an integer from 0 to 1, got 2"),
        (other_vocabulary, "vocabulary: "),
        (more_layers, "must hold encoder.layer.2"),
        (lambda _: ("--tasks", "mrcp"), "task: must be a known task (nearest: mrpc"),
        (lambda _: ("--tasks", "wnli", "WNLI"), "tasks: must differ"),
        (lambda _: ("--max-length", "513"), "max_length: must not exceed the 512 tokens"),
        (lambda _: ("--levels", "10"), "levels: "),
        (lambda _: ("--blocks", "stage"), "blocks: must be one of layer, kind, tensor"),
        (lambda _: ("--checkpoint", "no/such/place"), "checkpoint: "),
        (lambda _: ("--source", "jsonl:no/such/place"), "source: jsonl: needs the path"),
    ],
)
def test_bad_input_is_one_line(make_flags, sentence, inputs, tmp_path, capsys):
    flags = (*inputs, "--tasks", "mrpc", "--out", str(tmp_path / "run"), *make_flags(tmp_path))
    arguments = mock.patch("sys.argv", ["language_flow", *SMALL, *flags])
    with arguments, pytest.raises(SystemExit) as stop:
        cli.main(language_flow.run, PRESETS, prog="language_flow")
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_dense_pooler_is_no_part_of_the_flow(inputs):
    flags = (*SMALL, *inputs, "--tasks", "mrpc", "--pooler", "dense")
    config = cli.parse(PRESETS, flags, prog="language_flow")
    setup = prepare(config, load_texts(config)[0], Console())
    whole = prepare(dataclasses.replace(config, pooler="pruned"), load_texts(config)[0], Console())
    assert whole.blocks.names == (*setup.blocks.names, "pooler")
    assert sum(whole.blocks.sizes) - sum(setup.blocks.sizes) == 12 * 12
    assert sum(setup.blocks.prunable) == 12


def test_presets_follow_the_study():
    paper = PRESETS["paper"]
    assert len(paper.tasks) == 10 and paper.max_length == 128
    tasks = {task.name: task for task in paper.task_list}
    assert paper.train_config(tasks["rte"]).level_steps(2490) == 234
    squad = paper.train_config(tasks["squad"])
    assert (squad.epochs, squad.batch_size, squad.learning_rate) == (4, 16, 3e-5)
    assert squad.schedule == paper.train.schedule == "run"
    assert paper.length(tasks["squad"]) == 384
