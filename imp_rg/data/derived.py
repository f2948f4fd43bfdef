"""Tasks derived from a data set: BASE+TRANSFORM[+TRANSFORM], applied from left to right.

    digits+classes=0-4               these classes only, labelled 0, 1, ... in this order
    digits+group=0-2_3-5_6-9         one class for each group; classes in no group are left out
    digits+group=odd-even            a named grouping, one of `GROUPINGS`
    digits+permute, +permute=7       one fixed permutation of the pixels of all images, by seed
    digits+invert                    brightest and darkest pixel values change places
    digits+noise=0.5                 this share of the training labels drawn anew, uniformly
    digits+shuffle, +shuffle=7       training labels permuted among the images, by seed
    digits+resize=16                 images of this height and width, bilinear
    digits+balanced=1000             the first training images, equally many of each class, 1000
                                     in all, in their order

Rows held out for validation are transformed like the test set: their labels are never made wrong,
and neither is thinned out. In: splits and transforms. Out: splits.
"""

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import jax
import numpy as np

from imp_rg.config import require
from imp_rg.data.arrays import Splits

# Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009: the superclass of each
# of the 100 classes, both in alphabetical order.
_CIFAR100_SUPERCLASSES = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7),
    *(6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10),
    *(16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16),
    *(12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
)

GROUPINGS: dict[str, tuple[int, ...]] = {
    "odd-even": (1, 0, 1, 0, 1, 0, 1, 0, 1, 0),
    "loops": (1, 0, 0, 0, 1, 0, 1, 0, 1, 1),
    "animal-vehicle": (1, 1, 0, 0, 0, 0, 0, 0, 1, 1),
    "coarse": _CIFAR100_SUPERCLASSES,
}
"""The group of each class, by name: digits odd or even; digits without and with a closed loop (0,
4, 6, 8, 9); CIFAR-10's animals and vehicles; CIFAR-100's 20 superclasses."""

_PARTS = ("train", "val", "test")
_IMAGES = tuple(f"x_{part}" for part in _PARTS)

LABEL_SEED = 0
"""Seed of the labels that `noise` draws."""

_RANGES = re.compile(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*", re.ASCII)


def split_name(name: str) -> tuple[str, tuple[str, ...]]:
    """Divides a name into that of the base and its transforms.

    Args:
      name: ``BASE`` or ``BASE+TRANSFORM[+TRANSFORM]``. The path of ``npz:PATH`` may contain ``+``:
        transforms follow its suffix ``.npz``; of ``folder:PATH`` too: only ``+resize=N`` follows.

    References:
      House definition.
    """
    if name.startswith("npz:"):
        path, suffix, transforms = name.rpartition(".npz+")
        return (path + ".npz", tuple(transforms.split("+"))) if suffix else (name, ())
    if name.startswith("folder:"):
        found = re.fullmatch(r"(.*)\+(resize=\w*)", name)
        return (found[1], (found[2],)) if found else (name, ())
    base, *transforms = name.split("+")
    return base, tuple(transforms)


def transform_splits(splits: Splits, transforms: tuple[str, ...], name: str) -> Splits:
    """Applies transforms one after another.

    Args:
      splits: Of the base.
      transforms: As the module describes, such as ``("classes=0-4", "invert")``.
      name: Of the whole task, for messages.

    Returns:
      Splits of the derived task; the arrays of the base are left as they are.

    Raises:
      ValueError: In one line, if a transform is unknown (the nearest are given) or its value unfit.

    References:
      House definition.
    """
    for transform in transforms:
        kind, _, value = transform.partition("=")
        if kind not in _TRANSFORMS:
            near = ", ".join(get_close_matches(kind, _TRANSFORMS, n=3, cutoff=0.0))
            known = f"{kind!r} is no transform of a data set (nearest: {near})"
            raise ValueError(f"dataset: {known}, got {name!r}")
        try:
            splits = _TRANSFORMS[kind](splits, value)
        except ValueError as error:
            raise ValueError(f"dataset: {error} in {name!r}") from None
    return splits


def _classes(splits: Splits, value: str) -> Splits:
    rule = "must be different classes such as 0-4 or 1,3,5-7"
    return _regroup(splits, [[c] for c in _class_list("classes", value, splits, rule)])


def _group(splits: Splits, value: str) -> Splits:
    fitting = [name for name, of_class in GROUPINGS.items() if len(of_class) == splits.num_classes]
    if value in fitting:
        of_class = GROUPINGS[value]
        groups = [
            [c for c, own in enumerate(of_class) if own == g] for g in range(max(of_class) + 1)
        ]
        return _regroup(splits, groups)
    named = f" or one of {', '.join(fitting)}" if fitting else ""
    rule = f"must be different classes in groups such as 0-4_5,7{named}"
    groups = [_class_list("group", part, splits, rule) for part in value.split("_")]
    together = [c for group in groups for c in group]
    require(len(set(together)) == len(together), "group", rule, value)
    return _regroup(splits, groups)


def _class_list(name: str, value: str, splits: Splits, rule: str) -> list[int]:
    """Classes of text such as ``0-4,7``."""
    require(_RANGES.fullmatch(value) is not None, name, rule, value)
    classes = []
    for part in value.split(","):
        first, _, last = part.partition("-")
        classes += range(int(first), int(last or first) + 1)
    require(len(set(classes)) == len(classes) > 0, name, rule, value)
    below = f"must lie below the number of classes {splits.num_classes}"
    require(max(classes) < splits.num_classes, name, below, value)
    return classes


def _regroup(splits: Splits, groups: list[list[int]]) -> Splits:
    """Keeps the classes of the groups and labels them by their group."""
    require(len(groups) >= 2, "classes", "at least 2 must be left", groups)
    new_label = np.full(splits.num_classes, -1, np.int32)
    for label, group in enumerate(groups):
        new_label[group] = label
    parts = {}
    for part in _PARTS:
        labels = new_label[getattr(splits, f"y_{part}")]
        x = getattr(splits, f"x_{part}")
        is_kept = labels >= 0
        is_left = bool(is_kept.any()) or len(x) == 0
        require(is_left, "classes", f"some {part} images must be left", groups)
        parts |= {f"x_{part}": x[is_kept], f"y_{part}": labels[is_kept]}
    return Splits(**parts, num_classes=len(groups))


def _permute(splits: Splits, value: str) -> Splits:
    height, width, channels = splits.x_train.shape[1:]
    order = np.random.default_rng(_seed("permute", value)).permutation(height * width)

    def permute(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), len(order), channels)[:, order].reshape(x.shape)

    return _map_images(splits, permute)


def _invert(splits: Splits, value: str) -> Splits:
    _no_value("invert", value)
    images = [getattr(splits, name) for name in _IMAGES if getattr(splits, name).size]
    low, high = min(x.min() for x in images), max(x.max() for x in images)
    # Not low + high - x: a sum of two bytes may not be a byte.
    return _map_images(splits, lambda x: high - x + low)


def _resize(splits: Splits, value: str) -> Splits:
    size = image_size(value)

    def resize(x: np.ndarray) -> np.ndarray:
        shape = (len(x), size, size, x.shape[-1])
        resized = np.asarray(jax.image.resize(x.astype(np.float32), shape, "bilinear"))
        return resized if x.dtype == np.float32 else np.rint(resized).astype(x.dtype)

    return _map_images(splits, resize)


def image_size(value: str) -> int:
    """The number of pixels in ``resize=VALUE``.

    Raises:
      ValueError: If it is none from 1 to 9999.
    """
    is_size = re.fullmatch(r"[1-9]\d{0,3}", value, re.ASCII) is not None
    require(is_size, "resize", "must be a number of pixels from 1 to 9999", value)
    return int(value)


def _noise(splits: Splits, value: str) -> Splits:
    """Zhang et al., arXiv:1611.03530, Sec. 2: a label drawn anew may be the true one."""
    is_number = re.fullmatch(r"\d*\.?\d+", value, re.ASCII) is not None
    share = float(value) if is_number else np.nan
    require(0 <= share <= 1, "noise", "must be a share of labels in [0, 1]", value)
    rng = np.random.default_rng(LABEL_SEED)
    labels = splits.y_train.copy()
    drawn = rng.permutation(len(labels))[: round(share * len(labels))]
    labels[drawn] = rng.integers(splits.num_classes, size=len(drawn), dtype=np.int32)
    return splits._replace(y_train=labels)


def _shuffle(splits: Splits, value: str) -> Splits:
    rng = np.random.default_rng(_seed("shuffle", value))
    return splits._replace(y_train=rng.permutation(splits.y_train))


def _balanced(splits: Splits, value: str) -> Splits:
    is_number = re.fullmatch(r"[1-9]\d{0,8}", value, re.ASCII) is not None
    per_class, left = divmod(int(value), splits.num_classes) if is_number else (0, 1)
    rule = f"must be a number of images in equal parts of {splits.num_classes} classes"
    require(left == 0, "balanced", rule, value)
    fewest = int(np.bincount(splits.y_train, minlength=splits.num_classes).min())
    rule = f"must not exceed {splits.num_classes * fewest}, as one class has {fewest} images"
    require(per_class <= fewest, "balanced", rule, value)
    of_class = (np.flatnonzero(splits.y_train == c) for c in range(splits.num_classes))
    rows = np.sort(np.concatenate([rows[:per_class] for rows in of_class]))
    return splits._replace(x_train=splits.x_train[rows], y_train=splits.y_train[rows])


def _map_images(splits: Splits, fn: Callable[[np.ndarray], np.ndarray]) -> Splits:
    return splits._replace(**{name: fn(getattr(splits, name)) for name in _IMAGES})


def _seed(name: str, value: str) -> int:
    is_seed = re.fullmatch(r"\d{0,9}", value, re.ASCII) is not None
    require(is_seed, name, "must have no value or a seed", value)
    return int(value or 0)


def _no_value(name: str, value: str) -> None:
    require(not value, name, "must have no value", value)


_TRANSFORMS: dict[str, Callable[[Splits, str], Any]] = {
    "classes": _classes,
    "group": _group,
    "permute": _permute,
    "invert": _invert,
    "noise": _noise,
    "shuffle": _shuffle,
    "resize": _resize,
    "balanced": _balanced,
}
