"""Memory: how much a device used, what to do when it has too little, and what a host keeps."""

import contextlib
import ctypes
import re
import sys
from collections.abc import Iterator

import jax

REMEDY = "lower batch_size or width, or try --replicates loop, --dtype bfloat16 or more --devices"


@contextlib.contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Turns XLA's running out of device memory into one line that says what to lower.

    Raises:
      ValueError: In its place. Other errors pass.

    References:
      House definition.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        message = str(error)
        if "RESOURCE_EXHAUSTED" not in message:
            raise
        asked = re.search(r"(\d+) bytes|\d+(?:\.\d+)?[KMGT]iB", message)
        what = "more" if asked is None else _size(asked)
        raise ValueError(
            f"memory: must suffice on the device, which does not have {what}; {REMEDY}; "
            "what is finished is kept"
        ) from error


def _size(asked: re.Match[str]) -> str:
    return asked[0] if asked[1] is None else f"{int(asked[1]) / 2**30:.3g}GiB"


def peak_bytes() -> int | None:
    """Most memory in use at once so far on the first device of this process; None on a CPU.

    House definition.
    """
    statistics = jax.local_devices()[0].memory_stats()
    return None if statistics is None else statistics.get("peak_bytes_in_use")


def give_back_freed() -> None:
    """Returns memory that was freed to the system, where the C library would keep it (glibc).

    Arrays that come and go at every level leave its heaps in pieces: 3.7 of the 5.8 GB that a run
    of three encoders of 22.7 million weights had come to hold lay in such heaps.

    House definition.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
