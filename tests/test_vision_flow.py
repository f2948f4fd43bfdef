"""`experiments.vision_flow`: one run folder per task and init, continued where it stopped."""

import contextlib
import dataclasses
import functools
import json
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from interrupting import stopped_before

from experiments import vision_flow
from experiments.shell import cli
from experiments.shell.study import Study
from experiments.studies.pretrain.assemble import WEIGHTS
from experiments.studies.vision import run as vision_run
from experiments.studies.vision.config import PRESETS, RunSpec
from experiments.trunk import run
from imp_rg.foreign import variables
from imp_rg.models import IMAGENET_BLOCKS, make_model, resnet_imagenet
from imp_rg.pytree import ones_masks, to_flat
from imp_rg.runs.files import write_json
from imp_rg.runs.tickets import read_ticket, write_level
from imp_rg.types import ValidatedBatch

TABLES = ("flow.csv", "null_flow.csv", "metrics.csv", "spectrum.csv", "observables.csv")
SMALL = (
    *("--preset", "smoke", "--width", "1", "--seeds", "1"),
    *("--tasks", "digits", "--inits", "scratch"),
)
OTHER = "supervised:digits+group=odd-even"


@pytest.fixture(scope="module", autouse=True)
def quick():
    """One residual block of four channels a stage: few shapes are quick to compile for.

    A task is loaded and compiled once for all tests.
    """

    @functools.cache
    def load(config, name, *, load_task=vision_run.load_task):
        return load_task(config, name, None)

    def load_task(config, name, out):
        del out
        same = {"inits": ("scratch",), "tasks": ("digits",), "out": None, "fresh": False}
        return load(dataclasses.replace(config, **same), name)

    shallow = ((1, 1, 1, 1), False)
    with (
        mock.patch.object(resnet_imagenet, "STAGE_PLANES", (4, 4, 4, 4)),
        mock.patch.dict(IMAGENET_BLOCKS, resnet18=shallow),
        mock.patch.dict(variables.DEPTHS, resnet18=shallow),
        mock.patch.object(vision_run, "load_task", load_task),
        mock.patch.object(vision_run, "seconds_per_pixel", return_value=1e-6),
    ):
        yield


def parse(*flags):
    return cli.parse(PRESETS, (*SMALL, *flags), prog="vision_flow")


def run_without_pages(*flags, **replaced):
    with contextlib.ExitStack() as patches:
        for where, name in (
            *((vision_flow, name) for name in ("write_findings", "lead_table", "make_page")),
            *((Study, name) for name in ("table", "report")),
            (run, "report"),
        ):
            patches.enter_context(mock.patch.object(where, name))
        for name, fn in replaced.items():
            patches.enter_context(mock.patch.object(run, name, fn))
        return vision_flow.run(parse(*flags))


def write_weights(path, *, width=1.0):
    """Numbers in the shape of a network of other classes and images."""
    model, rng = make_model("resnet18", num_classes=3, width=width), np.random.default_rng(9)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), (8, 8, 3)))
    drawn = jax.tree.map(lambda leaf: rng.uniform(0.01, 0.2, leaf.shape).astype("f4"), shapes)
    write_level(path, drawn, ones_masks(drawn.params), {})


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "body.safetensors"
    write_weights(path)
    return path


@pytest.fixture(scope="module")
def finished(weights, tmp_path_factory):
    """The folder of a finished run: one task, from scratch and from a file."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return run_without_pages("--inits", "scratch", str(weights), "--out", str(out))


def test_each_task_and_init_has_a_run_folder(finished, weights):
    listed = json.loads((finished / "config.json").read_text())
    assert listed["experiment"] == "vision"
    modes = {"digits--scratch": "rewind_lt", "digits--body.safetensors": "pt_trans"}
    assert {cell["folder"]: cell["mode"] for cell in listed["cells"]} == modes
    assert {cell["num_classes"] for cell in listed["cells"]} == {10}
    for folder, mode in modes.items():
        assert all((finished / folder / name).exists() for name in TABLES)
        settings = json.loads((finished / folder / "config.json").read_text())
        assert (settings["dataset"], settings["mode"]) == ("digits", mode)
        assert (settings["num_train"], settings["holdout"]) == (1294, 143)
        assert settings["rewind_step"] == (5 if mode == "rewind_lt" else 0)
        assert settings["block_names"] == ["stage1", "stage2", "stage3", "stage4"]


def ticket(folder, level):
    return to_flat(read_ticket(folder / "tickets" / f"seed0-level0{level}.safetensors").rewind)


@pytest.mark.parametrize("cell", ["digits--scratch", "digits--body.safetensors"])
def test_every_level_is_rewound_to_the_same_variables(finished, cell):
    first = ticket(finished / cell, 0)
    assert {"params/stem/kernel", "params/head/bias", "batch_stats/stem_norm/mean"} <= set(first)
    for level in (1, 2):
        again = ticket(finished / cell, level)
        assert again.keys() == first.keys()
        assert all(np.array_equal(again[path], first[path]) for path in first)


def test_a_pre_trained_body_gets_a_stem_and_a_head_of_the_run(finished, weights):
    """The class count of the file need not be that of the task."""
    rewind = ticket(finished / "digits--body.safetensors", 0)
    stored = to_flat(read_ticket(weights).rewind)
    fresh = {"params/stem/kernel", "params/head/kernel", "params/head/bias"}
    assert {path for path in rewind if not np.array_equal(rewind[path], stored[path])} == fresh


def test_again_it_only_reports(finished, capsys):
    before = (finished / "digits--scratch" / "flow.csv").read_bytes()
    run_without_pages("--out", str(finished))
    said = capsys.readouterr().out
    assert "already finished" in said and "about" not in said
    assert (finished / "digits--scratch" / "flow.csv").read_bytes() == before
    assert len(json.loads((finished / "config.json").read_text())["cells"]) == 2


def test_a_stopped_run_ends_with_the_same_bits(finished, weights, tmp_path):
    flags = ("--inits", str(weights), "--out", str(tmp_path / "run"))
    with stopped_before(2):
        run_without_pages(*flags)
    run_without_pages(*flags)
    for name in TABLES:
        there, here = (
            out / "digits--body.safetensors" / name for out in (finished, tmp_path / "run")
        )
        assert there.read_bytes() == here.read_bytes(), name


def test_what_a_run_starts_from_is_pre_trained_first(finished, tmp_path, capsys):
    """Once for all runs, and not on the task itself."""
    asked = []

    def pretend(config, study):
        del study
        asked.append(config)
        write_weights(config.out / WEIGHTS)
        return config.out

    flags = ("--inits", "scratch", OTHER, "supervised:digits", "--out", str(tmp_path / "run"))
    with mock.patch.object(vision_run, "pretrain", pretend):
        out = run_without_pages(*flags, run_levels=mock.Mock())
    said = capsys.readouterr().out
    assert "left out: supervised pre-training on the task itself, of digits" in said
    assert "2 of 2 runs to do, levels 0 to 2: about" in said
    (config,) = asked
    assert config.out == out / "pretrain" / "supervised-digits+group=odd-even"
    assert (config.method, config.dataset) == ("supervised", "digits+group=odd-even")
    assert (config.model, config.width, config.batch_size) == ("resnet18", 1.0, 64)
    cells = [cell["init"] for cell in json.loads((out / "config.json").read_text())["cells"]]
    assert cells == ["scratch", OTHER]
    settings, stored = (
        json.loads((folder / "config.json").read_text())
        for folder in (
            out / f"digits--{OTHER.replace(':', '-')}",
            finished / "digits--body.safetensors",
        )
    )
    assert settings["init_sha256"] == stored["init_sha256"] is not None  # the same weights


def test_other_settings_are_refused(finished, capsys):
    assert fail(("--learning-rate", "0.05", "--out", str(finished)), capsys).startswith(
        f"error: out: {finished / 'digits--scratch'} holds a run with other settings "
        "(learning_rate 0.1 there, 0.05 here)"
    )


def fail(flags, capsys):
    arguments = mock.patch("sys.argv", ["vision_flow", *SMALL, *flags])
    with arguments, pytest.raises(SystemExit) as stop:
        cli.main(vision_flow.run, PRESETS, prog="vision_flow")
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    return error


def wider(folder):
    write_weights(folder / "wide.safetensors", width=2.0)
    return ("--inits", str(folder / "wide.safetensors"))


@pytest.mark.parametrize(
    ("make_flags", "sentence"),
    [
        (wider, "must have shape"),
        (lambda _: ("--inits", "no/such.pth"), "no/such.pth"),
        (lambda _: ("--inits", "supervised:digits"), "inits: must leave a task"),
        (lambda _: ("--tasks", "digit"), "nearest: digits"),
        (lambda _: ("--tasks", "digits", "digits"), "tasks: must differ"),
        (lambda _: ("--model", "resnet20"), "model: must be one of resnet18, resnet34, resnet50"),
        (lambda _: ("--stem", "imagenet"), "stem: imagenet needs images of at least 32x32 pixels"),
        (lambda _: ("--epochs-scale", "0.5"), "epochs_scale: must leave a warm-up step"),
        (lambda _: ("--batch-size", "5000"), "batch_size: must not exceed the 1294"),
        (lambda _: ("--mode", "pt", "--holdout", "0"), "holdout: must be at least 1"),
        (lambda _: ("--devices", "2"), "devices: must lie between 1 and the 1 that JAX finds"),
        (lambda _: ("--replicates", "measure", "--distributed"), "replicates: must not be measure"),
        (lambda _: ("--levels", "99"), "levels: "),
        (lambda _: ("--blocks", "depth"), "blocks: resnet18 has stage, block, layer"),
    ],
)
def test_bad_input_is_one_line(make_flags, sentence, tmp_path, capsys):
    flags = ("--out", str(tmp_path / "run"), *make_flags(tmp_path))
    assert sentence in fail(flags, capsys)
    assert not (tmp_path / "run").exists()


def test_the_fastest_execution_is_measured_once(tmp_path):
    config = parse("--replicates", "measure", "--driver", "dispatch")
    task = vision_run.load_task(config, "digits", tmp_path)
    settle = functools.partial(vision_run.resolve_execution, config, task, tmp_path)
    chosen = settle(Study("test", quiet=True))
    found = json.loads((tmp_path / vision_run.EXECUTION).read_text())
    tried = {(row["driver"], row["replicates"]): row["seconds"] for row in found["measured"]}
    assert tried.keys() == {("dispatch", "loop"), ("dispatch", "threads")}
    assert (chosen.driver, chosen.replicates) == min(tried, key=lambda key: tried[key])
    # Another day might measure otherwise: a continued experiment goes on as it began.
    other = ({"loop", "threads"} - {chosen.replicates}).pop()
    write_json(tmp_path / vision_run.EXECUTION, found | {"replicates": other})
    with mock.patch.object(vision_run, "measure_execution", side_effect=AssertionError):
        assert settle(Study("test", quiet=True)) == dataclasses.replace(chosen, replicates=other)
    assert vision_run.with_execution(chosen, task).execution[:2] == ("dispatch", chosen.replicates)


def test_the_mode_pt_holds_images_out():
    data = vision_run.load_task(parse("--mode", "pt"), "digits", Path()).train_data
    assert isinstance(data, ValidatedBatch) and (len(data.y), len(data.y_val)) == (1294, 143)


def test_the_paper_is_the_study():
    paper = PRESETS["paper"]
    config = paper.train_config("rewind_lt", steps_per_epoch=175)
    assert (config.num_steps, config.rewind_step) == (182 * 175, 9 * 175)
    assert (paper.model, paper.levels, paper.seeds) == ("resnet50", 18, 3)


@pytest.mark.parametrize("preset", ["default", "short"])
def test_tasks_are_pre_trained_on_each_other(preset):
    config = PRESETS[preset]
    a, b = config.tasks
    assert config.runs == [
        RunSpec(a, "scratch", "rewind_lt"),
        RunSpec(a, f"supervised:{b}", "pt_trans"),
        RunSpec(b, "scratch", "rewind_lt"),
        RunSpec(b, f"supervised:{a}", "pt_trans"),
    ]
    per_epoch = {"default": 78, "short": 175}[preset]
    train = config.train_config("rewind_lt", steps_per_epoch=per_epoch)
    assert config.levels == 10 and train.warmup_steps >= 2 and train.rewind_step >= 19
