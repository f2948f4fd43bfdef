"""What is subtracted from each channel and what it is divided by, in raw pixel units.

In: training images and the name of their set. Out: mean and standard deviation of each channel.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped

from imp_rg.config import require, require_choice
from imp_rg.data.derived import split_name

Normalization = Literal["train", "imagenet", "study"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Channel statistics of ImageNet on the 0 to 1 scale, the constants of the open_lth recipes."""

STUDY_STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2009, 0.1984, 0.2023)),
    "svhn_cropped": ((0.4377, 0.4438, 0.4728), (0.1201, 0.1231, 0.1052)),
}
"""Mean and deviation on the 0 to 1 scale as the study of ResNet-50 has them. They are smaller than
the deviations of the pixels, which 8-bit images of CIFAR-10 have near 0.247."""


def channel_statistics(
    x: Shaped[np.ndarray, "example height width channel"], *, name: str, normalize: str
) -> tuple[Float[np.ndarray, " channel"], Float[np.ndarray, " channel"]]:
    """Mean and standard deviation of each channel.

    Args:
      x: Training images.
      name: Of the data set with its transforms.
      normalize: ``train`` measures them on `x` (a constant channel gets deviation 1); ``imagenet``
        and ``study`` take the constants published for ImageNet and, in the study of ResNet-50, for
        CIFAR-10, CIFAR-100 and SVHN.

    Raises:
      ValueError: If constants are asked for that do not exist or do not fit the images.

    References:
      ``imagenet`` as in open_lth; ``study``: Chen et al., arXiv:2012.06908, by its public code.
    """
    require_choice("normalize", normalize, Normalization)
    if normalize == "train":
        return _measure(x)
    is_fit = x.dtype == np.uint8 and x.shape[-1] == 3
    require(is_fit, "normalize", f"{normalize} needs uint8 RGB images", f"{x.dtype} {x.shape}")
    constants = (IMAGENET_MEAN, IMAGENET_STD) if normalize == "imagenet" else _study(name)
    mean, std = 255 * np.asarray(constants, np.float32)
    return mean, std


def _study(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    base, transforms = split_name(name)
    base = base.partition(":")[0]
    # Of all transforms, only this one changes the values that pixels have.
    is_fit = base in STUDY_STATISTICS and "invert" not in transforms
    rule = f"study knows {', '.join(STUDY_STATISTICS)}, with pixels not inverted"
    require(is_fit, "normalize", rule, name)
    return STUDY_STATISTICS[base]


def _measure(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
