"""`python -m experiments.elastic`: trainings that resume bit for bit, a page, one-line errors."""

import contextlib
import dataclasses
import functools
import os
import shutil
import signal
from unittest import mock

import jax
import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from small_run import everything, start

from experiments import elastic
from experiments.shell import cli
from experiments.studies.elastic import findings
from experiments.studies.elastic import run as trainings
from experiments.studies.elastic.config import Config, Route
from experiments.studies.elastic.page import make_page
from experiments.studies.elastic.run import Training, levels_at, plan_trainings
from experiments.trunk import assemble, several
from experiments.trunk import run as imp_run
from imp_rg.models.resnet_cifar import PRUNABLE
from imp_rg.pytree import to_flat
from imp_rg.runs.files import read_csv, write_csv
from imp_rg.runs.folder import ticket_path
from imp_rg.runs.tickets import read_ticket
from imp_rg.tickets.elastic import transform
from imp_rg.tickets.stretching import appending, squeeze

FLAGS = (
    *("--depths", "14", "20", "--width", "0.125", "--seeds", "2", "--levels", "2"),
    *("--sigma-levels", "2", "--densities", "0.64", "--num-steps", "4", "--rewind-step", "1"),
    *("--batch-size", "16"),
)


@functools.cache
def prepare_once(config, console=None):
    """One compiled program a depth for all tests of this file."""
    del console
    return assemble.prepare(config, Console(quiet=True))


def prepared(config, console):
    del console
    return prepare_once(dataclasses.replace(config, out=None, fresh=False))


def run(*flags, page=False):
    """The command, in this process, without the pages of its source runs and mostly its own."""
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(imp_run, "report"))
        patches.enter_context(mock.patch.object(several, "prepare", prepared))
        patches.enter_context(mock.patch.object(imp_run, "prepare", prepared))
        patches.enter_context(mock.patch.object(several, "estimate_seconds", lambda *_: 90.0))
        if not page:
            patches.enter_context(mock.patch.object(elastic, "write_findings"))
            patches.enter_context(mock.patch.object(elastic, "make_page"))
            patches.enter_context(mock.patch.object(elastic.Study, "report"))
        config = cli.parse(elastic.PRESETS, [*FLAGS, *flags], prog="elastic")
        elastic.run(config)
        return config.out


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished experiment; tests read it or copy it."""
    out = tmp_path_factory.mktemp("elastic") / "run"
    assert run("--out", str(out), page=True) == out
    return out


@pytest.fixture
def copy(finished, tmp_path):
    """A finished experiment of one's own."""
    return shutil.copytree(finished, tmp_path / "run")


def forbid(*arguments, **options):
    raise AssertionError("what is finished must not be trained again")


def test_every_training_is_a_row(finished):
    cells = read_csv(finished / "cells.csv")
    # Own tickets of both depths, one stretch (with shuffled copies), two squeezes; two seeds.
    assert len(cells) == 2 * (3 + 3 + 4 + 3 + 3)
    names = cells.groupby(["source_depth", "target_depth"])["map"].unique()
    found = {pair: sorted(found) for pair, found in names.items()}
    assert found == {
        (14, 14): ["identity"], (20, 20): ["identity"], (14, 20): ["appending"],
        (20, 14): ["drop-first", "drop-last"],
    }  # fmt: skip
    assert set(cells["level"]) == {2} and cells["test_metric"].between(0, 100).all()
    ticket = cells[cells["kind"] == "ticket"]
    for name in ("random", "reinit"):
        other = cells[cells["kind"] == name]
        for density in ("density", "density_stage1", "density_stage3"):
            np.testing.assert_array_equal(other[density], ticket[density])
    own = ticket[ticket["map"] == "identity"]
    np.testing.assert_allclose(own["density"], 0.64, atol=1e-3)


def test_tables_and_page(finished):
    sigma = read_csv(finished / "sigma.csv")
    assert set(zip(sigma["depth"], sigma["block"], strict=True)) == {
        (14, f"stage{s}/block1") for s in (1, 2, 3)
    } | {(20, f"stage{s}/block{b}") for s in (1, 2, 3) for b in (1, 2)}
    mismatch = read_csv(finished / "mismatch.csv").set_index("map")
    profile = sigma.set_index(["depth", "block"])["sigma"]
    by_hand = [profile[14, f"stage{s}/block1"] - profile[20, f"stage{s}/block2"] for s in (1, 2, 3)]
    expected = np.sqrt(np.mean(np.square(by_hand)))
    assert mismatch.loc["drop-first", "sigma"] == pytest.approx(expected)
    page = (finished / "report.html").read_text()
    assert page.count('<img src="data:image/svg') == 4
    assert page.index("Verdict:") < page.index("<h2>")
    assert "56 to 32, the first four blocks dropped" in page
    assert {path.stem for path in (finished / "figures").glob("*.png")} == {
        "sigma", "spread", "transfer", "mismatch",
    }  # fmt: skip


def test_the_page_is_a_function_of_its_folder(copy, finished):
    """Made again elsewhere, from the tables and config.json alone."""
    for depth in (14, 20):
        shutil.rmtree(copy / f"depth{depth}")
    there, here = make_page(finished), make_page(copy)
    assert here.answers == there.answers
    for ours, theirs in zip(here.sections, there.sections, strict=True):
        assert (ours.title, ours.text, ours.items) == (theirs.title, theirs.text, theirs.items)
        if ours.table is not None and theirs.table is not None:
            pd.testing.assert_frame_equal(ours.table, theirs.table)


def test_tables_of_an_earlier_start_do_not_stay(copy):
    """No map of the same depths is left to compare, so no comparison is."""
    assert (copy / "comparisons.csv").exists()
    losses = read_csv(copy / "cells.csv")
    with mock.patch.object(findings, "compare_frame", lambda *_, **__: losses[:0]):
        run("--out", str(copy), page=True)
    assert not (copy / "comparisons.csv").exists()
    sections = {section.title: section for section in make_page(copy).sections}
    (maps,) = (section for title, section in sections.items() if title.startswith("Maps"))
    assert maps.text and maps.table is not None and maps.table.empty


def test_finished_experiment_reports_again(copy, monkeypatch):
    before = everything(copy)
    monkeypatch.setattr(imp_run, "run_levels", forbid)
    monkeypatch.setattr(trainings, "train", forbid)
    monkeypatch.setattr(several, "estimate_all", forbid)
    run("--out", str(copy), page=True)
    after = everything(copy)
    different = {name for name in before if before[name] != after[name]}
    assert different <= {"environment.json", "report.html"}  # the page prints the environment


def test_trainings_depend_on_their_names_alone(copy, finished, capsys):
    """Five of 16 lost: what comes back is the same, bit for bit, in its place."""
    cells = read_csv(copy / "cells.csv")
    write_csv(
        copy / "cells.csv", cells[(cells["kind"] == "reinit") | (cells["target_depth"] == 14)]
    )
    run("--out", str(copy))
    assert (copy / "cells.csv").read_bytes() == (finished / "cells.csv").read_bytes()
    said = capsys.readouterr().out
    assert "0 of 2 networks and 5 of 16 trainings of moved tickets are missing" in said
    # A training is one level of the 1 + 3 * 3 steps that are estimated to take 90 seconds.
    assert f"about {5 * 90 * 3 / 10 / 60:.1f} minutes" in said


def test_killed_within_the_trainings(copy, finished, monkeypatch):
    """SIGKILL while the fourth is written: three are kept, the rest comes out the same."""
    (copy / "cells.csv").unlink()
    flags = ("elastic", "4", *FLAGS, "--out", str(copy))
    child = start("tests/kill_ledger.py", *flags, JAX_DISABLE_MOST_OPTIMIZATIONS="1")
    output = child.communicate(timeout=300)
    assert child.returncode == -signal.SIGKILL, output
    assert not (copy / "cells.csv").read_bytes().endswith(b"\n")
    trained = mock.Mock(wraps=trainings.train)
    monkeypatch.setattr(trainings, "train", trained)
    run("--out", str(copy))
    assert trained.call_count == 16 - 3
    assert (copy / "cells.csv").read_bytes() == (finished / "cells.csv").read_bytes()


def test_more_densities_and_maps_add_trainings(copy, finished, monkeypatch):
    trained = mock.Mock(wraps=trainings.train)
    monkeypatch.setattr(trainings, "train", trained)
    monkeypatch.setattr(imp_run, "run_levels", forbid)
    before = read_csv(finished / "cells.csv")
    # The second map is one that is there, under another name.
    more = ("--map", "20:20:0:0;1:1,2", "20:14:0:0;1:1")
    run("--out", str(copy), *more)
    assert {call.args[0].route.name for call in trained.call_args_list} == {"B1B1"}
    assert trained.call_count == 4
    after = read_csv(copy / "cells.csv")
    pd.testing.assert_frame_equal(after[after["map"] != "B1B1"].reset_index(drop=True), before)


def test_fresh_trains_everything_again(copy, monkeypatch):
    class ReachedError(Exception):
        pass

    def reach(*arguments, **options):
        raise ReachedError

    monkeypatch.setattr(imp_run, "run_level", reach)
    with pytest.raises(ReachedError):
        run("--out", str(copy), "--fresh")
    assert read_csv(copy / "cells.csv").empty


def test_interrupt_keeps_finished_trainings(copy, monkeypatch):
    cells = read_csv(copy / "cells.csv")
    write_csv(copy / "cells.csv", cells[cells["kind"] == "random"])
    monkeypatch.setattr(trainings, "train", forbid)
    cli.interrupted.set()
    try:
        with pytest.raises(KeyboardInterrupt):
            run("--out", str(copy))
    finally:
        cli.interrupted.clear()
    assert len(read_csv(copy / "cells.csv")) == (cells["kind"] == "random").sum()


@pytest.fixture(scope="module")
def setup20(finished):
    config = cli.parse(elastic.PRESETS, FLAGS, prog="elastic")
    return prepared(config.source_run(20, finished), None)


def test_what_is_trained_is_the_moved_ticket(finished, setup20, monkeypatch):
    """The masks and weights that reach F, kind by kind."""
    source = read_ticket(ticket_path(finished / "depth14", 1, 2))
    route = Route(14, 20, "appending", appending(1, 2))
    target = jax.eval_shape(setup20.init, jax.random.key(0))
    moved = transform(source, route.block_map, target=target)
    seen = {}
    for kind in trainings.KINDS:

        def train(keys, variables, masks, data, kind=kind):
            seen[kind] = keys, to_flat(variables.params), to_flat(masks)
            return variables, mock.Mock(is_finite=np.array([True, False]))

        scheme = setup20.scheme._replace(retrain=train)
        setup = setup20._replace(scheme=scheme)
        rows = trainings.train(Training(route, kind, 2), setup, finished / "depth14", [0, 1])
        assert rows["test_metric"].isna().tolist() == [False, True]
        assert rows["density"][1] == pytest.approx(moved.density(PRUNABLE), abs=0)
    params, masks = to_flat(moved.rewind.params), to_flat(moved.masks)
    for kind, (_, weights, kept) in seen.items():
        is_same = {path for path in masks if (kept[path][1] == masks[path]).all()}
        changed = {path.rsplit("/", 2)[0] for path in set(masks) - is_same}
        copied = {f"stage{s}/block2" for s in (1, 2, 3)}
        if kind == "random":
            assert changed > copied
        else:
            assert changed == (copied if kind == "shuffled" else set())
        same_weights = all((weights[path][1] == params[path]).all() for path in params)
        assert same_weights == (kind != "reinit")
    keys = [jax.random.key_data(keys).tolist() for keys, *_ in seen.values()]
    assert len({str(key) for pair in keys for key in pair}) == 2 * len(keys)


def test_levels_nearest_to_densities(setup20):
    assert levels_at((0.64, 0.81, 1.0, 0.83), setup20, 20) == [0, 1, 2]
    for density in (0.5, 1e-6):
        with pytest.raises(ValueError, match="^densities: the tickets of ResNet-20 reach 0.64"):
            levels_at((density,), setup20, 20)


def test_shuffled_only_where_there_are_copies():
    routes = [Route(20, 14, "drop-last", squeeze(2, (2,))), Route(14, 20, "app", appending(1, 2))]
    planned = plan_trainings(routes, {14: [3], 20: [3, 5]})
    assert len(planned) == 2 * 3 + 4
    assert {one.route.name for one in planned if one.kind == "shuffled"} == {"app"}


def test_maps_of_the_default():
    routes = Config().routes()
    found = {}
    for route in routes:
        found.setdefault(route[:2], []).append((route.name, route.block_map.notation))
    assert len(routes) == 16
    assert found[20, 32] == [
        ("appending", "B1 B2 B1 B2"),
        ("interpolation", "B1 B1 B2 B2"),
        ("copy-first", "B1 B1 B1 B2"),
        ("copy-last", "B1 B2 B2 B2"),
    ]
    assert found[14, 32] == [("appending", "B1 B1 B1 B1")]
    assert [name for name, _ in found[32, 20]] == ["drop-last", "drop-first", "drop-even"]
    named = {route.name for route in Config(depths=(32, 44, 56)).routes()}
    # The others of the paper's maps are here by their rule.
    assert {"copy-last-two", "copy-first-two-twice"} <= named
    assert not {"drop-first-four", "copy-first-four-times", "copy-all-four"} & named


BAD = [
    (("--map", "14:20:0:0;1:1"), "block_map: target blocks of ResNet-14 to 20 must all have a "
     "source, [2] have none"),
    (("--map", "14:20:0:0;1:1;2:2"), "block_map: source blocks of ResNet-14 to 20 are 0 to 1, [2] "
     "are unknown"),
    (("--map", "14:20:0:0;1:1,2,3"), "block_map: target blocks of ResNet-14 to 20 are 0 to 2, [3]"),
    (("--map", "20:14:0:0"), "block_map: must leave at least one normal block"),
    (("--map", "14:44:0:0;1:1"), "map: must lead between depths 14, 20, got '14:44:0:0;1:1'"),
    (("--map", "14:20"), "map: must be SOURCE:TARGET:BLOCK_MAP, got '14:20'"),
    (("--map", "14:20:nonsense"), "block_map: must be SOURCE:TARGET[,TARGET];..., got 'nonsense'"),
    (("--densities", "0.01"), "densities: the tickets of ResNet-14 reach 0.6403 to 1 in 2 levels, "
     "got 0.01"),
    (("--densities", "0"), "densities: must be positive, got 0.0"),
    (("--depths", "14", "18"), "depths: must be at least two different ones of 14, 20, 32, 44, 56"),
    (("--depths", "14"), "depths: must be at least two different ones of 14"),
    (("--sigma-levels", "3"), "sigma_levels: must lie in [1, levels = 2], got 3"),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "line"), BAD, ids=[" ".join(flags) for flags, _ in BAD])
def test_bad_input_gets_one_line(flags, line, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["elastic", *FLAGS, *flags, "--out", os.fspath(out)])
    monkeypatch.setattr(several, "prepare", prepared)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stop:
        cli.main(elastic.run, elastic.PRESETS, prog="elastic")
    signal.signal(signal.SIGINT, before)
    said = capsys.readouterr().err.strip()
    assert stop.value.code == cli.EXIT_BAD_INPUT
    assert line in said and "\n" not in said
    assert not out.exists()


def test_other_settings_are_refused(copy):
    with pytest.raises(ValueError, match="num_steps 4 there, 5 here"):
        run("--out", str(copy), "--num-steps", "5")
