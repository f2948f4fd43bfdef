"""The convolution equals XLA's in value and gradients, in every way that it is called."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from imp_rg.models.conv import conv

CASES = [
    # height, width, channels, features, window, strides
    (8, 8, 3, 4, 3, 1),
    (8, 8, 3, 4, 3, 2),
    (7, 5, 2, 3, 3, 2),
    (6, 9, 2, 3, 3, 3),
    (2, 2, 4, 4, 3, 1),
    (1, 1, 2, 3, 3, 2),
    (8, 8, 3, 4, 1, 2),
    (7, 4, 3, 4, 1, 3),
    (5, 6, 2, 2, 5, 2),
]


def _reference(x, kernel, strides):
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        [(half, half)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@functools.partial(jax.jit, static_argnums=(0, 3))
def _value_and_gradients(function, x, kernel, strides):
    y, pullback = jax.vjp(lambda x, kernel: function(x, kernel, strides), x, kernel)
    cotangent = jnp.cos(jnp.arange(y.size)).reshape(y.shape).astype(y.dtype)
    return y, *pullback(cotangent)


def _ours(x, kernel, strides):
    return conv(x, kernel, strides=strides)


def _arrays(case, dtype, batch=3):
    height, width, channels, features, window, _ = case
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, height, width, channels))
    kernel = rng.normal(size=(window, window, channels, features))
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5), ("bfloat16", 2e-2)]
)
def test_value_and_gradients_equal_xla(case, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        x, kernel = _arrays(case, dtype)
        ours = _value_and_gradients(_ours, x, kernel, case[-1])
        expected = _value_and_gradients(_reference, x, kernel, case[-1])
        for a, b in zip(ours, expected, strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype == jnp.dtype(dtype)
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("strides", [1, 2])
def test_scan_vmap_and_jit_agree_with_plain_calls(strides):
    x, kernel = _arrays((6, 6, 3, 4, 3, strides), "float32")
    kernels = jnp.stack([kernel, 2 * kernel, -kernel])

    def gradient(kernel):
        return jax.grad(lambda kernel: (conv(x, kernel, strides=strides) ** 3).mean())(kernel)

    expected = jnp.stack([gradient(kernel) for kernel in kernels])
    scanned = jax.jit(lambda ks: lax.scan(lambda _, k: (None, gradient(k)), None, ks)[1])(kernels)
    batched = jax.jit(jax.vmap(gradient))(kernels)
    np.testing.assert_allclose(scanned, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(batched, expected, rtol=1e-4, atol=1e-5)


def test_gradients_keep_the_fast_dimension_order_inside_scan():
    x, kernel = _arrays((6, 6, 3, 4, 3, 1), "float32")

    def body(kernel, _):
        loss, gradients = jax.value_and_grad(
            lambda x, kernel: (conv(x, kernel) ** 2).sum(), argnums=(0, 1)
        )(x, kernel)
        return kernel - 1e-3 * gradients[1], (loss, gradients[0])

    program = jax.jit(lambda k: lax.scan(body, k, None, length=3)).lower(kernel).compile()
    convolutions = [
        line for line in (program.as_text() or "").splitlines() if " convolution(" in line
    ]
    assert len(convolutions) == 3
    assert all("dim_labels=b01f_01io->b01f" in line for line in convolutions)


@pytest.mark.parametrize(
    ("shape", "strides", "name"),
    [((3, 1, 2, 2), 1, "kernel"), ((2, 2, 2, 2), 1, "kernel"), ((3, 3, 2, 2), 0, "strides")],
)
def test_bad_window_or_strides_is_named(shape, strides, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        conv(jnp.zeros((1, 4, 4, 2)), jnp.zeros(shape), strides=strides)
