"""Strict settings for all tests; shapes of the annotated modules are checked as they run."""

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

from jaxtyping import install_import_hook
from threadpoolctl import threadpool_limits

# A run of the tests compiles a program once, for all its workers and child processes, into a folder
# that starts empty: none is left of an earlier run or comes from the user's cache. JAX reads both
# settings when it is imported.
if "PYTEST_XDIST_WORKER" not in os.environ:
    COMPILED = tempfile.mkdtemp(prefix="imp_rg_compiled_")
    atexit.register(shutil.rmtree, COMPILED, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# Matrices of tests are small, and BLAS threads wait for each other on cores that other workers use:
# fitting a linear flow took 1.3 s of CPU, and takes 0.05 s with one. Plugins have loaded NumPy by
# now; the setting is for SciPy, for the workers and for child processes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
threadpool_limits(int(os.environ["OPENBLAS_NUM_THREADS"]), "blas")

# A shell's background job ignores Ctrl-C, and so would every child that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# `rg`, `data` and `models` check what users hand in and answer in one line; the hook would come
# before them.
CHECKED = ("blocks", "flow", "pytree", "imp")
install_import_hook([f"imp_rg.{name}" for name in CHECKED], "beartype.beartype")

import jax  # noqa: E402  (the hook must come first)
import jax.numpy as jnp  # noqa: E402  (the hook must come first)
import numpy as np  # noqa: E402  (the hook must come first)
import pytest  # noqa: E402  (the hook must come first)

from imp_rg.imp.replicates import num_usable_cores  # noqa: E402  (the hook must come first)
from imp_rg.types import Batch  # noqa: E402  (the hook must come first)

HURRY = "--xla_backend_optimization_level=0"
"""XLA reads its flags when it is first used, after all of this is imported."""

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


def pytest_configure(config):
    """Programs of short tests, and of the processes they start, are compiled in a hurry.

    What is tested is what is computed, and compiling takes longer than computing: 20 s of CPU
    instead of 46 s for steps of ResNet-14 and BERT and what they start from. Long tests compute.
    """
    is_short = "not long" in config.option.markexpr
    if is_short and HURRY not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {HURRY}".strip()


def pytest_xdist_auto_num_workers(config):
    """A worker a core; files that are named run in this process, where -s shows what they print."""
    is_named = all(Path(argument.partition("::")[0]).is_file() for argument in config.args)
    return 0 if is_named else num_usable_cores()


@pytest.fixture(scope="session")
def tiny_images():
    """A learnable toy: 96 images of 8x8 whose class is the brighter half."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 96)
    x = rng.integers(0, 9, (96, 8, 8, 1))
    x[y == 1, :4] += 7
    x[y == 0, 4:] += 7
    return Batch(x=jnp.asarray(x, jnp.uint8), y=jnp.asarray(y, jnp.int32))


@pytest.fixture
def tiny_batch(tiny_images):
    """The same in arrays of one's own, which a test may donate."""
    return jax.tree.map(jnp.array, tiny_images)
