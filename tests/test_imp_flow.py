"""The command: its presets, its first line, its run folder; resume and bad input have own files."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from experiments.imp_flow import PRESETS, Config, run
from experiments.shell import cli
from imp_rg.blocks import parse_blocks
from imp_rg.config import TrainConfig
from imp_rg.imp.drivers import steps_per_epoch
from imp_rg.imp.prune import prune_schedule

PROG = "python -m experiments.imp_flow"


def test_the_paper_preset_is_the_published_recipe():
    """Elastic study: 160 epochs of 391 steps, rewound to step 1,000, ceil + 1, gamma uniform."""
    paper = cli.parse(PRESETS, ["--preset", "paper"], prog=PROG)
    train = paper.train
    assert (paper.model, paper.dataset, paper.levels, paper.seeds) == ("resnet20", "cifar10", 15, 3)
    assert (paper.gamma_init, paper.augment, paper.normalize) == (
        "uniform",
        "flip_crop",
        "imagenet",
    )
    assert steps_per_epoch(50_000, train) == 391
    assert train.num_steps == 62_560 == 160 * 391
    assert train.num_steps - train.first_step == 61_560
    assert [m * 160 for m in train.milestones] == [80, 120]
    assert (train.learning_rate, train.momentum, train.weight_decay) == (0.1, 0.9, 1e-4)
    assert (train.batch_size, train.warmup_steps, train.nesterov) == (128, 0, False)
    schedule = prune_schedule((270_896,), paper.prune, num_levels=16)[:, 0]
    assert schedule[1] == 54_181  # ceil(54,179.2) + 1


def test_the_default_is_the_documented_one():
    config = cli.parse(PRESETS, [], prog=PROG)
    assert config == Config()
    assert (config.dataset, config.model, config.seeds, config.levels) == (
        "digits",
        "resnet14",
        3,
        12,
    )
    assert config.train.rewind_step == 0.05 * config.train.num_steps
    assert config.prune.prune_fraction == 0.2


def test_the_paper_preset_says_first_how_long_it_takes(tmp_path, capsys):
    paper = PRESETS["paper"]
    small = dataclasses.replace(
        paper,
        dataset="digits",
        augment="none",
        normalize="train",
        model="lenet8",
        levels=1,
        seeds=2,
        train=dataclasses.replace(paper.train, num_steps=12, rewind_step=2, batch_size=100),
        out=tmp_path / "run",
    )
    run(small)
    said = capsys.readouterr().out
    assert "all levels: about" in said[: said.index("level 0/1")]
    metrics = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert len(metrics) == 4 and (metrics["steps"] == 10).all()


def test_flags_override_the_preset():
    args = ["--preset=smoke", "--levels", "3", "--prune-fraction", "0.5", "--null", "shuffled"]
    config = cli.parse(PRESETS, args, prog=PROG)
    assert config.preset == "smoke" and config.model == PRESETS["smoke"].model
    assert (config.levels, config.prune.prune_fraction, config.null) == (3, 0.5, ("shuffled",))


def test_every_field_has_a_help_text():
    """In the class that declares it or in one that it inherits from, as tyro reads them."""
    for fields in (Config, TrainConfig):
        documented = "".join(base.__doc__ or "" for base in fields.__mro__)
        for field in dataclasses.fields(fields):
            assert f"\n      {field.name}: " in documented, field.name


def test_blocks_from_the_command_line():
    assert parse_blocks("stage") == "stage"
    assert parse_blocks("a=stage1+stem,b=stage2/*") == {"a": ("stage1", "stem"), "b": ("stage2/*",)}
    for text in ("a=", "=b", "a=x,a=y", "a=x,b"):
        with pytest.raises(ValueError, match="blocks: must be NAME=PATTERN"):
            parse_blocks(text)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run on real digits: data to report, every null, patterns as blocks."""
    out = tmp_path_factory.mktemp("run")
    config = Config(
        model="lenet32-16",
        blocks="first=dense0,others=dense1+head",
        seeds=2,
        levels=3,
        null=("shuffled",),
        train=TrainConfig(num_steps=30, rewind_step=3),
        out=out / "run",
    )
    return SimpleNamespace(path=run(config), config=config)


def test_the_run_folder_is_complete(finished):
    names = {str(p.relative_to(finished.path)) for p in finished.path.rglob("*") if p.is_file()}
    for name in ("flow", "null_flow", "metrics", "timing", "spectrum"):
        assert f"{name}.csv" in names
    assert {"config.json", "environment.json", "report.html"} <= names
    assert {f"tickets/seed{s}-level{n:02d}.safetensors" for s in (0, 1) for n in range(4)} <= names
    assert any(name.endswith(".png") for name in names)
    assert any(name.endswith(".svg") for name in names)


def test_the_network_learned_and_the_counts_are_exact(finished):
    metrics = pd.read_csv(finished.path / "metrics.csv")
    assert (metrics["test_metric"] > 40).all()  # chance is 10
    assert (metrics["status"] == "ok").all()
    flow = pd.read_csv(finished.path / "flow.csv")
    trained = flow[flow["point"] == "trained"]
    kept = trained.groupby(["seed", "level"])["surviving"].sum().unstack()
    total = 64 * 32 + 32 * 16 + 16 * 10
    removed = prune_schedule((total,), finished.config.prune, num_levels=4)[:, 0].cumsum()
    np.testing.assert_array_equal(kept, [total - removed] * 2)


def test_tickets_hold_the_masks_of_the_flow(finished):
    from safetensors.numpy import load_file

    flow = pd.read_csv(finished.path / "flow.csv")
    ticket = load_file(finished.path / "tickets" / "seed1-level03.safetensors")
    rows = flow[(flow["seed"] == 1) & (flow["level"] == 3) & (flow["point"] == "rewound")]
    first = rows[rows["block"] == "first"].iloc[0]
    weight, mask = ticket["params/dense0/kernel"], ticket["masks/dense0/kernel"]
    assert mask.dtype == bool and mask.sum() == first["surviving"]
    assert np.abs(weight[mask]).sum() == pytest.approx(first["magnitude"], rel=1e-5)


def test_nulls_keep_what_the_run_keeps(finished):
    flow = pd.read_csv(finished.path / "flow.csv")
    nulls = pd.read_csv(finished.path / "null_flow.csv")
    assert set(nulls["null"]) == {"gaussian", "init", "oneshot", "random", "shuffled"}
    kept = flow[flow["point"] == "trained"].groupby(["seed", "level"])["surviving"].sum()
    for name, rows in nulls.groupby("null"):
        counts = rows.groupby(["seed", "level"])["surviving"].sum()
        np.testing.assert_allclose(counts, kept, rtol=1e-9, err_msg=str(name))
    dense = nulls[(nulls["level"] == 0) & (nulls["null"] == "oneshot")]["magnitude"]
    trained = flow[(flow["level"] == 0) & (flow["point"] == "trained")]["magnitude"]
    np.testing.assert_allclose(dense, trained, rtol=1e-6)  # one sums under vmap


def test_shuffled_masks_keep_the_counts_of_every_block(finished):
    columns = ["seed", "level", "block", "surviving"]
    flow = pd.read_csv(finished.path / "flow.csv")
    nulls = pd.read_csv(finished.path / "null_flow.csv")
    shuffled = nulls[nulls["null"] == "shuffled"][columns].reset_index(drop=True)
    trained = flow[flow["point"] == "trained"][columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(shuffled, trained, check_dtype=False)
