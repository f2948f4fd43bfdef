"""Folders of pictures: what is read, in which order, and F over a stream against F in memory."""

import io
import math
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from image_folder_files import CLASSES, NUM_TEST, PER_CLASS, write_images
from PIL import Image

from imp_rg.config import PruneConfig, TrainConfig
from imp_rg.data import load
from imp_rg.data.image_files import central_crop, random_box, read_image_file, sample_crop
from imp_rg.data.image_folder import load_folder
from imp_rg.imp.drivers import plan_batches
from imp_rg.imp.evaluate import make_measure_fn
from imp_rg.imp.levels import run_level
from imp_rg.imp.replicates import stack
from imp_rg.imp.stream import (
    Snapshots,
    make_stream_measure_fn,
    make_stream_scheme,
    make_stream_train_fn,
)
from imp_rg.imp.train import make_begin, make_optimizer, make_train_fn, make_train_step
from imp_rg.models import make_model
from imp_rg.pytree import ones_masks
from imp_rg.runs.snapshots import SnapshotFolder
from imp_rg.types import Stream, StreamBatch, Variables

SIZE = 16


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def folder(root):
    return load_folder(f"folder:{root}+resize={SIZE}")


def one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def batches(folder, start, stop, *, seed=3, batch_size=10, last_batch="drop"):
    settings = {"batch_size": batch_size, "last_batch": last_batch}
    return list(folder.train_batches(seed, start=start, stop=stop, **settings))


def assert_same(some, others):
    assert len(some) == len(others)
    jax.tree.map(np.testing.assert_array_equal, list(some), list(others))


# What is read


def test_folders_are_classes_and_other_files_are_left(folder, root):
    assert folder.classes == CLASSES and folder.num_classes == 4
    assert folder.num_train == 48 and folder.num_test == 12
    np.testing.assert_array_equal(folder.train.labels, np.repeat(np.arange(4), 12))
    assert [path.parent.name for path in folder.test.paths] == [c for c in CLASSES for _ in "abc"]
    assert folder.image_shape == (SIZE, SIZE, 3)
    np.testing.assert_allclose(folder.mean / 255, [0.485, 0.456, 0.406], rtol=1e-6)
    assert isinstance(folder, Stream)


def test_the_digest_names_the_files(folder, root, tmp_path):
    again = load_folder(f"folder:{root}")
    assert again.image_size == 224
    assert folder.sha256 == again.sha256
    for split in ("train", "test"):
        for name in CLASSES:
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "00.png").touch()
    assert load_folder(f"folder:{tmp_path}").sha256 != folder.sha256


def test_evaluation_takes_the_centre_of_the_resized_picture(folder):
    got = list(folder.test_batches(5))
    assert [b.x.shape for b in got] == [(5, SIZE, SIZE, 3)] * 3 and got[0].x.dtype == np.uint8
    np.testing.assert_array_equal(np.concatenate([b.weights for b in got]), [1] * 12 + [0] * 3)
    labels = np.concatenate([b.y for b in got])[:12]
    np.testing.assert_array_equal(labels, np.repeat(np.arange(4), NUM_TEST))
    for path, x in zip(folder.test.paths, np.concatenate([b.x for b in got]), strict=False):
        image = Image.open(path).convert("RGB")
        width, height = image.size
        scale = 18 / min(width, height)  # 256 / 224 of 16 pixels
        size = (
            (18, math.floor(scale * height + 1e-9))
            if width < height
            else (math.floor(scale * width + 1e-9), 18)
        )
        pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
        top, left = round((size[1] - SIZE) / 2), round((size[0] - SIZE) / 2)
        np.testing.assert_array_equal(x, pixels[top : top + SIZE, left : left + SIZE])


def test_random_crops_have_the_area_and_shape_they_should():
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(400, 300, rng) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    assert boxes.min() >= 0 and right.max() <= 400 and bottom.max() <= 300
    width, height = right - left, bottom - top
    aspect, area = np.log(width / height), width * height / 120_000
    assert abs(aspect).max() < math.log(4 / 3) + 0.02 and 0.075 < area.min() and area.max() <= 1
    # Few of the small parts are refused: the first half of all areas is uniform.
    small = area[area < 0.5]
    sem = 0.42 / math.sqrt(12 * len(small))
    assert abs(small.mean() - 0.29) < 4 * sem
    assert abs(aspect[area < 0.5].mean()) < 4 * aspect.std() / math.sqrt(len(small))


@pytest.mark.parametrize(
    ("size", "box"),
    [((1000, 10), (493, 0, 506, 10)), ((10, 1000), (0, 493, 10, 506)), ((1, 1), (0, 0, 1, 1))],
)
def test_pictures_too_long_for_a_crop_give_their_centre(size, box):
    assert random_box(size[0], size[1], np.random.default_rng(0)) == box


def test_crops_are_resized_and_mirrored_half_of_the_time():
    image = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (64, 1, 3)))
    rng = np.random.default_rng(0)
    crops = np.stack([sample_crop(image, rng, size=8) for _ in range(400)]).astype(int)
    is_mirrored = crops[:, 0, 0, 0] > crops[:, 0, -1, 0]
    assert abs(is_mirrored.mean() - 0.5) < 4 * 0.5 / math.sqrt(400)
    part = image.crop(random_box(64, 64, np.random.default_rng(7)))
    expected = np.asarray(part.resize((8, 8), Image.Resampling.BILINEAR))
    got = sample_crop(image, np.random.default_rng(7), size=8)
    assert any(np.array_equal(got, x) for x in (expected, expected[:, ::-1]))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P", "1", "I;16"])
def test_pictures_of_every_kind_become_rgb(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image = image.convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    got = read_image_file(path)
    assert got.mode == "RGB" and got.size == (7, 9)
    np.testing.assert_array_equal(got, Image.open(path).convert("RGB"))
    if mode == "RGBA":
        np.testing.assert_array_equal(got, pixels)


# Order


def row_of(folder, x, y):
    """Which files a batch without crops shows, found by their pixels."""
    paths = [
        p for p, label in zip(folder.train.paths, folder.train.labels, strict=True) if label == y
    ]
    pixels = [central_crop(read_image_file(p), size=SIZE) for p in paths]
    (row,) = [i for i, own in enumerate(pixels) if np.array_equal(own, x)]
    return PER_CLASS * int(y) + row


@pytest.fixture
def uncropped(monkeypatch):
    """Training pictures as in evaluation, so that they can be told apart."""
    module = sys.modules["imp_rg.data.image_folder"]
    monkeypatch.setattr(
        module, "sample_crop", lambda image, rng, size, crop: central_crop(image, size=size)
    )


@pytest.mark.parametrize(("last_batch", "num_steps"), [("drop", 4), ("keep", 5)])
def test_every_epoch_is_another_permutation(folder, uncropped, last_batch, num_steps):
    seen = batches(folder, 0, 2 * num_steps, last_batch=last_batch)
    epochs = []
    for epoch in (seen[:num_steps], seen[num_steps:]):
        rows = [
            row_of(folder, x, y)
            for b in epoch
            for x, y, weight in zip(*b, strict=True)
            if weight == 1
        ]
        expected = 48 if last_batch == "keep" else 40
        assert len(rows) == len(set(rows)) == expected
        assert all(b.x.shape == (10, SIZE, SIZE, 3) for b in epoch)
        epochs.append(rows)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("last_batch", ["drop", "keep"])
def test_a_batch_depends_on_seed_and_step_alone(folder, last_batch):
    whole = batches(folder, 0, 9, last_batch=last_batch)
    for start in (1, 4, 5, 7):
        assert_same(batches(folder, start, 9, last_batch=last_batch), whole[start:])
    (first,), (other,) = batches(folder, 0, 1), batches(folder, 0, 1, seed=4)
    assert not np.array_equal(first.y, other.y) and not np.array_equal(first.x, other.x)


def test_crops_of_another_epoch_are_others(folder):
    """The same picture twice in one batch size of all: only the crops can differ."""
    first, second = batches(folder, 0, 2, batch_size=48)
    np.testing.assert_array_equal(np.sort(first.y), np.sort(second.y))
    pixels = [{x.tobytes() for x in b.x} for b in (first, second)]
    assert not pixels[0] & pixels[1]


# F over a stream


class InMemory:
    """A stream of arrays in the order of the other drivers, to compare with them."""

    def __init__(self, batch, key, config):
        self.batch, self.config = batch, config
        self.num_train = self.num_test = len(batch.y)
        order_key, _ = jax.random.split(key)
        self.plan = plan_batches(order_key, self.num_train, config, start=0, stop=config.num_steps)
        self.num_read = 0

    def train_batches(self, seed, *, batch_size, last_batch, start, stop):
        x, y = np.asarray(self.batch.x), np.asarray(self.batch.y)
        for step in range(start, stop):
            self.num_read += 1
            rows, weights = (np.asarray(part[step]) for part in self.plan)
            yield StreamBatch(x[rows], y[rows], weights)

    def test_batches(self, batch_size):
        x, y = np.asarray(self.batch.x), np.asarray(self.batch.y)
        for first in range(0, len(y), batch_size):
            rows = np.arange(first, first + batch_size)
            is_real = rows < len(y)
            rows = np.where(is_real, rows, 0)
            yield StreamBatch(x[rows], y[rows], is_real.astype(np.float32))


def config_of(**changes):
    settings = {"num_steps": 9, "rewind_step": 2, "batch_size": 20, "last_batch": "keep"}
    return TrainConfig(**(settings | changes))


def make_net(shape=(8, 8, 1)):
    """A network of two layers that also keeps a running statistic: compiled in no time."""
    num_inputs = int(np.prod(shape))
    draws = np.random.default_rng(5)

    def apply_fn(variables, x, *, is_training, weights=None):
        x = x.reshape(x.shape[0], -1).astype(jnp.float32) / 100
        mean = variables.batch_stats["mean"]
        if is_training:
            w = jnp.ones(x.shape[0]) if weights is None else weights
            mean = 0.9 * mean + 0.1 * (w @ x)[None] / w.sum()
        hidden = jax.nn.relu((x - mean) @ variables.params["hidden"]["kernel"])
        return hidden @ variables.params["head"]["kernel"], {"mean": mean}

    def draw(*shape):
        return {"kernel": jnp.asarray(draws.normal(0, shape[0] ** -0.5, shape), jnp.float32)}

    params = {"hidden": draw(num_inputs, 12), "head": draw(12, 4)}
    return apply_fn, Variables(params, {"mean": jnp.zeros((1, num_inputs))})


def stream_train_fn(apply_fn, config, **settings):
    tx = make_optimizer(config)
    step = make_train_step(apply_fn, tx, config=config)
    return make_stream_train_fn(step, make_begin(tx), config=config, **settings)


def plain_train_fn(config, **settings):
    """F of a linear network by a step that is quick to compile; its key matters too."""

    def loss_of(params, x, y):
        return optax.losses.softmax_cross_entropy_with_integer_labels(x @ params["w"], y).mean()

    def train_step(carry, key, masks, data, batch, step):
        (params, stats), momentum = carry
        noise = jax.random.uniform(jax.random.fold_in(key, step))
        x = data.x[batch.indices].reshape(len(batch.indices), -1) / (200 + noise)
        loss, grads = jax.value_and_grad(loss_of)(params, x, data.y[batch.indices])
        momentum = 0.9 * momentum + grads["w"]
        params = {"w": params["w"] - config.learning_rate * momentum}
        return (Variables(params, stats), momentum), loss

    def begin(variables, masks):
        return variables, jnp.zeros_like(variables.params["w"])

    return make_stream_train_fn(train_step, begin, config=config, **settings)


def test_streamed_training_equals_training_in_memory(tiny_batch):
    """Bit for bit, batch statistics included, from the middle of the schedule too."""
    config, key = config_of(), jax.random.key(1)
    apply_fn, variables = make_net()
    masks = ones_masks(variables.params)
    in_memory = make_train_fn(apply_fn, make_optimizer(config), config=config, driver="dispatch")
    streamed = stream_train_fn(apply_fn, config)
    expected, info = in_memory(jax.random.clone(key), variables, masks, tiny_batch)
    got, stream_info = streamed(
        key, variables, masks, InMemory(tiny_batch, jax.random.clone(key), config)
    )
    assert stream_info.loss.shape == (7,) and bool(stream_info.is_finite)
    assert_same(jax.tree.leaves((got, stream_info)), jax.tree.leaves((expected, info)))
    assert not np.array_equal(*(v.params["head"]["kernel"] for v in (got, variables)))


class KilledError(Exception):
    """What a test kills a run with."""


class KilledSnapshots(SnapshotFolder):
    """Dies after so many saves."""

    def __init__(self, folder, *, num_saves):
        super().__init__(folder, keep=2)
        self.left = num_saves

    def save(self, name, flat):
        super().save(name, flat)
        self.left -= 1
        if self.left == 0:
            raise KilledError


def run_folder(folder, *, snapshots=None, seed=1, save_every=0.0, **changes):
    """Variables, losses and what was told of nine steps over the folder."""
    settings = {"batch_size": 10, "last_batch": "drop", "rewind_step": 0, "learning_rate": 0.01}
    config = config_of(**(settings | changes))
    train_fn = plain_train_fn(config, snapshots=snapshots, save_every=save_every)
    variables = Variables({"w": jnp.zeros((SIZE * SIZE * 3, 4))}, batch_stats={})
    masks, told = ones_masks(variables.params), []
    options: dict[str, Any] = {"on_progress": lambda *seen: told.append(seen)}
    result = train_fn(jax.random.key(seed), variables, masks, folder, **options)
    return jax.device_get(result), told


def test_a_killed_level_ends_in_the_same_bits(folder, tmp_path, monkeypatch):
    expected, told = run_folder(folder)
    assert told == [(9, expected[1].loss[-1])]
    read, draw = [], sample_crop
    for num_saves in (2, 9):
        path = tmp_path / str(num_saves)
        with pytest.raises(KilledError):
            run_folder(folder, snapshots=KilledSnapshots(path, num_saves=num_saves))
        with monkeypatch.context() as patched:
            module = sys.modules["imp_rg.data.image_folder"]
            patched.setattr(module, "sample_crop", lambda *a, **k: read.append(1) or draw(*a, **k))
            read.clear()
            got, _ = run_folder(folder, snapshots=SnapshotFolder(path, keep=2))
        assert_same(jax.tree.leaves(got), jax.tree.leaves(expected))
        assert len(read) == 10 * (9 - num_saves)  # steps before the kill are not read again


def test_a_snapshot_is_not_taken_for_that_of_another_call(folder, tmp_path):
    snapshots = SnapshotFolder(tmp_path, keep=5)
    first, _ = run_folder(folder, snapshots=snapshots)
    differing: tuple[dict[str, Any], ...] = ({"seed": 2}, {"learning_rate": 0.05})
    for changes in differing:
        expected, _ = run_folder(folder, **changes)
        got, _ = run_folder(folder, snapshots=snapshots, **changes)
        assert_same(jax.tree.leaves(got), jax.tree.leaves(expected))
        assert not np.array_equal(got[1].loss[-1], first[1].loss[-1])
    assert len(list(tmp_path.glob("*.npz"))) == 3


def test_short_levels_leave_no_snapshot(folder, tmp_path):
    run_folder(folder, snapshots=SnapshotFolder(tmp_path, keep=2), save_every=1e9)
    assert list(tmp_path.iterdir()) == []


def test_snapshots_make_room_and_damaged_ones_are_passed_over(tmp_path):
    snapshots = SnapshotFolder(tmp_path / "snapshots", keep=2)
    assert isinstance(snapshots, Snapshots) and snapshots.load("a") is None
    flat = {"0/x/kernel": np.arange(6.0).reshape(2, 3), "1": np.zeros(0, np.float32)}
    for name in "abc":
        snapshots.save(name, flat)
    assert snapshots.load("a") is None
    loaded = snapshots.load("b")
    assert loaded is not None and loaded.keys() == flat.keys()
    np.testing.assert_array_equal(loaded["0/x/kernel"], flat["0/x/kernel"])
    path = tmp_path / "snapshots" / "b.npz"
    content = path.read_bytes()
    for damaged in (b"", content[:-50], content.replace(b"(2, 3)", b"(1, 3)")):
        assert damaged != content
        path.write_bytes(damaged)
        assert snapshots.load("b") is None
    snapshots.clear()
    assert not (tmp_path / "snapshots").exists()


def test_a_loss_that_is_not_finite_is_told(folder, tmp_path):
    _, info = run_folder(folder, learning_rate=1e38)[0]
    assert not info.is_finite and not np.isfinite(info.loss).all()


def test_two_batches_are_on_the_device_at_most(tiny_batch):
    """Batches are of a size of their own, so that they can be counted."""
    config, key = config_of(batch_size=20, last_batch="drop", rewind_step=0), jax.random.key(1)
    apply_fn, variables = make_net()
    live = []

    def place(batch):
        live.append(
            sum(x.shape == batch.x.shape and x.dtype == np.uint8 for x in jax.live_arrays())
        )
        return jax.device_put(batch)

    data = InMemory(tiny_batch, jax.random.clone(key), config)
    stream_train_fn(apply_fn, config, place=place)(
        key, variables, ones_masks(variables.params), data
    )
    assert len(live) == data.num_read == 9
    assert max(live) <= 1  # one, while the next is placed beside it


def test_streamed_accuracy_is_that_in_memory(tiny_batch):
    apply_fn, variables = make_net()
    other = jax.tree.map(lambda x: -x, variables)
    replicates = stack([variables, other])
    data = InMemory(tiny_batch, jax.random.key(0), config_of())
    got = make_stream_measure_fn(apply_fn, batch_size=36)(replicates, data)
    expected = make_measure_fn(apply_fn, driver="dispatch", strategy="loop")(replicates, tiny_batch)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, expected)
    assert 0 < got.max() < 100


def test_levels_of_a_stream_are_pruned_and_rewound(folder):
    """T over a stream, two replicates; the network is the second smallest there is."""
    model = make_model("lenet8", num_classes=4)
    blocks = model.partition("layer", folder.image_shape)
    shapes = jax.tree.leaves(model.shapes(folder.image_shape))
    config = config_of(batch_size=12, num_steps=8, after_rewind="restart", last_batch="drop")
    told = []
    scheme = make_stream_scheme(
        model.make_apply_fn(folder.mean, folder.std),
        blocks=blocks,
        leaf_sizes=tuple(math.prod(leaf.shape) for leaf in shapes),
        num_examples=folder.num_train,
        num_levels=2,
        prune_config=PruneConfig(),
        train_config=config,
        on_progress=lambda *seen: told.append(seen[:2]),
    )
    keys = jax.random.split(jax.random.key(0), 2)
    initial = stack([model.init(jax.random.key(seed), folder.image_shape) for seed in (0, 1)])
    state = scheme.start(jax.random.clone(keys), initial, folder)
    for level in (0, 1):
        state, record = run_level(scheme, jax.random.clone(keys), state, folder, folder)
        assert record.is_finite.all() and record.test_metric.shape == (2,)
        np.testing.assert_array_equal(record.test_metric * 12 % 100, 0)
        kept = record.flow.surviving[:, 0].sum(axis=-1)
        np.testing.assert_array_equal(kept, sum(blocks.sizes) - scheme.schedule[: level + 1].sum())
    assert told == [(replicate, 8) for _ in (0, 1) for replicate in (0, 1)]
    assert not np.array_equal(*state.variables.params["head"]["kernel"])


# What is refused


def copy_of(root, tmp_path, classes=CLASSES, splits=("train", "val")):
    for split in splits:
        for name in classes:
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "a.png").write_bytes(
                (root / split / name / "00.png").read_bytes()
            )
    return tmp_path


def no_split(path):
    for name in CLASSES:
        (path / "val" / name / "a.png").unlink()
        (path / "val" / name).rmdir()
    (path / "val").rmdir()


BAD_FOLDERS = {
    "absent": (lambda p: p.rename(p.with_name("gone")), ["dataset", "train/", "val/"]),
    "no held-out split": (no_split, ["dataset", "val/ or test/"]),
    "other classes": (lambda p: (p / "val" / "ant").rename(p / "val" / "ape"), ["'ant', 'ape'"]),
    "empty class": (lambda p: (p / "train" / "bee" / "a.png").unlink(), ["train/bee", "images"]),
    "empty test class": (lambda p: (p / "val" / "dog" / "a.png").unlink(), ["val/dog"]),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_unfit_folders_are_refused_in_one_line(root, tmp_path, case):
    spoil, words = BAD_FOLDERS[case]
    path = copy_of(root, tmp_path / "own")
    load_folder(f"folder:{path}")
    spoil(path)
    with pytest.raises(ValueError) as error:
        load_folder(f"folder:{path}")
    one_line(error, *words)


def test_one_class_and_no_size_are_refused(root, tmp_path):
    with pytest.raises(ValueError) as error:
        load_folder(f"folder:{copy_of(root, tmp_path, classes=CLASSES[:1])}")
    one_line(error, "2 classes", "'ant'")
    with pytest.raises(ValueError) as error:
        load_folder(f"folder:{root}+resize=0")
    one_line(error, "resize", "'0'")
    with pytest.raises(ValueError) as error:
        load(f"folder:{root}")
    one_line(error, "dataset", "streamed", str(root))


def test_test_serves_where_there_is_no_val(root, tmp_path):
    path = copy_of(root, tmp_path)
    (path / "val").rename(path / "test")
    assert load_folder(f"folder:{path}").num_test == 4


def truncated(content):
    return content[: len(content) // 2]


def text(content):
    return b"no picture"


def empty(content):
    return b""


@pytest.mark.parametrize("spoil", [truncated, text, empty])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_damaged_picture_is_named_in_one_line(root, tmp_path, spoil, suffix):
    folder = load_folder(f"folder:{copy_of(root, tmp_path)}+resize={SIZE}")
    stored = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stored, format={"png": "PNG", "jpg": "JPEG"}[suffix])
    path = folder.train.paths[2]
    path.write_bytes(spoil(stored.getvalue()))
    with pytest.raises(ValueError) as error:
        batches(folder, 0, 1, batch_size=4)
    one_line(error, str(path), "whole image")


def test_a_batch_must_not_exceed_the_pictures(folder):
    with pytest.raises(ValueError) as error:
        batches(folder, 0, 1, batch_size=49)
    one_line(error, "batch_size", "48 training images", "49")


def test_grain_is_needed_and_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ValueError) as error:
        load_folder(f"folder:{root}")
    one_line(error, "grain", "imp-rg[stream]")
