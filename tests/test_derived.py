"""Tasks derived from a data set: what each transform keeps, changes and refuses."""

import math

import numpy as np
import pytest

from imp_rg import data
from imp_rg.data import load
from imp_rg.data.arrays import Splits
from imp_rg.data.derived import GROUPINGS, split_name, transform_splits


def small_splits(num_classes=10, num_train=40, channels=1, dtype=np.uint8):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 17, (num_train + 20, 4, 3, channels)).astype(dtype)
    y = np.arange(num_train + 20, dtype=np.int32) % num_classes
    return Splits(x[:num_train], y[:num_train], x[num_train:], y[num_train:], num_classes)


def derive(transforms, splits=None):
    name = f"base+{transforms}"
    return transform_splits(splits or small_splits(), split_name(name)[1], name)


def pairs(splits):
    """Training images as bytes with their labels."""
    return [(x.tobytes(), int(y)) for x, y in zip(splits.x_train, splits.y_train, strict=True)]


@pytest.mark.parametrize(
    ("name", "base", "transforms"),
    [
        ("digits", "digits", ()),
        ("digits+invert+noise=0.5", "digits", ("invert", "noise=0.5")),
        ("npz:/a+b/c.npz", "npz:/a+b/c.npz", ()),
        ("npz:/a+b/c.npz+invert", "npz:/a+b/c.npz", ("invert",)),
        ("npz:data+v2", "npz:data+v2", ()),
    ],
)
def test_names_divide_at_plus_but_not_within_a_path(name, base, transforms):
    assert split_name(name) == (base, transforms)


def test_classes_keep_only_those_in_their_order():
    splits = small_splits()
    derived = derive("classes=3-5,1", splits)
    assert derived.num_classes == 4
    kept = {3: 0, 4: 1, 5: 2, 1: 3}
    assert pairs(derived) == [(x, kept[y]) for x, y in pairs(splits) if y in kept]
    np.testing.assert_array_equal(
        derived.y_test, [kept[y] for y in splits.y_test.tolist() if y in kept]
    )


@pytest.mark.parametrize(
    ("value", "groups"),
    [
        ("0-2_5,7", {0: 0, 1: 0, 2: 0, 5: 1, 7: 1}),
        ("odd-even", {c: (c + 1) % 2 for c in range(10)}),
        ("loops", {c: int(c in (0, 4, 6, 8, 9)) for c in range(10)}),
        ("animal-vehicle", {c: int(c in (0, 1, 8, 9)) for c in range(10)}),
    ],
)
def test_groups_become_classes(value, groups):
    splits = small_splits()
    derived = derive(f"group={value}", splits)
    assert derived.num_classes == len(set(groups.values()))
    assert pairs(derived) == [(x, groups[y]) for x, y in pairs(splits) if y in groups]


def test_superclasses_of_cifar100_are_twenty_of_five():
    np.testing.assert_array_equal(np.bincount(GROUPINGS["coarse"]), np.full(20, 5))
    derived = derive("group=coarse", small_splits(num_classes=100, num_train=100))
    assert derived.num_classes == 20
    # apple and pear; bee and butterfly; maple, oak, palm, pine and willow
    coarse = derived.y_train
    assert coarse[0] == coarse[57] and coarse[6] == coarse[14] != coarse[0]
    assert len(set(coarse[[47, 52, 56, 59, 96]].tolist())) == 1


def test_permutation_is_one_for_all_images_invertible_and_drawn_by_seed():
    splits = small_splits(channels=3)
    derived, other = derive("permute", splits), derive("permute=1", splits)
    # An image whose pixels say where they are finds the inverse.
    places = np.arange(12, dtype=np.uint8).reshape(1, 4, 3, 1).repeat(3, axis=-1)
    order = derive("permute", splits._replace(x_train=places)).x_train[0, ..., 0].ravel()
    inverse = np.argsort(order)
    for part in ("x_train", "x_test"):
        x = getattr(derived, part)
        assert not np.array_equal(x, getattr(splits, part))
        restored = x.reshape(len(x), 12, 3)[:, inverse].reshape(x.shape)
        np.testing.assert_array_equal(restored, getattr(splits, part))
    assert not np.array_equal(derived.x_train, other.x_train)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_inversion_swaps_dark_and_bright_and_undoes_itself(dtype):
    splits = small_splits(dtype=dtype)
    splits.x_train[0, 0, 0], splits.x_test[0, 0, 0] = 255, 3
    splits = splits._replace(x_train=np.maximum(splits.x_train, 3).astype(dtype))
    splits = splits._replace(x_test=np.maximum(splits.x_test, 3).astype(dtype))
    derived = derive("invert", splits)
    assert derived.x_train.dtype == dtype
    np.testing.assert_array_equal(derived.x_train.astype(int), 258 - splits.x_train.astype(int))
    np.testing.assert_array_equal(derive("invert", derived).x_test, splits.x_test)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_noise_draws_its_share_of_the_training_labels_anew(share):
    splits = small_splits(num_train=20_000)
    derived = derive(f"noise={share}", splits)
    # A label drawn anew is right once in ten times.
    expected = 0.9 * share
    wrong = derived.y_train != splits.y_train
    error = math.sqrt(max(0.09 * share, 1e-12) / len(wrong))
    assert abs(wrong.mean() - expected) < 4 * error
    changed = np.bincount(derived.y_train[wrong], minlength=10)
    assert np.all(abs(changed - wrong.sum() / 10) < 4 * math.sqrt(wrong.sum() / 10) + 1e-9)
    np.testing.assert_array_equal(derived.y_test, splits.y_test)
    np.testing.assert_array_equal(derived.x_train, splits.x_train)


def test_shuffled_labels_keep_their_counts_and_say_nothing():
    splits = small_splits(num_train=20_000)
    derived = derive("shuffle", splits)
    np.testing.assert_array_equal(np.bincount(derived.y_train), np.bincount(splits.y_train))
    right = np.mean(derived.y_train == splits.y_train)
    assert abs(right - 0.1) < 4 * math.sqrt(0.09 / 20_000)
    np.testing.assert_array_equal(derived.y_test, splits.y_test)
    assert not np.array_equal(derive("shuffle=1", splits).y_train, derived.y_train)


def test_resize_keeps_constant_images_type_and_labels():
    splits = small_splits()
    splits.x_train[0] = 7
    derived = derive("resize=8", splits)
    assert derived.x_train.shape == (40, 8, 8, 1) and derived.x_train.dtype == np.uint8
    assert np.all(derived.x_train[0] == 7)
    assert derived.x_test.shape == (20, 8, 8, 1)


def test_transforms_apply_from_left_to_right_and_leave_the_base_alone():
    splits = small_splits(num_train=2000)
    before = pairs(splits)
    derived = derive("noise=1+group=odd-even", splits)
    # Noise among ten classes, then two groups: half of the labels are wrong.
    assert abs(np.mean(derived.y_train == (splits.y_train + 1) % 2) - 0.5) < 0.05
    derive("invert+permute+shuffle", splits)
    assert pairs(splits) == before


def test_load_measures_statistics_and_policy_of_the_derived_task(tmp_path):
    digits, inverted = load("digits"), load("digits+invert")
    np.testing.assert_allclose(inverted.mean, 16 - digits.mean, rtol=1e-6)
    np.testing.assert_allclose(inverted.std, digits.std, rtol=1e-6)
    assert inverted.name == "digits+invert"
    few = load("digits+classes=5-9")
    assert few.num_classes == 5 and set(few.y_train) == set(range(5))
    assert few.mean[0] == pytest.approx(few.x_train.mean()) != digits.mean[0]
    path = tmp_path / "a+b.npz"
    arrays = {k: getattr(digits, k) for k in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(path, **arrays)
    own = load(f"npz:{path}+classes=5-9")
    np.testing.assert_array_equal(own.x_train, few.x_train)


@pytest.mark.parametrize(
    ("transforms", "words"),
    [
        ("noize=0.5", ["'noize'", "nearest: noise", "base+noize=0.5"]),
        ("", ["''", "nearest"]),
        ("noise", ["noise", "[0, 1]", "''"]),
        ("noise=1.5", ["noise", "[0, 1]", "'1.5'"]),
        ("noise=nan", ["noise", "'nan'"]),
        ("classes=3", ["classes", "at least 2"]),
        ("classes=0-10", ["classes", "below the number of classes 10"]),
        ("classes=4-0", ["classes", "0-4"]),
        ("classes=1,1", ["classes", "different"]),
        ("group=even", ["group", "odd-even, loops, animal-vehicle", "'even'"]),
        ("group=coarse", ["group", "'coarse'"]),
        ("group=0-4_4", ["group", "different", "'0-4_4'"]),
        ("group=0-9", ["classes", "at least 2"]),
        ("invert=1", ["invert", "no value", "'1'"]),
        ("permute=x", ["permute", "seed", "'x'"]),
        ("resize=0", ["resize", "'0'"]),
    ],
)
def test_unfit_transforms_are_refused_in_one_line(transforms, words):
    with pytest.raises(ValueError) as error:
        derive(transforms)
    message = str(error.value)
    assert message.startswith("dataset: ") and "\n" not in message
    assert all(word in message for word in words), message


def test_classes_without_images_are_refused():
    splits = small_splits()
    splits = splits._replace(y_test=np.zeros_like(splits.y_test))
    with pytest.raises(ValueError, match="some test images must be left"):
        derive("classes=1-3", splits)


def test_permuted_pixels_are_not_cropped(monkeypatch):
    monkeypatch.setattr(data, "load_tfds", lambda name, data_dir: small_splits())
    assert load("cifar10").augment == load("cifar10+group=animal-vehicle").augment == "flip_crop"
    assert load("cifar10+permute").augment == "none"
