"""Data: what arrays a name gives, what is refused, and what augmentation does to a pixel."""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from tfds_cifar import SHARED, encode_png, read_shared, write_cifar

from imp_rg.data import ImageData, load
from imp_rg.data.augment import PADDING, augment, draw_flip_crop, normalize

RNG = np.random.default_rng(0)
NUM_TRAIN, NUM_TEST = 2000, 500


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Each test has a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "imp_rg" / "data"


def one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


# Augmentation and normalisation


def images(num: int = 16, height: int = 7, width: int = 5, channel: int = 3) -> np.ndarray:
    return RNG.integers(1, 256, (num, height, width, channel), dtype=np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_flip_crop_equals_loop_over_drawn_offsets(dtype):
    x = images(64).astype(dtype)
    is_flipped, offset = map(np.asarray, draw_flip_crop(jax.random.key(3), len(x)))
    expected = np.zeros_like(x)
    for i, image in enumerate(x):
        image = image[:, ::-1] if is_flipped[i] else image
        padded = np.pad(image, ((PADDING, PADDING), (PADDING, PADDING), (0, 0)))
        row, column = offset[i]
        expected[i] = padded[row : row + x.shape[1], column : column + x.shape[2]]
    got = jax.jit(augment, static_argnames="policy")(jax.random.key(3), x, policy="flip_crop")
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, expected)


def test_flip_crop_draws_are_uniform():
    num, num_places = 81_000, 2 * PADDING + 1
    is_flipped, offset = draw_flip_crop(jax.random.key(0), num)
    sem = 0.5 / np.sqrt(num)
    assert abs(float(is_flipped.mean()) - 0.5) < 4 * sem
    place = np.asarray(offset @ jnp.array([num_places, 1]) + num_places**2 * is_flipped)
    counts = np.bincount(place, minlength=2 * num_places**2)
    assert counts.shape == (162,)  # every crop of both mirror images, and nothing else
    chi2 = np.sum((counts - num / 162) ** 2) / (num / 162)
    assert abs(chi2 - 161) < 4 * np.sqrt(2 * 161)


def test_augment_is_the_same_under_vmap_and_differs_by_key():
    keys, x = jax.random.split(jax.random.key(1), 2), jnp.asarray(images())
    one = jax.jit(lambda key: augment(key, x, policy="flip_crop"))
    batches = jax.jit(jax.vmap(one))(keys)
    for key, batch in zip(keys, batches, strict=True):
        np.testing.assert_array_equal(batch, one(key))
    assert not np.array_equal(*batches)


def test_augment_none_changes_nothing_and_unknown_is_refused():
    x = jnp.asarray(images())
    assert augment(jax.random.key(0), x, policy="none") is x
    with pytest.raises(ValueError) as error:
        augment(jax.random.key(0), x, policy="rotate")
    one_line(error, "augment", "flip_crop", "'rotate'")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_normalize_is_per_channel_in_raw_units(dtype):
    x, (mean, std) = images(), np.array([[10, 20, 30], [1, 2, 4]], np.float32)
    with jax.numpy_rank_promotion("raise"):
        got = normalize(jnp.asarray(x), mean, std, dtype=dtype)
    assert got.dtype == dtype
    expected = jnp.asarray((x.astype(np.float32) - mean) / std)
    np.testing.assert_array_equal(got, expected.astype(dtype))


# Digits and statistics


def test_digits_are_split_once_and_stratified():
    data, again = load("digits"), load("digits")
    assert data.x_train.shape == (1437, 8, 8, 1) and data.x_test.shape == (360, 8, 8, 1)
    assert data.x_train.dtype == np.uint8 and data.x_train.max() == 16
    assert data.y_train.dtype == np.int32 and data.num_classes == 10 and data.augment == "none"
    np.testing.assert_array_equal(data.x_test, again.x_test)
    share = np.bincount(data.y_test) / np.bincount(np.append(data.y_train, data.y_test))
    assert np.all(abs(share - 0.2) < 0.01)


def test_digits_hold_every_example_of_scikit_learn_with_its_label():
    from sklearn.datasets import load_digits

    data, (pixels, labels) = load("digits"), map(np.asarray, load_digits(return_X_y=True))
    x = np.concatenate([data.x_train, data.x_test]).reshape(-1, 64)
    ours = np.column_stack([x, np.append(data.y_train, data.y_test)])
    theirs = np.column_stack([pixels, labels])
    np.testing.assert_array_equal(np.unique(ours, axis=0), np.unique(theirs, axis=0))
    assert len(ours) == len(theirs)


def save(path: Path, **changes) -> str:
    """Writes a sound npz file but for the changes (None: leave out) and returns its name."""
    arrays = {
        "x_train": RNG.integers(0, 256, (12, 4, 5, 3), dtype=np.uint8),
        "y_train": np.arange(12) % 3,
        "x_test": RNG.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8),
        "y_test": np.arange(6) % 3,
    }
    arrays |= changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return f"npz:{path}"


def test_statistics_are_of_the_training_images_and_constant_channels_stay_finite(tmp_path):
    x = RNG.normal(5, 3, (2345, 4, 5, 2))
    x[..., 1] = 0.1
    y = np.arange(len(x)) % 3
    data = load(save(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:6] + 100))
    assert data.x_train.dtype == data.mean.dtype == data.std.dtype == np.float32
    np.testing.assert_allclose(data.mean, [x[..., 0].mean(), 0.1], rtol=1e-6)
    np.testing.assert_allclose(data.std, [x[..., 0].std(), 1.0], rtol=1e-6)
    seen = normalize(jnp.asarray(data.x_train), data.mean, data.std)
    np.testing.assert_allclose(seen.std((0, 1, 2)), [1, 0], atol=1e-5)


def test_imagenet_statistics_are_in_raw_units(tmp_path):
    data = load(save(tmp_path / "a.npz"), normalize="imagenet")
    np.testing.assert_allclose(data.mean / 255, [0.485, 0.456, 0.406], rtol=1e-6)
    np.testing.assert_allclose(data.std / 255, [0.229, 0.224, 0.225], rtol=1e-6)
    with pytest.raises(ValueError) as error:
        load("digits", normalize="imagenet")
    one_line(error, "normalize", "RGB", "(1437, 8, 8, 1)")


def test_augmentation_can_be_chosen(tmp_path):
    name = save(tmp_path / "a.npz")
    assert load(name).augment == "none"
    assert load(name, augment="flip_crop").augment == "flip_crop"
    settings: list[dict[str, Any]] = [{"augment": "other"}, {"normalize": "other"}]
    for setting in settings:
        with pytest.raises(ValueError) as error:
            load(name, **setting)
        one_line(error, *setting, "'other'")


# Own arrays


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float64])
@pytest.mark.parametrize("label_dtype", [np.uint8, np.int64])
def test_npz_keeps_values(tmp_path, dtype, label_dtype):
    x, y = RNG.integers(0, 256, (12, 4, 5)).astype(dtype), (np.arange(12) % 3).astype(label_dtype)
    name = save(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:6])
    data = load(name)
    assert data.x_train.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    np.testing.assert_array_equal(data.x_train, x[..., None])
    np.testing.assert_array_equal(data.y_train, y)
    assert data.y_train.dtype == np.int32 and data.num_classes == 3 and data.name == name


X = RNG.integers(0, 256, (12, 4, 5, 3), dtype=np.uint8)
NAN = np.where(np.arange(12 * 60).reshape(X.shape) == 7, np.nan, X)
BAD_ARRAYS = {
    "missing": ({"y_test": None}, ["y_test"]),
    "object": ({"y_test": np.array([1, "a", None] * 2, object)}, ["y_test", "Object arrays"]),
    "dtype": ({"x_train": X.astype(np.int64)}, ["x_train", "uint8 or float", "int64"]),
    "complex": ({"x_test": X[:6] + 0j}, ["x_test", "complex128"]),
    "rank": ({"x_train": X.reshape(12, 60)}, ["x_train", "[N, H, W, C]", "(12, 60)"]),
    "empty": ({"x_train": X[:0]}, ["x_train", "empty"]),
    "no pixels": ({"x_test": X[:6, :0]}, ["x_test", "empty"]),
    "nan": ({"x_train": NAN}, ["x_train", "finite", "1 NaN"]),
    "infinite": ({"x_test": np.full(X[:6].shape, -np.inf)}, ["x_test", "finite"]),
    "too large": ({"x_test": X[:6] * 1e300}, ["x_test", "finite in float32"]),
    "train count": ({"y_train": np.arange(11) % 3}, ["y_train", "12 images", "11"]),
    "test count": ({"y_test": np.arange(7) % 3}, ["y_test", "6 images", "7"]),
    "negative": ({"y_train": np.arange(12) % 3 - 1}, ["y_train", "negative", "-1"]),
    "fraction": ({"y_train": np.arange(12) / 3}, ["y_train", "integers", "float64"]),
    "label rank": ({"y_train": np.eye(12, 3, dtype=int)}, ["y_train", "[N]", "(12, 3)"]),
    "label empty": ({"y_test": np.arange(0)}, ["y_test", "empty"]),
    "sparse": ({"y_train": np.arange(12) * 2}, ["y_train", "number of training images 12", "22"]),
    "outside": ({"y_test": np.arange(6)}, ["y_test", "number of classes 3", "5"]),
    "wide": ({"y_test": np.full(6, 2**40)}, ["y_test", "32 bits"]),
    "size": ({"x_test": X[:6, :, :4]}, ["x_test", "(4, 5, 3)", "(4, 4, 3)"]),
    "kind": ({"x_test": X[:6] / 255}, ["x_test", "uint8", "float32"]),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_unfit_arrays_are_refused_in_one_line(tmp_path, case):
    changes, words = BAD_ARRAYS[case]
    name = save(tmp_path / "a.npz", **changes)
    with pytest.raises(ValueError) as error:
        load(name)
    one_line(error, *words)


def text(path: Path) -> None:
    path.write_text("x_train\n")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def absent(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def flipped(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(12, 4, 5, 3)", b"(12, 5, 4, 3)"))  # in a header


def foreign(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(name, "not an array")


@pytest.mark.parametrize("spoil", [text, truncated, absent, folder, flipped, foreign])
def test_unreadable_files_are_refused_in_one_line(tmp_path, spoil):
    path = tmp_path / "a.npz"
    name = save(path)
    spoil(path)
    with pytest.raises(ValueError) as error:
        load(name)
    one_line(error, "x_train" if spoil is foreign else str(path))


# TensorFlow Datasets, written and read by itself

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs IMP_RG_SHARED, real CIFAR-10")


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Path:
    data_dir = tmp_path_factory.mktemp("tfds")
    write_cifar(data_dir, num_train=NUM_TRAIN, num_test=NUM_TEST)
    return data_dir


@pytest.fixture
def prepared(written, tmp_path) -> Path:
    """A data_dir of the test's own, to be spoilt."""
    return Path(shutil.copytree(written, tmp_path / "tfds"))


def labels_by_pixels(x: np.ndarray, y: np.ndarray) -> dict[bytes, int]:
    return {image.tobytes(): int(label) for image, label in zip(x, y, strict=True)}


def assert_is_cifar(data: ImageData) -> None:
    """Same pixels under the same labels; TFDS shuffles rows when it writes."""
    for split, num in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        x, y = getattr(data, f"x_{split}"), getattr(data, f"y_{split}")
        assert x.shape == (num, 32, 32, 3) and x.dtype == np.uint8 and y.dtype == np.int32
        expected = labels_by_pixels(*read_shared(split, num))
        assert len(expected) == num
        assert labels_by_pixels(x, y) == expected


@needs_shared
def test_cifar_comes_back_exactly_by_every_address(written):
    for name, data_dir in (
        ("cifar10", written),
        ("cifar10:3.*.*", str(written)),
        ("cifar10", written / "cifar10" / "3.0.2"),
    ):
        data = load(name, data_dir=data_dir)
        assert_is_cifar(data)
        assert data.num_classes == 10 and data.augment == "flip_crop" and data.name == name
    assert "tensorflow" not in sys.modules


@needs_shared
def test_cache_needs_no_tfds_and_outlives_the_files(prepared):
    load("cifar10", data_dir=prepared)
    code = f"""
import sys
sys.modules["tensorflow_datasets"] = sys.modules["array_record"] = None
from imp_rg.data import load
print(load("cifar10", data_dir={str(prepared)!r}).x_train.sum(dtype=int))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) == read_shared("train", NUM_TRAIN)[0].sum(dtype=int)
    shutil.rmtree(prepared)
    assert_is_cifar(load("cifar10", data_dir=prepared))


@needs_shared
def test_damaged_cache_is_built_again(prepared, cache):
    load("cifar10", data_dir=prepared)
    (path,) = cache.iterdir()
    content = path.read_bytes()
    middle = len(content) // 2
    for damaged in (
        content[:-1000],
        content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        content.replace(b"(2000, 32, 32, 3)", b"(1000, 32, 32, 3)"),
        b"",
    ):
        assert damaged != content
        path.write_bytes(damaged)
        assert_is_cifar(load("cifar10", data_dir=prepared))
        assert hashlib.sha256(path.read_bytes()[:middle]).digest() == (
            hashlib.sha256(content[:middle]).digest()
        )
        assert list(cache.iterdir()) == [path]


@needs_shared
def test_cache_follows_a_set_that_is_prepared_again(prepared):
    load("cifar10", data_dir=prepared)
    shutil.rmtree(prepared / "cifar10")
    write_cifar(prepared, num_train=100, num_test=50)
    assert load("cifar10", data_dir=prepared).x_train.shape == (100, 32, 32, 3)


@needs_shared
def test_unwritable_cache_is_only_a_warning(written, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="data cache not written"):
        assert_is_cifar(load("cifar10", data_dir=written))


def edit_info(path: Path, **changes) -> None:
    info = json.loads((path / "dataset_info.json").read_text())
    kept = {k: v for k, v in (info | changes).items() if v is not None}
    (path / "dataset_info.json").write_text(json.dumps(kept))


TRAIN, TEST = (f"cifar10-{split}.array_record-00000-of-00001" for split in ("train", "test"))
BAD_FOLDERS = {
    "missing shard": (lambda p: (p / TRAIN).unlink(), [TRAIN, "2000", "got 0"]),
    "fewer rows": (lambda p: shutil.copy(p / TEST, p / TRAIN), [TRAIN, "2000", "got 500"]),
    "more rows": (lambda p: shutil.copy(p / TRAIN, p / TEST), [TEST, "500", "got 2000"]),
    "truncated": (
        lambda p: (p / TRAIN).write_bytes((p / TRAIN).read_bytes()[:70_000]),
        [TRAIN, "got 0"],
    ),
    "tfrecord": (lambda p: edit_info(p, fileFormat="tfrecord"), ["array_record", "'tfrecord'"]),
    "no description": (lambda p: (p / "dataset_info.json").write_text("{"), []),
    "no label": (lambda p: edit_info(p, supervisedKeys=None), ["supervised keys", "()"]),
    "other name": (lambda p: edit_info(p, name="cifar100"), ["cifar100", "got 'cifar10'"]),
}


@needs_shared
@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_unfit_folders_are_refused_in_one_line(prepared, case):
    spoil, words = BAD_FOLDERS[case]
    path = prepared / "cifar10" / "3.0.2"
    spoil(path)
    with pytest.raises(ValueError) as error:
        load("cifar10", data_dir=prepared)
    one_line(error, str(path), *words)


@needs_shared
def test_only_a_train_split_is_refused_and_validation_serves_as_test(prepared):
    path = prepared / "cifar10" / "3.0.2"
    info = json.loads((path / "dataset_info.json").read_text())
    train, test = info["splits"]
    edit_info(path, splits=[train])
    with pytest.raises(ValueError) as error:
        load("cifar10", data_dir=prepared)
    one_line(error, "validation", "['train']")
    edit_info(path, splits=[train, test | {"name": "validation"}])
    (path / TEST).rename(path / TEST.replace("test", "validation"))
    assert_is_cifar(load("cifar10", data_dir=prepared))


@needs_shared
def test_highest_version_is_taken_and_configs_must_be_named(prepared):
    base = prepared / "cifar10"
    shutil.copytree(base / "3.0.2", base / "3.0.10")
    edit_info(base / "3.0.10", version="3.0.10")
    (base / "3.0.2" / TRAIN).unlink()
    assert_is_cifar(load("cifar10", data_dir=prepared))
    with pytest.raises(ValueError):
        load("cifar10:3.0.2", data_dir=prepared)
    for config in ("small", "large"):
        shutil.copytree(base / "3.0.10", base / config / "3.0.10")
    with pytest.raises(ValueError) as error:
        load("cifar10", data_dir=prepared)
    one_line(error, "large, small", "'cifar10'")
    assert_is_cifar(load("cifar10/small", data_dir=prepared))


class OwnImages(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A set TFDS does not know by name: the given images, labelled 0, 1, 0, 1, ..., twice."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None

    def __init__(self, pictures: list[np.ndarray], **kwargs):
        self.pictures = pictures
        super().__init__(file_format="array_record", **kwargs)

    def _info(self):
        image = tfds.features.Image(shape=(None, None, self.pictures[0].shape[2]))
        features = {"picture": image, "kind": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("picture", "kind"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "test": self._generate_examples()}

    def _generate_examples(self):
        for i, picture in enumerate(self.pictures):
            yield i, {"picture": encode_png(picture), "kind": i % 2}


@pytest.mark.parametrize("channel", [1, 3])
def test_own_set_is_read_without_being_registered(tmp_path, channel):
    x = images(6, channel=channel)
    OwnImages(list(x), data_dir=tmp_path).download_and_prepare()
    data = load("own_images", data_dir=tmp_path)
    assert data.num_classes == 2 and data.augment == "none"
    assert labels_by_pixels(data.x_train, data.y_train) == labels_by_pixels(x, np.arange(6) % 2)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([(7, 5, 3), (7, 6, 3)], ["one size", "(7, 5, 3)", "(7, 6, 3)"]),
        ([(7, 5, 4)], ["grey or RGB", "(7, 5, 4)"]),
    ],
)
def test_pictures_of_several_sizes_or_kinds_are_refused(tmp_path, shapes, words):
    pictures = [images(1, *shape)[0] for shape in shapes]
    OwnImages(pictures, data_dir=tmp_path).download_and_prepare()
    with pytest.raises(ValueError) as error:
        load("own_images", data_dir=tmp_path)
    one_line(error, "own_images", *words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifra10", ["dataset", "'cifra10'", "cifar10"]),
        ("digit", ["dataset", "'digit'", "nearest: digits"]),
        ("../digits", ["dataset", "'../digits'"]),
        ("", ["dataset", "''"]),
        ("mnist", ["data_dir", "'mnist'", "not prepared", "imp_rg[tfds]"]),
    ],
)
def test_unknown_and_unprepared_names_are_refused_in_one_line(tmp_path, name, words):
    with pytest.raises(ValueError) as error:
        load(name, data_dir=tmp_path)
    one_line(error, *words)
