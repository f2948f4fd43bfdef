"""Raw pixels to what the network sees: augmentation, then normalisation, inside the jitted step.

Raw images come in as stored (uint8 stays uint8 on the device), floating-point batches go out.
Cropping pads with raw zeros, which are black pixels: the published recipes augment the image and
normalise afterwards.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from imp_rg.config import require_choice

Augmentation = Literal["none", "flip_crop"]

PADDING = 4
"""Pixels of zeros on each side before the random crop."""


class FlipCrop(NamedTuple):
    """Random choices of one batch.

    Attributes:
      is_flipped: Whether the image is mirrored left to right, before it is cropped.
      offset: Row and column of the crop's corner in the padded image, 0 to 2 `PADDING`.
    """

    is_flipped: Bool[Array, " batch"]
    offset: Int[Array, "batch 2"]


def draw_flip_crop(key: PRNGKeyArray, num: int) -> FlipCrop:
    """Draws flips (probability one half) and crops (uniform), each image for itself.

    House definition.
    """
    flip_key, offset_key = jax.random.split(key)
    return FlipCrop(
        is_flipped=jax.random.bernoulli(flip_key, shape=(num,)),
        offset=jax.random.randint(offset_key, (num, 2), 0, 2 * PADDING + 1),
    )


def augment(
    key: PRNGKeyArray, x: Shaped[Array, "batch height width channel"], *, policy: str
) -> Shaped[Array, "batch height width channel"]:
    """Augments a batch of raw images.

    Args:
      key: Key of this batch; unused by ``none``.
      x: Images in raw pixel units.
      policy: ``none``, or ``flip_crop``: mirror, then crop to the same size out of the image
        padded by `PADDING` zeros on each side. Static.

    Returns:
      Images of the same shape and type.

    Raises:
      ValueError: If the policy is unknown.

    References:
      He et al., arXiv:1512.03385, Sec. 4.2.
    """
    require_choice("augment", policy, Augmentation)
    if policy == "none":
        return x
    num, height, width, _ = x.shape
    draw = draw_flip_crop(key, num)
    row = jnp.arange(height)[None, :] + draw.offset[:, :1] - PADDING
    column = jnp.arange(width)[None, :] + draw.offset[:, 1:] - PADDING
    is_row, is_column = (row >= 0) & (row < height), (column >= 0) & (column < width)
    column = jnp.where(draw.is_flipped[:, None], width - 1 - column, column)
    # One gather from clipped places, then zeros, is faster than padding and slicing on CPU.
    picked = x[
        jnp.arange(num)[:, None, None],
        row.clip(0, height - 1)[:, :, None],
        column.clip(0, width - 1)[:, None, :],
    ]
    is_inside = is_row[:, :, None] & is_column[:, None, :]
    return jnp.where(is_inside[..., None], picked, jnp.zeros((), x.dtype))


def normalize(
    x: Shaped[Array, "*batch height width channel"],
    mean: Float[Array | np.ndarray, " channel"],
    std: Float[Array | np.ndarray, " channel"],
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Float[Array, "*batch height width channel"]:
    """(x - mean) / std per channel, all three in raw pixel units.

    Computed in at least 32 bits, then cast to `dtype`. House definition.
    """
    wide = jnp.promote_types(dtype, jnp.float32)
    one_pixel = (1,) * (x.ndim - 1) + (-1,)
    mean, std = (jnp.asarray(s, wide).reshape(one_pixel) for s in (mean, std))
    return ((x.astype(wide) - mean) / std).astype(dtype)
