"""Pre-training on pictures that are read from disk: pairs of crops, metrics, the command."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from image_folder_files import NUM_TEST, write_images
from interrupting import interrupted_after
from PIL import Image

from experiments import pretrain
from experiments.studies.pretrain.assemble import WEIGHTS, prepare
from experiments.studies.pretrain.config import PRESETS
from experiments.trunk import run as imp_run
from imp_rg.data.image_files import Crop, read_image_file
from imp_rg.data.image_folder import ImageFolder, load_folder
from imp_rg.data.views import ViewConfig, sample_pair
from imp_rg.imp.replicates import stack
from imp_rg.runs.files import read_csv, read_json
from imp_rg.types import Batch

SIZE = 16
SMALL = dataclasses.replace(
    PRESETS["smoke"],
    model="lenet64-32",
    width=1.0,
    blocks="layer",
    batch_size=8,
    epochs=3,
    device="cpu",
)
OF_METHOD = {"supervised": {"learning_rate": 0.01}, "simclr": {}, "moco": {"blur": 0.0}}
"""One setting of each method in all tests, which then share its compiled programs."""

UNCHANGED = ViewConfig(jitter=0.0, grayscale=0.0, blur=0.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("pictures"))


def configured(root, **changes):
    return dataclasses.replace(SMALL, dataset=f"folder:{root}+resize={SIZE}", **changes)


def first_batch(folder, batch_size=8):
    settings = {"batch_size": batch_size, "last_batch": "drop", "start": 0, "stop": 1}
    (batch,) = folder.train_batches(3, **settings)
    return batch


def test_both_crops_are_cut_from_the_whole_picture(tmp_path):
    """A square has one crop of all its area: itself, resized."""
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            pixels = np.random.default_rng(len(name)).integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / name / "0.png")
    folder = load_folder(f"folder:{tmp_path}+resize={SIZE}")
    whole = Crop(area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0)
    pairs = first_batch(dataclasses.replace(folder, crop=whole, num_crops=2), 2).x
    picture = read_image_file(tmp_path / "train/a/0.png")
    expected = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    assert pairs.shape == (2, 2, SIZE, SIZE, 3)
    for crop in pairs.reshape(-1, SIZE, SIZE, 3):
        np.testing.assert_array_equal(crop, expected)
    mirrored = whole._replace(flip=1.0)
    pairs = first_batch(dataclasses.replace(folder, crop=mirrored, num_crops=2), 2).x
    np.testing.assert_array_equal(pairs[0, 0], expected[:, ::-1])


def test_views_are_the_crops_first_all_first_ones(root):
    """The settings of the views say how pictures are cut; on the device only colours change."""
    prepared = prepare(configured(root, method="moco", min_scale=0.5, flip=0.25))
    folder = prepared.train_data
    assert isinstance(folder, ImageFolder)
    assert folder.crop == Crop(area=(0.5, 1.0), flip=0.25) and folder.num_crops == 2
    x = first_batch(folder).x
    assert np.any(x[:, 0] != x[:, 1], axis=(1, 2, 3)).all()
    pair = sample_pair(jax.random.key(0), jnp.asarray(x), config=UNCHANGED)
    np.testing.assert_allclose(pair, np.concatenate([x[:, 0], x[:, 1]]), atol=1e-4)


@pytest.mark.parametrize("method", ["supervised", "simclr", "moco"])
def test_the_metric_is_that_of_the_same_pictures_in_memory(root, method):
    prepared = prepare(configured(root, method=method, **OF_METHOD[method]))
    folder = prepared.test_data
    assert isinstance(folder, ImageFolder)
    (batch,) = folder.test_batches(4 * NUM_TEST)
    in_memory = Batch(jnp.asarray(batch.x), jnp.asarray(batch.y))
    variables = stack([jax.jit(prepared.init)(jax.random.key(seed)) for seed in (0, 1)])
    streamed = prepared.method.measure(variables, folder)
    if method == "supervised":
        logits, _ = jax.vmap(lambda v: prepared.method.apply_fn(v, in_memory.x, is_training=False))(
            variables
        )
        expected = 100 * np.mean(np.argmax(np.asarray(logits), -1) == np.asarray(batch.y), axis=1)
    else:
        expected = prepared.method.measure(variables, in_memory)
    np.testing.assert_allclose(streamed, expected)
    assert 0 < streamed.max() <= 100


@pytest.mark.parametrize("method", ["supervised", "moco"])
def test_stopped_and_continued_is_the_same_to_the_last_bit(root, method, tmp_path, monkeypatch):
    monkeypatch.setattr(imp_run, "report", lambda folder, console: None)
    out = tmp_path / "whole"
    config = configured(root, method=method, levels=1, out=out, **OF_METHOD[method])
    whole = pretrain.run(config)
    metrics = read_csv(whole / "metrics.csv")
    assert len(metrics) == 3 and metrics.notna().all(axis=None)
    if method == "supervised":  # classes differ in brightness, chance is 25
        assert metrics["metric"].max() >= 50
    levels = read_csv(whole / "imp" / "metrics.csv")
    np.testing.assert_allclose(levels["density"], [1, 0.8], rtol=1e-3)
    assert levels["train_loss"][1:].notna().all()
    settings = read_json(whole / "imp" / "config.json")
    assert settings["augment"] == "random_crop" and settings["num_test"] == 4 * NUM_TEST
    broken = dataclasses.replace(config, out=tmp_path / "broken")
    with interrupted_after(monkeypatch, epoch=2), pytest.raises(KeyboardInterrupt):
        pretrain.run(broken)
    pretrain.run(broken)
    for name in ("metrics.csv", WEIGHTS, "imp/flow.csv", "imp/metrics.csv"):
        assert (whole / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"driver": "scan"}, "driver: must be auto or dispatch for a streamed set, got 'scan'"),
        ({"augment": "flip_crop"}, "augment: must be default for a streamed set"),
        ({"normalize": "train"}, "normalize: must be default or imagenet or range for a streamed"),
    ],
)
def test_what_a_stream_cannot_do_is_named(root, changes, message):
    with pytest.raises(ValueError, match=message):
        configured(root, **changes)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="dataset: folder: needs PATH with train/ and val/"):
        prepare(configured(tmp_path))
