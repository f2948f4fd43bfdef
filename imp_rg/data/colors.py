"""What color jitter does to images with values in [0, 1], each image by its own amount.

Amounts have the shape [batch 1 1 1]. The changes are those of torchvision's ColorJitter.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue count in the brightness of a pixel (ITU-R BT.601)."""


def luma(x: Float[Array, "*batch channel"]) -> Float[Array, "*batch 1"]:
    """Brightness of the pixels of color images; others are their own mean over channels.

    References:
      ITU-R BT.601.
    """
    if x.shape[-1] != 3:
        return jnp.mean(x, axis=-1, keepdims=True)
    return jnp.einsum("...c,c->...", x, jnp.array(LUMA), precision="highest")[..., None]


def change_brightness(x: Array, amount: Array) -> Array:
    """Multiplies by 1 + amount; [0, 1] is kept. As torchvision's ColorJitter."""
    return jnp.clip(x * (1 + amount), 0.0, 1.0)


def change_contrast(x: Array, amount: Array) -> Array:
    """Moves pixels away from the mean brightness of the image. As torchvision's ColorJitter."""
    mean = jnp.mean(luma(x), axis=(1, 2, 3), keepdims=True)
    return jnp.clip(x + amount * (x - mean), 0.0, 1.0)


def change_saturation(x: Array, amount: Array) -> Array:
    """Moves pixels away from their own brightness. As torchvision's ColorJitter."""
    return jnp.clip(x + amount * (x - luma(x)), 0.0, 1.0)


def change_hue(x: Array, amount: Array) -> Array:
    """Turns the color circle by parts of a turn; a pixel keeps its largest and smallest value.

    References:
      Smith, Color gamut transform pairs, SIGGRAPH 1978 (hue, saturation, value).
    """
    high, low = jnp.max(x, -1, keepdims=True), jnp.min(x, -1, keepdims=True)
    chroma = high - low
    red, green, blue = jnp.split(x, 3, axis=-1)
    divisor = jnp.where(chroma > 0, chroma, 1.0)
    sector = jnp.where(
        high == red,
        (green - blue) / divisor,
        jnp.where(high == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    offset = jnp.array([5.0, 3.0, 1.0])[None, None, None]  # of red, green and blue
    position = (offset + sector + 6 * amount) % 6
    return high - chroma * jnp.clip(jnp.minimum(position, 4 - position), 0.0, 1.0)
