"""Pre-training: encoders of our networks, learning, the command, its levels, and going on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interrupting import interrupted_after
from safetensors import safe_open

from experiments import pretrain
from experiments.studies.pretrain.assemble import WEIGHTS, make_epoch_fn, prepare
from experiments.studies.pretrain.config import PRESETS, Config
from experiments.trunk import run as imp_run
from imp_rg.foreign import load_variables
from imp_rg.imp.replicates import stack
from imp_rg.models import make_model
from imp_rg.models.projector import PROJECTOR, Encoder
from imp_rg.pytree import leaf_paths, ones_masks
from imp_rg.runs.checkpoints import Checkpoints
from imp_rg.runs.files import read_csv, read_json
from imp_rg.runs.tickets import read_ticket

SMALL = dataclasses.replace(
    PRESETS["smoke"], model="lenet64-32", width=1.0, blocks="layer", device="cpu"
)


ZERO, ONE = np.zeros(1, np.float32), np.ones(1, np.float32)


def small(**changes) -> Config:
    return dataclasses.replace(SMALL, **changes)


def test_an_encoder_ends_where_the_classifier_begins():
    model, shape = make_model("lenet64-32", num_classes=5, width=0.125), (8, 8, 1)
    encoder = Encoder(model=model, num_outputs=4)
    network = jax.jit(model.init, static_argnums=1)(jax.random.key(0), shape)
    variables = encoder.attach(jax.random.key(1), network)
    x = jnp.asarray(np.random.default_rng(0).random((3, *shape), np.float32))
    encode_fn, apply_fn = encoder.make_encode_fn(ZERO, ONE), model.make_apply_fn(ZERO, ONE)
    features, embeddings, _ = encode_fn(*variables, x, is_training=False)
    logits, _ = apply_fn(network, x, is_training=False)
    head, projector = network.params["head"], variables.params[PROJECTOR]
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"][None], logits, rtol=1e-4)
    hidden = np.maximum(features @ projector["dense0"]["kernel"], 0)
    np.testing.assert_allclose(embeddings, hidden @ projector["dense1"]["kernel"], atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, encoder.to_network(variables, head), network)


@pytest.mark.parametrize(
    ("name", "width"), [("resnet14", 64), ("resnet18", 512), ("resnet50", 2048)]
)
def test_features_are_those_that_the_classifier_would_see(name, width):
    encoder = Encoder(model=make_model(name, num_classes=5), num_outputs=4)
    shape = (8, 8, 3)
    variables = jax.eval_shape(lambda: encoder.init(jax.random.key(0), shape))
    features, embeddings, stats = jax.eval_shape(
        lambda variables: encoder.make_encode_fn(ZERO, ONE)(
            variables.params, variables.batch_stats, jnp.zeros((2, *shape)), is_training=True
        ),
        variables,
    )
    assert (features.shape, embeddings.shape) == ((2, width), (2, 4))
    assert jax.tree.structure(stats) == jax.tree.structure(variables.batch_stats)
    network = set(leaf_paths(encoder.model.shapes(shape)))
    assert set(leaf_paths(variables.params)) == {
        *(path for path in network if not path.startswith("head/")),
        *(f"{PROJECTOR}/dense{i}/{leaf}" for i in (0, 1) for leaf in ("kernel", "bias")),
    }


def test_neither_head_can_be_pruned():
    encoder = Encoder(model=make_model("resnet14", num_classes=5), num_outputs=4)
    blocks, paths = encoder.partition("stage", (8, 8, 1)), leaf_paths(encoder.shapes((8, 8, 1)))
    pruned = [path for path, can in zip(paths, blocks.prunable, strict=True) if can]
    assert blocks.names[:3] == ("stage1", "stage2", "stage3")
    assert len(pruned) == 15 and not any("head" in path or PROJECTOR in path for path in pruned)


def test_simclr_tells_images_apart_better_than_at_the_start():
    """Share of 640 held-out views, its standard error below 2 %; the start is untrained."""
    prepared = prepare(small(method="simclr", epochs=5))
    variables = jax.jit(prepared.init)(jax.random.key(0))
    train_fn, masks = make_epoch_fn(prepared), ones_masks(variables.params)
    before = prepared.method.measure(stack([variables]), prepared.test_data)[0]
    for epoch in range(5):
        key = jax.random.fold_in(jax.random.key(1), epoch)
        variables, _ = train_fn(
            key, variables, masks, prepared.train_data, start=0, stop=prepared.epoch_steps
        )
    after = prepared.method.measure(stack([variables]), prepared.test_data)[0]
    assert after > before + 7


@pytest.fixture
def silent(monkeypatch):
    """Levels without figures and page."""
    monkeypatch.setattr(imp_run, "report", lambda folder, console: None)


def test_weights_and_levels_of_moco(tmp_path, silent):
    """What is learned, its files, and an ordinary run folder that starts from them."""
    changes = {"learning_rate": 0.1, "min_scale": 0.7, "blur": 0.0, "queue_size": 256}
    config = small(method="moco", epochs=7, levels=1, **changes, out=tmp_path / "out")
    out = pretrain.run(config)
    assert out == config.out
    model = make_model("lenet64-32", num_classes=10)
    network = load_variables(out / WEIGHTS, model)
    with safe_open(out / WEIGHTS, "numpy") as file:
        assert file.metadata()["method"] == "moco" and file.metadata()["num_classes"] == "10"
    metrics = read_csv(out / "metrics.csv")
    assert list(metrics) == ["epoch", "loss", "metric"] and len(metrics) == 7
    # Share of 320 queries: the standard error of a difference is below 4 %.
    assert metrics["metric"].iloc[-1] > metrics["metric"].iloc[0] + 10
    levels = [read_ticket(out / "imp" / "tickets" / f"seed0-level0{n}.safetensors") for n in (0, 1)]
    for ticket in levels:
        assert set(ticket.rewind.params) == {"dense0", "dense1", PROJECTOR}
        dense = ticket.rewind.params["dense0"]["kernel"]
        np.testing.assert_array_equal(dense, network.params["dense0"]["kernel"])
    kept = levels[1].masks["dense0"]["kernel"]
    kernels = [np.ravel(network.params[name]["kernel"]) for name in ("dense0", "dense1")]
    threshold = np.quantile(np.abs(np.concatenate(kernels)), 0.2)
    np.testing.assert_array_equal(kept, np.abs(dense) > threshold)  # pruned before any training
    run = read_csv(out / "imp" / "metrics.csv")
    assert np.isnan(run["train_loss"][0]) and run["train_loss"][1:].notna().all()
    assert run["test_metric"].between(30, 100).all()
    np.testing.assert_allclose(run["density"], [1, 0.8], rtol=1e-3)
    assert read_json(out / "imp" / "config.json")["metric"] == "test key accuracy (%)"
    assert read_json(out / "imp" / "environment.json")["finished"]


def test_stopped_and_continued_is_the_same_to_the_last_bit(tmp_path, monkeypatch, capsys):
    config = small(method="supervised", epochs=3, out=tmp_path / "whole")
    whole = pretrain.run(config)
    folder = tmp_path / "broken"
    broken = dataclasses.replace(config, out=folder)
    with interrupted_after(monkeypatch, epoch=2), pytest.raises(KeyboardInterrupt):
        pretrain.run(broken)
    assert not (folder / WEIGHTS).exists()
    capsys.readouterr()
    pretrain.run(broken)
    assert "continuing after epoch 2" in capsys.readouterr().out
    for name in ("metrics.csv", WEIGHTS):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert read_csv(whole / "metrics.csv")["metric"].iloc[-1] > 85
    pretrain.run(broken)
    assert "already trained" in capsys.readouterr().out
    done, state = Checkpoints(whole / "checkpoints").restore() or (0, {})
    optimizer = {path.rpartition("/")[2]: x for path, x in state.items() if "optimizer" in path}
    assert (done, int(optimizer["step"])) == (3, 66)  # one schedule through all epochs
    np.testing.assert_allclose(optimizer["learning_rate"], 0.1 * 0.01, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "byol"}, "method: must be one of supervised, simclr, moco, got 'byol'"),
        ({"method": "simclr", "batch_size": 1}, "batch_size: must be at least 2"),
        ({"method": "moco", "queue_size": 32}, "queue_size: must be a multiple of the batch"),
        ({"method": "moco", "queue_size": 100}, "queue_size: must be a multiple of the batch"),
        ({"method": "simclr", "temperature": 0.0}, "temperature: must be positive"),
        ({"init_from": "weights.pth"}, "init_from: needs --levels"),
        ({"epochs": 0}, "epochs: must be at least 1"),
        ({"method": "moco", "flip": 2.0}, "flip: must lie in"),
        ({"method": "moco", "num_outputs": 1}, "num_outputs: must be at least 2"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_a_batch_larger_than_the_data_and_pixels_below_zero_are_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size: must not exceed the 1437"):
        prepare(small(batch_size=2000))
    x, y = np.full((8, 8, 8, 1), -1.0, np.float32), np.arange(8) % 2
    np.savez(tmp_path / "cold.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(ValueError, match="dataset: must have pixels from 0 up"):
        prepare(small(method="simclr", dataset=f"npz:{tmp_path / 'cold.npz'}", batch_size=4))


def test_published_settings():
    paper = PRESETS["paper"]
    assert (paper.model, paper.stem, paper.levels, paper.level_epochs) == (
        "resnet50",
        "imagenet",
        18,
        10,
    )
    rates = {
        method: dataclasses.replace(paper, method=method).level_train_config(epoch_steps=9)
        for method in ("supervised", "simclr", "moco")
    }
    assert [train.learning_rate for train in rates.values()] == [1e-4, 1e-4, 3e-4]
    assert all(train.schedule == "constant" for train in rates.values())
    moco = dataclasses.replace(paper, method="moco")
    contrast = moco.contrastive_config(num_images=1_281_167)
    assert (contrast.queue_size, contrast.key_momentum, contrast.temperature) == (65536, 0.999, 0.2)
    assert moco.views.blur == 0.5 and not moco.scales_to_range
    simclr = dataclasses.replace(paper, method="simclr")
    assert simclr.views.blur == 0.0 and simclr.scales_to_range
