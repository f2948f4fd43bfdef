"""What a network sees: a name goes in, arrays in raw pixel units come out.

One convention for every set: pixels stay as stored, `mean` and `std` are in the same raw units,
and the input of a network is (x - mean) / std, computed inside the step by `augment.normalize`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from imp_rg.config import require, require_choice
from imp_rg.data.arrays import Splits, load_npz
from imp_rg.data.augment import Augmentation
from imp_rg.data.derived import split_name, transform_splits
from imp_rg.data.digits import load_digits
from imp_rg.data.images import load_tfds

Normalization = Literal["train", "imagenet"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Channel statistics of ImageNet on the 0 to 1 scale, the constants of the open_lth recipes."""

FLIPPED_AND_CROPPED = ("cifar10", "cifar100")
"""Sets that are augmented unless told otherwise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """A data set for image classification.

    Attributes:
      name: As given to `load`.
      x_train: Training images in raw pixel units, uint8 or float32.
      y_train: Their classes, 0 to `num_classes` - 1.
      x_test: Test images.
      y_test: Their classes.
      num_classes: Number of classes.
      mean: What to subtract, in raw pixel units.
      std: What to divide by, in raw pixel units.
      augment: Policy for `augment.augment`.
    """

    name: str
    x_train: Shaped[np.ndarray, "example height width channel"]
    y_train: Int[np.ndarray, " example"]
    x_test: Shaped[np.ndarray, "test_example height width channel"]
    y_test: Int[np.ndarray, " test_example"]
    num_classes: int
    mean: Float[np.ndarray, " channel"]
    std: Float[np.ndarray, " channel"]
    augment: str


def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    augment: str | None = None,
    normalize: str = "train",
) -> ImageData:
    """Loads a data set by name.

    Args:
      name: ``digits`` (embedded), ``npz:PATH`` (arrays ``x_train``, ``y_train``, ``x_test``,
        ``y_test``), or a prepared set of TensorFlow Datasets, ``NAME[/CONFIG][:VERSION]``; each
        may be followed by ``+TRANSFORM``, see `imp_rg.data.derived`.
      data_dir: Where prepared sets lie, or the folder of one; default as in TensorFlow Datasets.
      augment: Policy; default is ``flip_crop`` for CIFAR-10 and CIFAR-100 unless their pixels are
        permuted, else ``none``.
      normalize: ``train`` measures mean and standard deviation of each channel on the training
        images (a constant channel gets std 1); ``imagenet`` takes the published constants.

    Returns:
      The arrays with their statistics.

    Raises:
      ValueError: If the name is unknown, the set is not prepared, or its content is unfit.

    References:
      House definition; constants of ``imagenet`` as in open_lth.
    """
    require_choice("normalize", normalize, Normalization)
    base, transforms = split_name(name)
    is_cifar = base.partition(":")[0] in FLIPPED_AND_CROPPED
    is_permuted = any(transform.startswith("permute") for transform in transforms)
    default = "flip_crop" if is_cifar and not is_permuted else "none"
    policy = default if augment is None else augment
    require_choice("augment", policy, Augmentation)
    splits = transform_splits(_load_splits(base, data_dir), transforms, name)
    mean, std = _STATISTICS[normalize](splits.x_train)
    return ImageData(name=name, mean=mean, std=std, augment=policy, **splits._asdict())


def _load_splits(name: str, data_dir: str | Path | None) -> Splits:
    if name == "digits":
        return load_digits()
    if name.startswith("npz:"):
        return load_npz(name.removeprefix("npz:"))
    return load_tfds(name, data_dir=data_dir)


def _train_statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, in 64 bits and in parts to spare memory."""
    # Images first summed pixel by pixel: contiguous, five times faster than by channel.
    images, shape = x.reshape(len(x), -1), (-1, x.shape[-1])
    mean = images.mean(axis=0, dtype=np.float64).reshape(shape).mean(axis=0)
    centre = np.tile(mean, images.shape[1] // len(mean))
    parts = np.array_split(images, len(x) // 100 + 1)
    squares = sum((np.square(part - centre).sum(axis=0) for part in parts), np.zeros_like(centre))
    std = np.sqrt(squares.reshape(shape).mean(axis=0) / len(x))
    low, high = images.min(axis=0).reshape(shape), images.max(axis=0).reshape(shape)
    std = np.where(low.min(axis=0) == high.max(axis=0), 1.0, std)
    return mean.astype(np.float32), std.astype(np.float32)


def _imagenet_statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The published constants, in units of 8-bit pixels."""
    is_fit = x.dtype == np.uint8 and x.shape[-1] == 3
    require(is_fit, "normalize", "imagenet needs uint8 RGB images", f"{x.dtype} {x.shape}")
    mean, std = 255 * np.asarray([IMAGENET_MEAN, IMAGENET_STD], np.float32)
    return mean, std


_STATISTICS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "train": _train_statistics,
    "imagenet": _imagenet_statistics,
}
