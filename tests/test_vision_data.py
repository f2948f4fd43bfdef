"""Splits, constants and class-balanced parts of the studies of vision."""

import numpy as np
import pytest
from tfds_cifar import SHARED, read_shared

from imp_rg import data
from imp_rg.data import load
from imp_rg.data.arrays import Splits, hold_out
from imp_rg.data.derived import split_name, transform_splits


def make_splits(num_train=120, num_test=20, *, num_classes=10):
    """Images of one pixel, which is different in every row, under classes in no order."""
    rng = np.random.default_rng(0)
    rows = np.arange(num_train + num_test)
    x = np.stack([rows // 256, rows % 256, rows % 7], axis=-1).astype(np.uint8)[:, None, None]
    y = rng.integers(0, num_classes, len(x), dtype=np.int32)
    return Splits(x[:num_train], y[:num_train], x[num_train:], y[num_train:], num_classes)


@pytest.fixture
def prepared(monkeypatch):
    """Makes every name of TensorFlow Datasets give these arrays."""

    def prepare(splits):
        monkeypatch.setattr(data, "load_tfds", lambda name, data_dir: splits)
        return splits

    return prepare


@pytest.mark.parametrize(
    ("name", "num_train", "num_test", "num_left", "augment"),
    [
        ("cifar10", 50_000, 10_000, 45_000, "flip_crop"),
        ("cifar100", 50_000, 10_000, 45_000, "flip_crop"),
        ("svhn_cropped", 73_257, 26_032, 68_257, "none"),
    ],
)
def test_the_study_validates_on_the_last_rows(
    prepared, name, num_train, num_test, num_left, augment
):
    splits = prepared(make_splits(num_train, num_test))
    images = load(name, holdout=5000, normalize="study")
    assert images.augment == augment and len(images.y_train) == num_left
    np.testing.assert_array_equal(images.x_train, splits.x_train[:num_left])
    np.testing.assert_array_equal(images.y_train, splits.y_train[:num_left])
    np.testing.assert_array_equal(images.x_val, splits.x_train[-5000:])
    np.testing.assert_array_equal(images.y_val, splits.y_train[-5000:])
    np.testing.assert_array_equal(images.x_test, splits.x_test)
    np.testing.assert_array_equal(images.y_test, splits.y_test)


def test_without_a_holdout_nothing_changes(prepared):
    splits = prepared(make_splits())
    images = load("cifar10")
    assert images.x_val.shape == (0, 1, 1, 3) and images.x_val.dtype == np.uint8
    assert images.y_val.shape == (0,) and images.y_val.dtype == np.int32
    np.testing.assert_array_equal(images.x_train, splits.x_train)


def test_statistics_are_of_the_rows_that_stay(prepared):
    splits = prepared(make_splits())
    images = load("svhn_cropped", holdout=50)
    stay = splits.x_train[:70].astype(float)
    np.testing.assert_allclose(images.mean, stay.mean((0, 1, 2)), rtol=1e-6)
    assert not np.allclose(images.mean, splits.x_train.astype(float).mean((0, 1, 2)), rtol=1e-3)


@pytest.mark.parametrize("holdout", [-1, 120, 121])
def test_a_holdout_must_leave_something(prepared, holdout):
    prepared(make_splits())
    with pytest.raises(ValueError, match=f"^holdout: .* less than the 120 .* got {holdout}$"):
        load("cifar10", holdout=holdout)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("cifar10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ("cifar100+balanced=10", (0.5071, 0.4866, 0.4409), (0.2009, 0.1984, 0.2023)),
        ("svhn_cropped:3.0.0+resize=2", (0.4377, 0.4438, 0.4728), (0.1201, 0.1231, 0.1052)),
        ("cifar10+classes=0-4", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    ],
)
def test_constants_of_the_study_are_in_raw_units(prepared, name, mean, std):
    prepared(make_splits())
    images = load(name, normalize="study")
    np.testing.assert_allclose(images.mean / 255, mean, rtol=1e-6)
    np.testing.assert_allclose(images.std / 255, std, rtol=1e-6)


@pytest.mark.parametrize("name", ["mnist", "cifar10+invert", "cifar1"])
def test_other_sets_have_no_constants_of_the_study(prepared, name):
    prepared(make_splits())
    with pytest.raises(
        ValueError, match="^normalize: study knows cifar10, cifar100, svhn"
    ) as error:
        load(name, normalize="study")
    assert repr(name) in str(error.value) and "\n" not in str(error.value)


def derive(transforms, splits):
    name = f"base+{transforms}"
    return transform_splits(splits, split_name(name)[1], name)


def test_balanced_parts_are_the_first_of_each_class_in_their_order():
    splits = make_splits()
    derived = derive("balanced=50", splits)
    expected, count = [], dict.fromkeys(range(10), 0)
    for row, label in enumerate(splits.y_train.tolist()):
        if count[label] < 5:
            expected.append(row)
            count[label] += 1
    np.testing.assert_array_equal(derived.x_train, splits.x_train[expected])
    np.testing.assert_array_equal(derived.y_train, splits.y_train[expected])
    np.testing.assert_array_equal(derived.x_test, splits.x_test)
    np.testing.assert_array_equal(derived.y_test, splits.y_test)


def test_balanced_parts_of_derived_tasks_have_their_classes_and_size():
    splits = make_splits()
    derived = derive("classes=2,0,7+balanced=9+resize=3", splits)
    np.testing.assert_array_equal(np.bincount(derived.y_train), [3, 3, 3])
    assert derived.x_train.shape == (9, 3, 3, 3)
    firsts = [x for x, y in zip(splits.x_train, splits.y_train, strict=True) if y == 2][:3]
    np.testing.assert_array_equal(
        derived.x_train[derived.y_train == 0, 0, 0], np.ravel(firsts).reshape(3, 3)
    )
    before = derive("balanced=50+classes=2,0,7", splits)
    np.testing.assert_array_equal(np.bincount(before.y_train), [5, 5, 5])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", ["balanced", "10 classes", "''"]),
        ("0", ["balanced", "'0'"]),
        ("-10", ["balanced", "'-10'"]),
        ("15", ["balanced", "equal parts of 10 classes", "'15'"]),
        ("1e2", ["balanced", "'1e2'"]),
        ("1000", ["balanced", "must not exceed 50", "5 images", "'1000'"]),
    ],
)
def test_unfit_balanced_parts_are_refused_in_one_line(value, words):
    splits = make_splits()
    assert np.bincount(splits.y_train).min() == 5  # else the last case means another number
    with pytest.raises(ValueError) as error:
        derive(f"balanced={value}", splits)
    message = str(error.value)
    assert message.startswith("dataset: ") and "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("transforms", ["invert", "permute", "resize=2", "classes=0-4"])
def test_held_out_rows_are_transformed_like_test_rows(transforms):
    splits = make_splits()
    # The same images as test rows and as held-out rows.
    splits = hold_out(splits._replace(x_test=splits.x_train[100:], y_test=splits.y_train[100:]), 20)
    derived = derive(transforms, splits)
    np.testing.assert_array_equal(derived.x_val, derived.x_test)
    np.testing.assert_array_equal(derived.y_val, derived.y_test)
    assert derived.x_val.shape[1:] == derived.x_train.shape[1:]


@pytest.mark.parametrize("transforms", ["noise=1", "shuffle", "balanced=10"])
def test_held_out_rows_keep_labels_and_number_where_training_rows_do_not(transforms):
    splits = hold_out(make_splits(), 20)
    derived = derive(transforms, splits)
    np.testing.assert_array_equal(derived.x_val, splits.x_val)
    np.testing.assert_array_equal(derived.y_val, splits.y_val)
    assert len(derived.y_train) != 100 or not np.array_equal(derived.y_train, splits.y_train)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs IMP_RG_SHARED, real CIFAR-10")
def test_a_part_of_the_real_cifar_is_balanced_and_leaves_the_test_set(prepared):
    x, y = read_shared("test", 3000)
    prepared(Splits(x[:2500], y[:2500], x[2500:], y[2500:], num_classes=10))
    images = load("cifar10+balanced=1000+resize=16", holdout=500, normalize="study")
    assert images.x_train.shape == (1000, 16, 16, 3) and images.x_val.shape == (500, 16, 16, 3)
    np.testing.assert_array_equal(np.bincount(images.y_train), np.full(10, 100))
    np.testing.assert_array_equal(images.y_val, y[2000:2500])
    np.testing.assert_array_equal(images.y_test, y[2500:])
    # The study's deviations make what the network sees wider than 1.
    seen = (images.x_train - images.mean) / images.std
    assert abs(seen.mean()) < 0.1 and 1.05 < seen.std() < 1.3


@pytest.mark.parametrize(
    ("name", "transforms"),
    [("folder:/a+b", ()), ("folder:/a+b+resize=64", ("resize=64",)), ("folder:/a+invert", ())],
)
def test_paths_of_folders_may_contain_a_plus(name, transforms):
    base = name.removesuffix("+resize=64")
    assert split_name(name) == (base, transforms)
