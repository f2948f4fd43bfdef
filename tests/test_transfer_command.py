"""The transfer experiment: which trainings, on what, kept through kills, added to."""

import contextlib
import dataclasses
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from language_inputs import write_checkpoint, write_tasks
from small_run import start

from experiments import transfer
from experiments.shell import cli
from experiments.studies.transfer import search
from experiments.studies.transfer.config import PRESETS, Config, task_folder
from experiments.studies.transfer.run import (
    COLUMNS,
    Trainer,
    Training,
    open_ledger,
    plan_trainings,
)
from experiments.studies.transfer.search import (
    does_transfer,
    find_viable,
    search_minimal_densities,
)
from experiments.studies.transfer.sources import prepare_sources
from experiments.trunk import run as trunk_run
from imp_rg.pytree import to_flat
from imp_rg.rg.viability import minimal_density
from imp_rg.runs.files import read_csv, read_json
from imp_rg.runs.folder import ticket_path
from imp_rg.runs.tickets import read_ticket

TASKS = ("digits", "digits+group=odd-even", "digits+permute")
FLAGS = (
    *("--model", "lenet8-8", "--seeds", "2", "--levels", "4", "--levels-compared", "2", "4"),
    *("--num-steps", "12", "--rewind-step", "0", "--batch-size", "32"),
)
SEEDS = (0, 1)


def parse(*flags, tasks=TASKS):
    return cli.parse(PRESETS, [*FLAGS, "--tasks", *tasks, *flags], prog="transfer")


@functools.cache
def prepare_once(config):
    """One compiled program a shape for all tests of this file."""
    return prepare_sources(config, Path())


def prepared(config, folder):
    """Sources whose runs lie in a folder; what is compared has no part in preparing them."""
    shared = {"levels_compared": (1,), "minimal_density": "grid", "out": None, "fresh": False}
    return [
        source._replace(folder=folder / "sources" / task_folder(source.name))
        for source in prepare_once(dataclasses.replace(config, **shared))
    ]


def run_config(config):
    """Runs an experiment here, without its tables and page; returns its folder."""
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(transfer, "prepare_sources", prepared))
        patches.enter_context(mock.patch.object(transfer, "write_findings"))
        patches.enter_context(mock.patch.object(transfer, "make_page"))
        patches.enter_context(mock.patch.object(transfer.Study, "report"))
        transfer.run(config)
    assert config.out is not None
    return config.out


def run(out, *flags, tasks=TASKS):
    return run_config(parse(*flags, "--out", str(out), tasks=tasks))


@functools.cache
def finished():
    """A finished experiment, made once for all tests; they read it or copy it."""
    return run(Path(tempfile.mkdtemp(prefix="imp_rg_test_")) / "transfer")


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(finished(), tmp_path / "copy")


def cells_of(folder):
    return read_csv(folder / "cells.csv")


def make_trainer(folder, **changed):
    """A trainer on the tickets of a folder; changed: schemes instead of those of some tasks."""
    sources = [
        source._replace(trainer=changed.get(source.name, source.trainer))
        for source in prepared(parse(), folder)
    ]
    return Trainer(parse(), sources, open_ledger(folder, SEEDS))


def spied(source):
    """A scheme that notes what it is given."""
    seen, retrain = [], source.trainer.retrain
    return seen, source.trainer._replace(retrain=lambda *a: (seen.append(a), retrain(*a))[1])


def counting(calls):
    """Records what is trained."""
    train = Trainer.train
    return mock.patch.object(
        Trainer, "train", lambda self, one: (calls.append(one), train(self, one))[1]
    )


def test_every_training_is_there_once_with_its_density():
    cells = cells_of(finished())
    assert tuple(cells.columns) == COLUMNS
    assert not cells.duplicated([*Training._fields, "seed"]).any()
    counts = cells.groupby("kind").size()
    # Three targets, two seeds: dense once, tickets of 3 sources at 4 levels, controls at 2.
    assert counts.to_dict() == {"dense": 6, "random": 36, "reinit": 36, "ticket": 72}
    assert (cells["source"] == cells["target"])[cells["kind"] == "dense"].all()
    # 64 x 8 and 8 x 8 weights, of which a fifth is removed at every level, rounded.
    expected = {0: 576, 1: 461, 2: 369, 3: 295, 4: 236}
    for level, kept in expected.items():
        assert (cells["density"][cells["level"] == level] == kept / 576).all()
    assert cells["test_metric"].between(0, 100).all()


def test_config_names_tasks_levels_and_seeds():
    config = read_json(finished() / "config.json")
    assert config["experiment"] == "transfer" and config["tasks"] == list(TASKS)
    assert config["levels_compared"] == [2, 4] and config["seeds"] == 2
    assert read_json(finished() / "environment.json")["finished"] is True


def test_rows_stand_in_the_order_of_the_tasks():
    cells = cells_of(finished())
    kinds = ["dense", "ticket", "random", "reinit"]
    keys = [
        (TASKS.index(r["target"]), TASKS.index(r["source"]), kinds.index(r["kind"]), r["level"])
        for r in cells.to_dict("records")
    ]
    assert keys == sorted(keys)


def test_one_seed_starts_all_tasks_from_the_same_body():
    tickets = [
        to_flat(read_ticket(ticket_path(finished() / "sources" / task_folder(t), 1, 0)).rewind)
        for t in TASKS
    ]
    body = [path for path in tickets[0] if "head" not in path]
    assert len(body) == 4
    for other in tickets[1:]:
        for path in body:
            np.testing.assert_array_equal(other[path], tickets[0][path])
    assert tickets[1]["params/head/kernel"].shape == (8, 2)


def test_head_is_not_pruned_in_the_sources():
    ticket = read_ticket(ticket_path(finished() / "sources" / "digits", 0, 4))
    masks = to_flat(ticket.masks)
    assert masks["head/kernel"].all() and not masks["dense1/kernel"].all()


@pytest.mark.parametrize("kind", ["ticket", "reinit"])
def test_what_is_trained_is_the_source_ticket_with_the_head_of_the_target(kind):
    """Assembled by hand from the files, then trained."""
    training = Training("digits+group=odd-even", "digits+permute", kind, 2)
    target = prepared(parse(), finished())[1]
    seen, spy = spied(target)
    metrics = make_trainer(finished(), **{target.name: spy}).train(training)
    folder = finished() / "sources" / "digits+permute"
    keys, start_from, masks, _ = seen[0]
    fresh = target.setup.shapes
    for row in range(2):
        ticket = read_ticket(ticket_path(folder, row, 2))
        given, mask = (
            to_flat(jax.tree.map(lambda x, row=row: x[row], tree))
            for tree in (start_from.params, masks)
        )
        for path, kept in to_flat(ticket.masks).items():
            if path.startswith("head/"):
                assert mask[path].all() and given[path].shape == fresh["head"][path[5:]].shape
            else:
                np.testing.assert_array_equal(mask[path], kept)
                is_same = np.array_equal(given[path], to_flat(ticket.rewind.params)[path])
                assert is_same == (kind == "ticket" or path.endswith("bias"))
    scheme = target.trainer
    variables, _ = scheme.retrain(
        jax.random.clone(keys), start_from, masks, target.setup.train_data
    )
    np.testing.assert_array_equal(metrics, scheme.measure(variables, target.setup.test_data))
    np.testing.assert_array_equal(open_ledger(finished(), SEEDS)[training], metrics)


def test_trainings_of_a_target_share_head_and_order_and_differ_between_seeds():
    seen, spy = spied(prepared(parse(), finished())[0])
    trainer = make_trainer(finished(), digits=spy)
    for source, kind, level in (("digits", "ticket", 1), ("digits+permute", "random", 4)):
        trainer.train(Training("digits", source, kind, level))
    (keys, first, _, _), (other_keys, second, _, _) = seen
    np.testing.assert_array_equal(jax.random.key_data(keys), jax.random.key_data(other_keys))
    head, other = (np.asarray(v.params["head"]["kernel"]) for v in (first, second))
    np.testing.assert_array_equal(head, other)
    assert not np.array_equal(head[0], head[1])


def test_targets_of_one_shape_share_a_compiled_program():
    sources = prepare_sources(parse(), finished())
    assert sources[0].trainer is sources[2].trainer is not sources[1].trainer
    trainer, compiled = Trainer(parse(), sources, open_ledger(finished(), SEEDS)), []

    def listen(event, duration_secs, **_):
        if "backend_compile" in event:
            compiled.append(duration_secs)

    trainer.train(Training("digits", "digits", "ticket", 1))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for level in (2, 3):
            trainer.train(Training("digits", "digits", "ticket", level))
        trainer.train(Training("digits+permute", "digits", "ticket", 1))
        assert not compiled
        trainer.train(Training("digits+group=odd-even", "digits", "ticket", 1))
        assert compiled
    finally:
        jax.monitoring.clear_event_listeners()


def test_finished_experiment_reports_at_once(copy, capsys, monkeypatch):
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    monkeypatch.setitem(globals(), "prepared", mock.Mock(side_effect=AssertionError))
    run(copy)
    assert "already finished; reporting again" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


def test_added_task_trains_only_what_is_new(copy):
    calls, new = [], "digits+permute=3"
    sources = {p: p.read_bytes() for p in (copy / "sources").rglob("*") if p.is_file()}
    with counting(calls):
        run(copy, tasks=(new,) + TASKS[:1])  # others stay
    assert len(calls) == len(set(calls)) and all(new in one[:2] for one in calls)
    # A target with 4 sources, and a source of 3 targets, each at 4 levels and 2 x 2 controls.
    assert len(calls) == 1 + 4 * 8 + 3 * 8
    before = {tuple(r) for r in cells_of(finished()).itertuples(index=False)}
    after = {tuple(r) for r in cells_of(copy).itertuples(index=False)}
    assert before < after and len(after) == len(before) + 2 * len(calls)
    assert read_json(copy / "config.json")["tasks"] == [*TASKS, new]
    assert all(path.read_bytes() == content for path, content in sources.items())


def test_added_level_trains_only_its_controls(copy):
    calls = []
    with counting(calls):
        run(copy, "--levels-compared", "3")
    assert {one.level for one in calls} == {3} and len(calls) == 3 * 3 * 2
    assert read_json(copy / "config.json")["levels_compared"] == [2, 3, 4]


@pytest.mark.parametrize("counts", [(40,), pytest.param((5, 40), marks=pytest.mark.long)])
def test_killed_experiment_ends_with_the_same_bits(copy, counts, capsys):
    """Killed among the trainings, for what sources survive is tested where they are run."""
    (copy / "cells.csv").unlink()
    for count in counts:
        flags = (*FLAGS, "--tasks", *TASKS, "--out", str(copy))
        child = start("tests/kill_ledger.py", "transfer", str(count), *flags)
        output = child.communicate(timeout=300)
        assert child.returncode == -9, output
        assert not (copy / "cells.csv").read_bytes().endswith(b"\n")
    calls = []
    with counting(calls):
        run(copy)
    # Those that were being written are lost, no others.
    left = 75 - sum(count - 1 for count in counts)
    assert len(calls) == left
    said = f"0 sources of 5 levels and {left} trainings are missing, {2 * left} networks; about"
    assert said in capsys.readouterr().out
    assert (copy / "cells.csv").read_bytes() == (finished() / "cells.csv").read_bytes()


def test_foreign_table_is_refused(tmp_path):
    (tmp_path / "cells.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="must have the columns target, source"):
        open_ledger(tmp_path, SEEDS)


def test_seed_without_a_ticket_is_nan_and_the_other_goes_on(copy):
    training = Training("digits", "digits+permute", "ticket", 4)
    ticket_path(copy / "sources" / "digits+permute", 0, 4).unlink()
    found = make_trainer(copy).train(training)
    assert np.isnan(found[0]) and np.isfinite(found[1])
    ticket_path(copy / "sources" / "digits+permute", 1, 4).unlink()
    assert np.isnan(make_trainer(copy).train(training)).all()


def test_loss_that_is_not_finite_is_nan():
    scheme = prepared(parse(), finished())[0].trainer

    def retrain(*args):
        variables, info = scheme.retrain(*args)
        return variables, info._replace(is_finite=jnp.array([True, False]))

    trainer = make_trainer(finished(), digits=scheme._replace(retrain=retrain))
    found = trainer.train(Training("digits", "digits", "ticket", 1))
    assert np.isfinite(found[0]) and np.isnan(found[1])


def test_search_finds_what_the_grid_of_all_levels_says(copy, monkeypatch):
    """Networks of twelve steps learn too little for all levels to be viable: they are taken."""
    monkeypatch.setattr(search, "viable_levels", lambda own, *_: [len(own)])
    grid = open_ledger(finished(), SEEDS)
    (copy / "cells.csv").unlink()
    run(copy, "--minimal-density", "search", "--levels-compared", "4")
    config, trainer = parse("--minimal-density", "search"), make_trainer(copy)
    own = [Training("digits", "digits", "ticket", level) for level in range(1, 5)]
    density = np.array([trainer.density(one) for one in own])
    calls = []
    with counting(calls):
        found = search_minimal_densities(config, trainer)
    assert not calls  # the experiment has searched already
    compared = 0
    for (source, target), result in found.items():
        transfers = [
            does_transfer(grid[target, source, "ticket", n], grid[target, target, "ticket", n])
            for n in range(1, 5)
        ]
        brute = minimal_density(np.array(transfers), density)
        if brute.is_monotone:
            assert (result.level, result.density) == (brute.level, brute.density)
            compared += 1
    assert compared >= 3


def test_control_without_a_value_leaves_the_search_its_levels():
    """A seed that failed, or all of them, must not make every level look empty."""
    config = parse("--minimal-density", "search", "--levels-compared", "2", "4")
    table = {one: np.array([30.0, np.nan]) for one in plan_trainings(config, "digits")}
    table[Training("digits", "digits", "random", 2)] = np.array([np.nan, np.nan])
    table[Training("digits", "digits", "dense", 0)] = np.array([98.0, np.nan])
    for level, metric in enumerate((95.0, 94.0, 90.0, 40.0), 1):
        table[Training("digits", "digits", "ticket", level)] = np.array([metric, np.nan])
    trainer: Any = mock.Mock(metric=table.__getitem__)
    assert find_viable(config, trainer, "digits") == range(1, 4)


def test_search_trains_less():
    config = parse("--minimal-density", "search", "--levels-compared", "4")
    planned = [plan_trainings(c, "digits") for c in (config, parse("--levels-compared", "4"))]
    own = [one for one in planned[0] if one.source == "digits" and one.kind == "ticket"]
    assert [one.level for one in own] == [1, 2, 3, 4] and set(planned[0]) < set(planned[1])


@pytest.mark.parametrize(
    ("ticket", "own", "answer"),
    [
        ([90.0, 92.0], [91.0, 92.0], True),
        ([88.0, 89.0], [91.0, 91.0], False),
        ([80.0, 92.0], [82.0, 92.0], True),  # two standard errors of its own ticket are 10 points
        ([np.nan, np.nan], [91.0, 92.0], False),
    ],
)
def test_transfers_is_within_the_margin_of_the_own_ticket(ticket, own, answer):
    assert does_transfer(np.array(ticket), np.array(own)) is answer


@pytest.mark.parametrize(
    ("flags", "tasks", "words"),
    [
        ((), ("digits",), ["tasks", "at least 2"]),
        ((), ("digits", "digits"), ["tasks", "different"]),
        ((), ("digits", "digits+noize=1"), ["'noize'", "nearest: noise"]),
        ((), ("digits", "digits+resize=16"), ["(8, 8, 1)", "(16, 16, 1)", "--resize N"]),
        ((), ("digits", "text:rte"), ["tasks", "all images or all text:NAME"]),
        (("--levels-compared", "5"), TASKS, ["levels_compared", "1 to 4", "density of 0.41"]),
        (("--levels-compared", "2", "2"), TASKS, ["levels_compared", "different"]),
        (("--levels", "40", "--levels-compared", "40"), TASKS, ["levels", "got 40"]),
        (("--redrawn", "tail/*"), TASKS, ["error: redrawn: must match", "tail"]),
        (("--levels", "0"), TASKS, ["levels: must be at least 1, got 0"]),
        (("--model", "lenat8"), TASKS, ["model", "nearest"]),
        (("--resize", "0"), TASKS, ["resize", "at least 1"]),
        (("--seeds", "0"), TASKS, ["seeds", "at least 1"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_folder(
    tmp_path, monkeypatch, capsys, flags, tasks, words
):
    out = tmp_path / "refused"
    monkeypatch.setattr("sys.argv", ["transfer", *FLAGS, *flags, "--tasks", *tasks, f"--out={out}"])
    with pytest.raises(SystemExit) as stop:
        cli.main(transfer.run, PRESETS, prog="transfer")
    message = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and not out.exists()
    assert message.startswith("error: ") and "\n" not in message
    assert all(word in message for word in words), message


def test_resize_makes_other_sizes_fit(tmp_path):
    config = parse("--resize", "8", tasks=("digits", "digits+resize=16"))
    sources = prepare_sources(config, tmp_path)
    shapes = {source.setup.train_data.x.shape for source in sources}
    assert shapes == {(1437, 8, 8, 1)}


def test_folder_of_other_settings_is_refused_and_kept(copy):
    before = (copy / "cells.csv").read_bytes()
    with pytest.raises(ValueError, match="num_steps 12 there, 13 here"):
        run(copy, "--num-steps", "13")
    assert (copy / "cells.csv").read_bytes() == before


def test_fresh_throws_the_trainings_away(copy, capsys, monkeypatch):
    class ReachedError(Exception):
        pass

    monkeypatch.setattr(trunk_run, "run_levels", mock.Mock(side_effect=ReachedError))
    with pytest.raises(ReachedError):
        run(copy, "--fresh", tasks=TASKS[:2])
    said = capsys.readouterr().out
    assert "2 tasks: 2 sources of 5 levels and 34 trainings are missing" in said
    assert read_json(copy / "config.json")["tasks"] == list(TASKS[:2])
    assert cells_of(copy).empty and not list((copy / "sources" / "digits" / "tickets").glob("*"))


def test_folders_of_tasks_are_names_without_slashes():
    assert task_folder("digits+group=0-2_3-5") == "digits+group=0-2_3-5"
    assert task_folder("npz:/data/a b.npz+invert") == "npz__data_a_b.npz+invert"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_plan_three_levels_or_more(name):
    preset = PRESETS[name]
    assert len(preset.levels_compared) >= 3
    num_tasks, num_levels = len(preset.task_names), len(preset.ticket_levels)
    own = preset.levels - num_levels
    per_target = 1 + num_tasks * (num_levels + 2 * len(preset.levels_compared)) + own
    assert len(plan_trainings(preset, preset.task_names[0])) == per_target


def test_networks_with_convolutions_have_fewer_tasks_by_default():
    assert len(Config().task_names) >= 8 > len(Config(model="resnet14").task_names) >= 4
    assert dataclasses.replace(Config(), tasks=TASKS).task_names == TASKS
    assert not pd.isna(Config().levels)


def test_text_tasks_go_through_the_same_code(tmp_path):
    """The checkpoint under the source's masks, with a fresh head (protocol of BERT tickets)."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    tasks = ("text:mrpc", "text:wnli")
    flags = (
        *("--preset", "text", "--seeds", "1", "--levels", "1", "--levels-compared", "1"),
        *("--minimal-density", "none", "--text.source", f"jsonl:{write_tasks(tmp_path / 'texts')}"),
        *("--text.checkpoint", str(checkpoint), "--text.max-length", "24"),
        *("--text.train.batch-size", "8", "--text.train.epochs", "1", "--text.train.buckets", "1"),
        *("--tasks", *tasks, "--out", str(tmp_path / "out")),
    )
    config = cli.parse(PRESETS, flags, prog="transfer")
    with mock.patch.object(transfer, "_announce"):
        out = run_config(config)
    cells = cells_of(out)
    assert len(cells) == 2 * (1 + 2 * 3) and cells["test_metric"].between(0, 100).all()
    sources = prepared(config, out)
    seen, spy = spied(sources[0])
    trainer = Trainer(
        config, [sources[0]._replace(trainer=spy), sources[1]], open_ledger(out, config.seed_list)
    )
    trainer.train(Training("text:mrpc", "text:wnli", "ticket", 1))
    ticket = read_ticket(ticket_path(out / "sources" / "text_wnli", 0, 1))
    _, given, masks, _ = seen[0]
    given, masks = to_flat(given.params), to_flat(masks)
    for path, kept in to_flat(ticket.masks).items():
        np.testing.assert_array_equal(masks[path][0], kept)
        is_same = np.array_equal(given[path][0], to_flat(ticket.rewind.params)[path])
        assert is_same != (path == "head/kernel"), path
