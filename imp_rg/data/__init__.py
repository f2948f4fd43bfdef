"""What a network sees: a name goes in, arrays in raw pixel units come out.

One convention for every set: pixels stay as stored, `mean` and `std` are in the same raw units,
and the input of a network is (x - mean) / std, computed inside the step by `augment.normalize`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from imp_rg.config import require, require_choice
from imp_rg.data.arrays import Splits, hold_out, load_npz
from imp_rg.data.augment import Augmentation
from imp_rg.data.derived import split_name, transform_splits
from imp_rg.data.digits import load_digits
from imp_rg.data.images import load_tfds
from imp_rg.data.statistics import channel_statistics

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
      x_val: Training images held out for validation; empty if there are none.
      y_val: Their classes.
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
    x_val: Shaped[np.ndarray, "val_example height width channel"]
    y_val: Int[np.ndarray, " val_example"]
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
    holdout: int = 0,
) -> ImageData:
    """Loads a data set by name.

    Args:
      name: ``digits`` (embedded), ``npz:PATH`` (arrays ``x_train``, ``y_train``, ``x_test``,
        ``y_test``), or a prepared set of TensorFlow Datasets, ``NAME[/CONFIG][:VERSION]``; each
        may be followed by ``+TRANSFORM``, see `imp_rg.data.derived`.
      data_dir: Where prepared sets lie, or the folder of one; default as in TensorFlow Datasets.
      augment: Policy; default is ``flip_crop`` for CIFAR-10 and CIFAR-100 unless their pixels are
        permuted, else ``none``.
      normalize: ``train`` measures the mean and the standard deviation of each channel on the
        training images that stay, ``imagenet`` and ``study`` take published constants, see
        `imp_rg.data.statistics`.
      holdout: Last rows of the base set's training split that are kept for validation, before
        anything is derived: 5000 in the study of CIFAR and SVHN with ResNet-50.

    Returns:
      The arrays with their statistics.

    Raises:
      ValueError: If the name is unknown, the set is not prepared, or its content is unfit.

    References:
      House definition; constants of ``imagenet`` as in open_lth.
    """
    base, transforms = split_name(name)
    is_cifar = base.partition(":")[0] in FLIPPED_AND_CROPPED
    is_permuted = any(transform.startswith("permute") for transform in transforms)
    default = "flip_crop" if is_cifar and not is_permuted else "none"
    policy = default if augment is None else augment
    require_choice("augment", policy, Augmentation)
    splits = transform_splits(hold_out(_load_splits(base, data_dir), holdout), transforms, name)
    mean, std = channel_statistics(splits.x_train, name=name, normalize=normalize)
    return ImageData(name=name, mean=mean, std=std, augment=policy, **splits._asdict())


def _load_splits(name: str, data_dir: str | Path | None) -> Splits:
    if name == "digits":
        return load_digits()
    rule = "folder:PATH is streamed where a command says so, and cannot be loaded whole"
    require(not name.startswith("folder:"), "dataset", rule, name)
    if name.startswith("npz:"):
        return load_npz(name.removeprefix("npz:"))
    return load_tfds(name, data_dir=data_dir)
