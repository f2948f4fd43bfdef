"""Picture files of any size to square arrays of one size, as the ImageNet recipes have it.

In: a path. Out: uint8 RGB pixels, drawn at random for training or from the centre for evaluation.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from imp_rg.data.arrays import first_line

NUM_TRIES = 10
"""Crops drawn before the centre is taken instead."""

EVALUATION_MARGIN = 256 / 224
"""Shorter side of the resized image, of which the centre is evaluated, in sides of the crop."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom; the last two are outside."""


class Crop(NamedTuple):
    """How a random part of an image is drawn.

    Attributes:
      area: Smallest and largest share of the area.
      aspect: Smallest and largest ratio of width to height.
      flip: Probability that left and right are exchanged.
    """

    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5


CROP = Crop()
"""That of the ImageNet recipes."""


def read_image_file(path: Path) -> Image.Image:
    """Reads an image of any kind (grey, CMYK, with alpha or palette) as RGB.

    Raises:
      ValueError: If the file is damaged or no image, in one line that names it.

    References:
      House definition; conversion as in torchvision's folders.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # Pillow raises many types for damaged files
        raise ValueError(f"{path}: must be a whole image, got {first_line(error)}") from error


def random_box(width: int, height: int, rng: np.random.Generator, crop: Crop = CROP) -> Box:
    """Draws a part of an image: area uniform, logarithm of the aspect ratio uniform.

    After `NUM_TRIES` draws that do not fit, the widest or highest allowed part in the centre.

    References:
      Szegedy et al., arXiv:1409.4842, Sec. 6; constants and fallback as in torchvision.
    """
    low, high = crop.aspect
    for _ in range(NUM_TRIES):
        area = width * height * rng.uniform(*crop.area)
        aspect = math.exp(rng.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * high)), min(height, round(width / low))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def sample_crop(
    image: Image.Image, rng: np.random.Generator, *, size: int, crop: Crop = CROP
) -> UInt8[np.ndarray, "size size 3"]:
    """A random part of an image, resized bilinearly and perhaps mirrored.

    References:
      He et al., arXiv:1512.03385, Sec. 3.4, with the crops of `random_box`.
    """
    part = image.crop(random_box(*image.size, rng, crop))
    pixels = np.asarray(part.resize((size, size), Image.Resampling.BILINEAR))
    return pixels[:, ::-1] if rng.random() < crop.flip else pixels


def central_crop(image: Image.Image, *, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The central square of an image resized to a shorter side of `EVALUATION_MARGIN` sizes.

    References:
      He et al., arXiv:1512.03385, Sec. 3.4 (10-crop there); rounding as in torchvision.
    """
    short, long = min(image.size), max(image.size)
    side = round(EVALUATION_MARGIN * size)
    other = side * long // short
    is_wide = image.size[0] >= image.size[1]
    width, height = (other, side) if is_wide else (side, other)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(resized.crop((left, top, left + size, top + size)))
