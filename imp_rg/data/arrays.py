"""The arrays of a data set, the rules they obey, and reading one's own from an npz file.

Every unfit content is one line of `ValueError` that names the array, the rule and the value.
"""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imp_rg.config import require

# What damaged files raise: numpy, zipfile and zlib each have their own way.
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, RuntimeError, SyntaxError, MemoryError)
_UNREADABLE += (zipfile.BadZipFile, zlib.error)


_NO_IMAGES, _NO_LABELS = np.empty((0, 1, 1, 1), np.uint8), np.empty(0, np.int32)


class Splits(NamedTuple):
    """Arrays of one data set.

    Attributes:
      x_train: [example height width channel], uint8 or float32.
      y_train: [example], int32.
      x_test: Like `x_train`.
      y_test: Like `y_train`.
      num_classes: Number of classes.
      x_val: Like `x_train`, see `hold_out`; empty until then.
      y_val: Like `y_train`.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int
    x_val: np.ndarray = _NO_IMAGES
    y_val: np.ndarray = _NO_LABELS


def load_npz(path: str | Path) -> Splits:
    """Reads ``x_train``, ``y_train``, ``x_test``, ``y_test`` from an npz file.

    Args:
      path: Images are uint8 or float, [N H W C] or [N H W]; labels are integers [N] from 0.

    Returns:
      The arrays; floats as float32. The classes are 0 to the largest training label.

    Raises:
      ValueError: If the file is unreadable or an array unfit, naming the array.

    References:
      House definition.
    """
    arrays = read_arrays(Path(path).expanduser(), Splits._fields[:4])
    images = {k: _check_images(k, arrays[k]) for k in ("x_train", "x_test")}
    labels = {k: check_labels(k, arrays[k]) for k in ("y_train", "y_test")}
    num_classes = int(labels["y_train"].max()) + 1
    rule = f"must lie below the number of training images {labels['y_train'].size}"
    require(num_classes <= labels["y_train"].size, "y_train", rule, num_classes - 1)
    return check_splits(Splits(**images, **labels, num_classes=num_classes))


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads the named arrays of an npz file, every checksum compared.

    Raises:
      ValueError: If the file or one of the arrays is missing or damaged.

    References:
      House definition.
    """
    require(path.is_file(), "dataset", "npz: needs the path of a file", str(path))
    rule = "npz: needs a whole archive as written by numpy.savez"
    require(zipfile.is_zipfile(path), "dataset", rule, str(path))
    damage = _find_damage(path)
    require(damage is None, "dataset", f"npz: {path} is damaged", damage)
    with np.load(path, allow_pickle=False) as file:
        missing = [name for name in names if name not in file.files]
        rule = f"npz: {path} must hold {', '.join(names)}; missing"
        require(not missing, "dataset", rule, missing)
        return {name: _read_array(file, name) for name in names}


def _find_damage(path: Path) -> str | None:
    """What is wrong with an archive; numpy itself compares no sum if an array ends early."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except _UNREADABLE as error:
        return first_line(error)


def _read_array(file: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    try:
        array = file[name]
    except _UNREADABLE as error:
        raise ValueError(f"{name}: cannot be read: {first_line(error)}") from error
    require(isinstance(array, np.ndarray), name, "must be an array", type(array).__name__)
    return array


def _check_images(name: str, x: np.ndarray) -> np.ndarray:
    is_float = np.issubdtype(x.dtype, np.floating)
    require(is_float or x.dtype == np.uint8, name, "must be uint8 or float", str(x.dtype))
    require(x.ndim in (3, 4), name, "must have shape [N, H, W, C] or [N, H, W]", x.shape)
    require(x.size > 0, name, "must not be empty", x.shape)
    if is_float:
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        num_bad = int(x.size - np.isfinite(x).sum())
        require(num_bad == 0, name, "must be finite in float32", f"{num_bad} NaN or infinite")
    return x[..., None] if x.ndim == 3 else x


def check_labels(name: str, y: np.ndarray) -> np.ndarray:
    """The labels as int32 [example], if they are integers from 0. House definition."""
    require(np.issubdtype(y.dtype, np.integer), name, "must be integers", str(y.dtype))
    require(y.ndim == 1, name, "must have shape [N]", y.shape)
    require(y.size > 0, name, "must not be empty", y.shape)
    require(y.min() >= 0, name, "must not be negative", int(y.min()))
    require(y.max() < 2**31, name, "must fit in 32 bits", int(y.max()))
    return y.astype(np.int32)


def check_splits(splits: Splits) -> Splits:
    """The splits, if images match labels, and test matches train. House definition."""
    for part in ("train", "test"):
        x, y = getattr(splits, f"x_{part}"), getattr(splits, f"y_{part}")
        require(len(x) == len(y), f"y_{part}", f"needs a label for each of {len(x)} images", len(y))
        rule = f"must lie below the number of classes {splits.num_classes}"
        require(y.max() < splits.num_classes, f"y_{part}", rule, int(y.max()))
    shape, dtype = splits.x_train.shape[1:], splits.x_train.dtype
    found = splits.x_test.shape[1:], splits.x_test.dtype
    rule = f"must be images like x_train, {shape} {dtype}"
    require(found == (shape, dtype), "x_test", rule, f"{found[0]} {found[1]}")
    return splits


def hold_out(splits: Splits, num: int) -> Splits:
    """Keeps the last `num` training rows for validation.

    Raises:
      ValueError: If no training row would be left.

    References:
      Chen et al., arXiv:2012.06908: CIFAR keeps 45,000 rows of 50,000, SVHN 68,257 of 73,257.
    """
    num_train = len(splits.y_train) - num
    rule = f"must be at least 0 and less than the {len(splits.y_train)} training images"
    require(num >= 0 and num_train > 0, "holdout", rule, num)
    return splits._replace(
        x_train=splits.x_train[:num_train],
        y_train=splits.y_train[:num_train],
        x_val=splits.x_train[num_train:],
        y_val=splits.y_train[num_train:],
    )


def first_line(error: BaseException) -> str:
    """First line with words of what an exception says, else its name. House definition."""
    return next(filter(str.strip, str(error).splitlines()), type(error).__name__)
