"""Random views: each change alone against its definition, and what stays as it is."""

import colorsys
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imp_rg.data.colors import (
    change_brightness,
    change_contrast,
    change_hue,
    change_saturation,
    luma,
)
from imp_rg.data.views import (
    ViewConfig,
    blur_weights,
    crop_weights,
    draw_view,
    moco_views,
    sample_pair,
    simclr_views,
)

NOTHING = ViewConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0)


view = jax.jit(draw_view, static_argnames=("config", "peak"))
weights_of = jax.jit(crop_weights, static_argnums=(1, 2, 3, 4))


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="module")
def colour():
    return np.random.default_rng(0).integers(0, 256, (6, 8, 12, 3)).astype(np.uint8)


def amounts(*values):
    return jnp.array(values).reshape(-1, 1, 1, 1)


def test_nothing_happens_where_nothing_may(key):
    x = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    np.testing.assert_allclose(view(key, x, config=NOTHING), x, atol=1e-4)


def test_a_flip_exchanges_left_and_right(colour, key):
    square = colour[:, :, :8]
    flipped = view(key, square, config=dataclasses.replace(NOTHING, flip=1.0))
    np.testing.assert_allclose(flipped, square[:, :, ::-1], atol=1e-4)


def test_half_of_the_images_are_flipped(key):
    config = dataclasses.replace(NOTHING, flip=0.5)
    _, columns = weights_of(key, 400, 8, 8, config)
    share = np.mean(np.asarray(columns)[:, 0, -1])
    assert abs(share - 0.5) < 4 * 0.5 / 20


def test_without_colour_the_channels_are_equal(colour, key):
    gray = view(key, colour[:, :, :8], config=dataclasses.replace(NOTHING, grayscale=1.0))
    np.testing.assert_allclose(gray[..., 0], gray[..., 1], rtol=1e-6)
    np.testing.assert_allclose(gray[..., 0], gray[..., 2], rtol=1e-6)
    expected = colour[:, :, :8] @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(gray[..., 0], expected, rtol=1e-5)


def test_a_crop_interpolates_between_pixel_centres_of_its_own_part(key):
    """Against a loop over pixels; what a crop is follows from its weights."""
    config = dataclasses.replace(NOTHING, scale=(0.2, 0.6), ratio=(0.5, 2.0))
    rows, columns = weights_of(key, 5, 8, 12, config)
    for weights, size in ((rows, 8), (columns, 12)):
        weights = np.asarray(weights)
        np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-6)
        for one in weights:
            centres = one @ np.arange(size)
            used = np.flatnonzero(one.sum(axis=0) > 0)
            first, length = used[0], len(used)
            expected = first + (np.arange(size) + 0.5) * length / size - 0.5
            expected = np.clip(expected, first, first + length - 1)
            np.testing.assert_allclose(centres, expected, atol=1e-5)


def test_crops_have_the_area_and_the_shape_asked_for(key):
    config = dataclasses.replace(NOTHING, scale=(0.3, 0.7), ratio=(0.75, 4 / 3))
    rows, columns = (np.asarray(w) for w in weights_of(key, 300, 32, 32, config))
    height = (rows.sum(axis=1) > 0).sum(axis=1)
    width = (columns.sum(axis=1) > 0).sum(axis=1)
    area, ratio = height * width / 32**2, width / height
    assert area.min() > 0.26 and area.max() < 0.74  # sides are rounded to whole pixels
    assert ratio.min() > 0.7 and ratio.max() < 1.42
    spread = (0.7 - 0.3) / np.sqrt(12)
    assert abs(area.mean() - 0.5) < 4 * spread / np.sqrt(300) + 0.01
    assert len(set(height)) > 5


def test_a_crop_that_never_fits_is_the_whole_image(key):
    config = dataclasses.replace(NOTHING, ratio=(3.0, 3.0))
    rows, columns = weights_of(key, 2, 8, 8, config)
    np.testing.assert_array_equal(rows, np.stack([np.eye(8)] * 2))
    np.testing.assert_array_equal(columns, np.stack([np.eye(8)] * 2))


def test_brightness_contrast_saturation_by_hand(colour):
    x = jnp.asarray(colour / 255, jnp.float32)
    some = np.array([-0.4, -0.2, 0.0, 0.2, 0.5, 0.9])
    gray = np.asarray(luma(x))
    for change, anchor in (
        (change_brightness, np.zeros_like(gray)),
        (change_contrast, gray.mean(axis=(1, 2, 3), keepdims=True)),
        (change_saturation, gray),
    ):
        factor = 1 + some.reshape(-1, 1, 1, 1)
        expected = np.clip(anchor + factor * (np.asarray(x) - anchor), 0, 1)
        np.testing.assert_allclose(change(x, amounts(*some)), expected, atol=1e-6)


def test_hue_turns_the_circle_as_colorsys_does(colour):
    x = jnp.asarray(colour / 255, jnp.float32)
    turns = [-0.5, -0.1, 0.0, 0.05, 0.25, 0.5]
    turned = np.asarray(change_hue(x, amounts(*turns)))
    for image, turn, result in zip(np.asarray(x), turns, turned, strict=True):
        for pixel, found in zip(image.reshape(-1, 3)[::7], result.reshape(-1, 3)[::7], strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
            expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_blur_is_a_normal_curve_within_its_window():
    weights = np.asarray(blur_weights(jnp.array([0.5, 2.0]), 40))
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-6)
    row = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 0.5**2))
    np.testing.assert_allclose(weights[0, 20, 18:23], row / row.sum(), rtol=1e-5)
    assert weights[1, 20, 17] == weights[1, 20, 23] == 0.0
    assert weights[1, 20, 18] > weights[0, 20, 18]


def test_views_stay_in_range_follow_the_key_and_differ(colour, key):
    x, config = colour[:, :, :8], moco_views()
    draw = jax.jit(functools.partial(sample_pair, config=config))
    pair = np.asarray(draw(key, x))
    assert pair.shape == (12, 8, 8, 3) and pair.dtype == np.float32
    assert pair.min() >= 0 and pair.max() <= 255
    np.testing.assert_array_equal(pair, draw(jax.random.key(0), x))
    assert not np.allclose(pair[:6], pair[6:])
    assert not np.allclose(pair, draw(jax.random.key(1), x))


def test_images_of_one_channel_keep_their_range(key):
    x = np.random.default_rng(2).integers(0, 17, (5, 8, 8, 1)).astype(np.uint8)
    found = np.asarray(view(key, x, config=simclr_views(), peak=16.0))
    assert found.shape == x.shape and found.min() >= 0 and found.max() <= 16
    assert found.max() > 4


def test_published_strengths():
    assert simclr_views().brightness == 0.8 and simclr_views(0.5).hue == 0.1
    assert simclr_views().blur == 0.0 and moco_views().blur == 0.5
    assert moco_views().scale == (0.2, 1.0) and moco_views(flip=0.0).flip == 0.0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"flip": 1.5}, "flip: must lie in"),
        ({"scale": (0.5, 1.5)}, "scale: must not exceed 1"),
        ({"ratio": (2.0, 1.0)}, "ratio: must rise"),
        ({"hue": 0.7}, "hue: must lie in"),
        ({"contrast": -1.0}, "contrast: must not be negative"),
    ],
)
def test_bad_settings_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        ViewConfig(**setting)


def test_images_too_small_to_crop_are_refused(key):
    with pytest.raises(ValueError, match=r"images: must have at least 8 pixels a side.*\(4, 9\)"):
        draw_view(key, jnp.zeros((1, 4, 9, 3), jnp.uint8), config=NOTHING)
