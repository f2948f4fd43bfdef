"""Random views of images for contrastive pre-training, drawn inside the jitted step.

Raw images come in as stored, views in the same raw units go out, as floating-point numbers within
0 to `peak`. A view is a crop resized to the whole, mirrored, with its colours jittered, perhaps
without colour, perhaps blurred, in this order. Everything follows from the key.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from imp_rg.config import require
from imp_rg.data.colors import (
    change_brightness,
    change_contrast,
    change_hue,
    change_saturation,
    luma,
)

MIN_SIZE = 8
"""Pixels of the smallest side of which crops still show something."""

ATTEMPTS = 10
"""Rectangles drawn for a crop; if none lies inside the image, the whole image is taken."""


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """What may happen to an image.

    Attributes:
      scale: Smallest and largest share of the area that a crop keeps.
      ratio: Smallest and largest width of a crop over its height.
      flip: Probability that left and right are exchanged.
      jitter: Probability that the colours are jittered.
      brightness: Largest relative change of brightness.
      contrast: Largest relative change of contrast.
      saturation: Largest relative change of saturation.
      hue: Largest shift in turns of the colour circle, at most 1/2.
      grayscale: Probability that the colours are taken away.
      blur: Probability of a Gaussian blur.
      blur_sigma: Smallest and largest standard deviation of the blur, pixels.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    grayscale: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self):
        for name in ("flip", "jitter", "grayscale", "blur"):
            value = getattr(self, name)
            require(0 <= value <= 1, name, "must lie in [0, 1]", value)
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(self, name)
            require(0 <= value < float("inf"), name, "must not be negative", value)
        require(0 <= self.hue <= 0.5, "hue", "must lie in [0, 0.5]", self.hue)
        for name in ("scale", "ratio", "blur_sigma"):
            low, high = getattr(self, name)
            require(0 < low <= high, name, "must rise from above 0", (low, high))
        require(self.scale[1] <= 1, "scale", "must not exceed 1", self.scale)


def simclr_views(strength: float = 1.0, **changes: Any) -> ViewConfig:
    """Views of SimCLR without its blur, as the study of pre-trained tickets has them.

    Args:
      strength: Of the colour jitter; SimCLR takes 1 for ImageNet and 1/2 for CIFAR-10.
      **changes: Other fields of `ViewConfig`.

    Returns:
      The settings.

    References:
      Chen et al., arXiv:2002.05709, App. A and B.9; Chen et al., arXiv:2012.06908.
    """
    published: dict[str, Any] = _jitter(0.8 * strength) | {"hue": 0.2 * strength}
    return ViewConfig(**(published | changes))


def moco_views(strength: float = 1.0, **changes: Any) -> ViewConfig:
    """Views of MoCo v2.

    Args:
      strength: Of the colour jitter, 1 as published.
      **changes: Other fields of `ViewConfig`.

    Returns:
      The settings.

    References:
      Chen, Fan, Girshick, He, arXiv:2003.04297, and their released code.
    """
    published: dict[str, Any] = {"scale": (0.2, 1.0), "hue": 0.1 * strength, "blur": 0.5}
    return ViewConfig(**(_jitter(0.4 * strength) | published | changes))


def _jitter(amount: float) -> dict[str, Any]:
    return dict.fromkeys(("brightness", "contrast", "saturation"), amount)


def draw_view(
    key: PRNGKeyArray,
    x: Shaped[Array, "batch height width channel"],
    *,
    config: ViewConfig,
    peak: float = 255.0,
    is_cut: bool = False,
) -> Float[Array, "batch height width channel"]:
    """Draws one view of each image.

    Each image has its own draws, but for the order of the colour changes, which is drawn once for
    the batch (torchvision draws one for each image). Images of other than three channels have no
    colour: their brightness and contrast change, nothing else.

    Args:
      key: Of this view of this batch.
      x: Images in raw pixel units.
      config: What may happen.
      peak: Largest raw value a pixel can have.
      is_cut: Whether the images are crops, mirrored or not, already.

    Returns:
      Views of the same shape, float32, within 0 to `peak`.

    Raises:
      ValueError: If the images are smaller than `MIN_SIZE` pixels.

    References:
      Chen et al., arXiv:2002.05709, App. A.
    """
    num, height, width, _ = x.shape
    rule = f"must have at least {MIN_SIZE} pixels a side to be cropped"
    require(min(height, width) >= MIN_SIZE, "images", rule, (height, width))
    crop_key, color_key, blur_key = jax.random.split(key, 3)
    x = x.astype(jnp.float32) / peak
    if not is_cut:
        x = _mix(x, *crop_weights(crop_key, num, height, width, config))
    x = _change_colors(color_key, x, config)
    if config.blur > 0:
        chance, sigma = _draw(blur_key, num, 1, 1)
        sigma = _within(sigma[:, 0], config.blur_sigma)
        blurred = _mix(x, blur_weights(sigma, height), blur_weights(sigma, width))
        x = _where(chance < config.blur, blurred, x)
    return peak * jnp.clip(x, 0.0, 1.0)


def sample_pair(
    key: PRNGKeyArray,
    x: Shaped[Array, "batch height width channel"] | Shaped[Array, "batch 2 height width channel"],
    *,
    config: ViewConfig,
    peak: float = 255.0,
) -> Float[Array, "view height width channel"]:
    """Draws two views of each image: first views of all, then second views in the same order.

    Images that are read from disk come as two parts each, cut and mirrored at their full size;
    of these only the colours change.

    House definition; see `draw_view`.
    """
    is_cut = x.ndim == 5
    pair = jnp.concatenate([x[:, 0], x[:, 1]] if is_cut else [x, x])
    return draw_view(key, pair, config=config, peak=peak, is_cut=is_cut)


def crop_weights(
    key: PRNGKeyArray, num: int, height: int, width: int, config: ViewConfig
) -> tuple[Float[Array, "batch height height"], Float[Array, "batch width width"]]:
    """What each pixel of a crop, resized and perhaps mirrored, takes of rows and columns.

    A crop has integer sides; resizing it is bilinear interpolation between pixel centres that
    does not look beyond the crop.

    Args:
      key: Of the batch.
      num: Images.
      height: Of the images.
      width: Of the images.
      config: `scale`, `ratio` and `flip`.

    Returns:
      Weights of rows and of columns, which sum to 1 over the last axis.

    References:
      Szegedy et al., arXiv:1409.4842, Sec. 6, as torchvision's RandomResizedCrop draws it.
    """
    area, ratio, top, left, chance = _draw(key, num, ATTEMPTS, ATTEMPTS, 1, 1, 1)
    area = height * width * _within(area, config.scale)
    root = jnp.exp(_within(ratio, jnp.log(jnp.asarray(config.ratio))) / 2)
    crop_height, crop_width = _choose_sides(
        jnp.sqrt(area) / root, jnp.sqrt(area) * root, height, width
    )
    rows = _interpolation(_place(top[:, 0], height - crop_height), crop_height, height)
    columns = _interpolation(_place(left[:, 0], width - crop_width), crop_width, width)
    return rows, _where(chance < config.flip, columns[:, ::-1], columns)


def _draw(key: PRNGKeyArray, num: int, *widths: int) -> list[Array]:
    """Numbers from [0, 1), some [batch width]: one draw, since each is long to compile."""
    ends = [sum(widths[: i + 1]) for i in range(len(widths) - 1)]
    return jnp.split(jax.random.uniform(key, (num, sum(widths))), ends, axis=1)


def _within(draw: Array, limits: Any) -> Array:
    """Numbers in [0, 1) stretched to lie between limits."""
    low, high = limits
    return low + draw * (high - low)


def _where(is_changed: Array, changed: Array, x: Array) -> Array:
    """Takes each image, or each matrix, from `changed` or from `x`; the choice is [batch 1]."""
    return jnp.where(is_changed.reshape(-1, *[1] * (x.ndim - 1)), changed, x)


def _place(draw: Array, room: Array) -> Array:
    """First pixel of a crop, uniform among those that leave it inside."""
    return jnp.minimum(jnp.floor(draw * (room + 1)), room).astype(int)


def _choose_sides(
    heights: Float[Array, "batch attempt"], widths: Array, height: int, width: int
) -> tuple[Int[Array, " batch"], Int[Array, " batch"]]:
    """The first of several rectangles that lies inside an image, else the whole image."""
    heights, widths = (jnp.round(sides).astype(int) for sides in (heights, widths))
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first, has_any = jnp.argmax(fits, axis=1, keepdims=True), jnp.any(fits, axis=1)
    chosen = [jnp.take_along_axis(sides, first, axis=1)[:, 0] for sides in (heights, widths)]
    return jnp.where(has_any, chosen[0], height), jnp.where(has_any, chosen[1], width)


def _interpolation(
    first: Int[Array, " batch"], length: Int[Array, " batch"], size: int
) -> Float[Array, "batch size size"]:
    """Linear interpolation of `size` pixels out of `length` from `first` on, as matrices."""
    first, length = first[:, None].astype(float), length[:, None].astype(float)
    centres = first + (jnp.arange(size) + 0.5)[None] * length / size - 0.5
    centres = jnp.clip(centres, first, first + length - 1)
    distance = jnp.abs(centres[:, :, None] - jnp.arange(size)[None, None].astype(float))
    return jnp.maximum(0.0, 1.0 - distance)


def blur_weights(sigma: Float[Array, " batch"], size: int) -> Float[Array, "batch size size"]:
    """Gaussian blur of a row of pixels as matrices; its window is a tenth of the image.

    At the border, the weights of the pixels that are there are scaled up to sum to 1.

    References:
      Chen et al., arXiv:2002.05709, App. A (window of 10 % of the image, at least 3 pixels here).
    """
    distance = jnp.arange(size)[:, None] - jnp.arange(size)[None, :]
    is_inside = jnp.abs(distance) <= max(1, size // 20)
    weights = jnp.exp(-((distance[None] / sigma[:, None, None]) ** 2) / 2)
    weights = jnp.where(is_inside[None], weights, 0.0)
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


def _mix(x: Array, rows: Array, columns: Array) -> Array:
    """Images whose rows and columns are weighted sums of those of `x`."""
    # An accelerator's short products would move every pixel, even where nothing is to happen.
    x = jnp.einsum("bij,bjwc->biwc", rows, x, precision="highest")
    return jnp.einsum("bvw,biwc->bivc", columns, x, precision="highest")


def _change_colors(key: PRNGKeyArray, x: Array, config: ViewConfig) -> Array:
    """Jitters colours, then perhaps takes them away; values in [0, 1]."""
    jitter_key, gray_key = jax.random.split(key)
    if config.jitter > 0:
        x = _jitter_colors(jitter_key, x, config)
    if config.grayscale > 0 and x.shape[-1] == 3:
        (chance,) = _draw(gray_key, x.shape[0], 1)
        x = _where(chance < config.grayscale, jnp.broadcast_to(luma(x), x.shape), x)
    return x


def _jitter_colors(key: PRNGKeyArray, x: Array, config: ViewConfig) -> Array:
    order_key, draw_key = jax.random.split(key)
    changes = {change_brightness: config.brightness, change_contrast: config.contrast}
    if x.shape[-1] == 3:
        changes |= {change_saturation: config.saturation, change_hue: config.hue}
    chance, *amounts = _draw(draw_key, x.shape[0], 1, *[1] * len(changes))
    branches = []
    for (change, limit), amount in zip(changes.items(), amounts, strict=True):
        amount = _within(amount[:, :, None, None], (-min(limit, 1.0), limit))
        branches.append(functools.partial(change, amount=amount))
    order = jnp.argsort(jax.random.uniform(order_key, (len(branches),)))
    jittered, _ = jax.lax.scan(lambda x, i: (jax.lax.switch(i, branches, x), None), x, order)
    return _where(chance < config.jitter, jittered, x)
