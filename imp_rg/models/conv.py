"""A 2-d convolution whose gradients cost the same inside ``lax.scan`` as outside.

XLA's CPU compiler rewrites convolutions to the one dimension order that its fast kernels accept
(``NHWC, HWIO -> NHWC``), but it does so in the outermost computation only. The gradients that JAX
derives for a convolution come in other orders, so inside ``lax.scan`` they fall back to scalar
loops, 7 to 300 times slower (jax-ml/jax#12868). Here both gradients are written in the fast order
by hand, and 1x1 windows are matrix products. Values and gradients equal those of
``lax.conv_general_dilated`` up to rounding.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv(
    x: Float[Array, "batch height width channel"],
    kernel: Float[Array, "window window channel feature"],
    *,
    strides: int = 1,
) -> Float[Array, "batch out_height out_width feature"]:
    """Convolve images with square kernels, padding half a window of zeros on every side.

    A 3x3 window is padded by one pixel on both sides and a 1x1 window not at all, for every
    stride. This is PyTorch's ``padding=window // 2``; XLA's ``SAME`` differs when strides are 2.

    Off the CPU the plain XLA convolution runs, with the gradients that JAX derives. The backend is
    read while tracing: a program compiled for another one is still right, only slower. On the CPU
    the function has reverse-mode derivatives of every order, but no forward mode (``jax.jvp``).

    Args:
      x: Images.
      kernel: Weights; the window has odd size.
      strides: Step of the window in pixels, the same in height and width.

    Returns:
      The convolved images, ``out_height = (height - 1) // strides + 1``.

    Raises:
      ValueError: If the window is not square or not odd, or `strides` is not positive.
    """
    window = kernel.shape[:2]
    if window[0] != window[1] or window[0] % 2 == 0:
        raise ValueError(f"kernel: the window must be square and of odd size, got {window}")
    if strides < 1:
        raise ValueError(f"strides: must be at least 1, got {strides}")
    if jax.default_backend() != "cpu":
        return _conv(x, kernel, strides)
    if window == (1, 1):
        return x[:, ::strides, ::strides] @ kernel[0, 0]
    return _conv_fast_gradients(x, kernel, strides)


def _conv(x: Array, kernel: Array, strides: int) -> Array:
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (strides, strides), ((half, half), (half, half)), dimension_numbers=_DIMENSIONS
    )


_conv_fast_gradients = jax.custom_vjp(_conv, nondiff_argnums=(2,))


def _conv_forward(x: Array, kernel: Array, strides: int) -> tuple[Array, tuple[Array, Array]]:
    return _conv_fast_gradients(x, kernel, strides), (x, kernel)


def _conv_backward(
    strides: int, residuals: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    return (
        _input_gradient(kernel, cotangent, strides, x.shape[1:3]),
        _kernel_gradient(x, cotangent, strides, kernel.shape[0]),
    )


_conv_fast_gradients.defvjp(_conv_forward, _conv_backward)


def _input_gradient(kernel: Array, cotangent: Array, strides: int, size: tuple[int, ...]) -> Array:
    """Convolve the zero-spread cotangent with the flipped kernel."""
    window = kernel.shape[0]
    low = window - 1 - window // 2
    sizes = zip(size, cotangent.shape[1:3], strict=True)
    # The spread cotangent is filled up to the `size + window - 1` that gives back `size`.
    padding = [(low, n - 1 + window // 2 - strides * (m - 1)) for n, m in sizes]
    spread = cotangent
    if strides > 1:  # a dilated input would take the slow kernel, so the zeros are written out
        between = (0, 0, strides - 1)
        zero = jnp.zeros((), cotangent.dtype)
        spread = lax.pad(cotangent, zero, [(0, 0, 0), between, between, (0, 0, 0)])
    flipped = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    return _unit_stride_conv(spread, flipped, padding)


def _kernel_gradient(x: Array, cotangent: Array, strides: int, window: int) -> Array:
    """Slide the cotangent over the input, with the batch in the role of the channels."""
    half = window // 2
    sizes = zip(x.shape[1:3], cotangent.shape[1:3], strict=True)
    # Negative where the last rows were reached by no window: they are cut off.
    padding = [(half, strides * (m - 1) + window - half - n) for n, m in sizes]
    images, windows = x.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3)
    gradient = _unit_stride_conv(images, windows, padding, dilation=strides)
    return gradient.transpose(1, 2, 0, 3)


def _unit_stride_conv(
    x: Array, kernel: Array, padding: list[tuple[int, int]], dilation: int = 1
) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=_DIMENSIONS,
    )
