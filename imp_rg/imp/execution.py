"""Which driver and which strategy of the seed axis run fastest where."""

from typing import NamedTuple

from imp_rg.imp.drivers import Driver
from imp_rg.imp.replicates import Strategy
from imp_rg.types import is_accelerator


class Execution(NamedTuple):
    """How the scheme is run; changes speed, not numbers.

    Attributes:
      driver: Of the refine loop.
      strategy: Of the seed axis.
    """

    driver: Driver
    strategy: Strategy


def choose_execution(*, has_convolutions: bool) -> Execution:
    """The fastest execution by measurement (`python -m experiments.benchmark`).

    On a CPU one thread a replicate fills the cores: convolutions are dispatched, everything else is
    scanned. On accelerators all is scanned: convolutional replicates one after another, because
    vmapped kernels become grouped convolutions, others vmapped. (Accelerators: not measured yet.)
    """
    if is_accelerator():
        return Execution("scan", "loop" if has_convolutions else "vmap")
    return Execution("dispatch" if has_convolutions else "scan", "threads")
