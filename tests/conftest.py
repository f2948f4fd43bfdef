"""Strict settings for all tests; shapes of the annotated modules are checked as they run."""

from jaxtyping import install_import_hook

# `rg`, `data` and `models` check what users hand in and answer in one line; the hook would come
# before them.
CHECKED = ("blocks", "flow", "pytree", "imp")
install_import_hook([f"imp_rg.{name}" for name in CHECKED], "beartype.beartype")

import jax  # noqa: E402  (the hook must come first)
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from imp_rg.types import Batch  # noqa: E402

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture
def tiny_batch():
    """A learnable toy: 96 images of 8x8 whose class is the brighter half."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 96)
    x = rng.integers(0, 9, (96, 8, 8, 1))
    x[y == 1, :4] += 7
    x[y == 0, 4:] += 7
    return Batch(x=jnp.asarray(x, jnp.uint8), y=jnp.asarray(y, jnp.int32))
