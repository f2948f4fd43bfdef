"""Which driver and which strategy of the seed axis run fastest where."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
from jax.sharding import Mesh

from imp_rg.config import require
from imp_rg.imp.drivers import Driver
from imp_rg.imp.replicates import Strategy
from imp_rg.types import is_accelerator

REPEATS = 3
"""Timings of which the median counts."""


class Execution(NamedTuple):
    """How the scheme is run; changes speed, not numbers.

    Attributes:
      driver: Of the refine loop.
      strategy: Of the seed axis; over a mesh with that axis, of each device's own replicates.
      mesh: Devices, None for one.
    """

    driver: Driver
    strategy: Strategy
    mesh: Mesh | None = None


class Timing(NamedTuple):
    """What `measure_execution` found.

    Attributes:
      best: The fastest.
      seconds: Of the work, by execution.
    """

    best: Execution
    seconds: dict[Execution, float]


def choose_execution(
    *,
    has_convolutions: bool,
    mesh: Mesh | None = None,
    driver: Driver | Literal["auto"] = "auto",
    strategy: Strategy | Literal["auto"] = "auto",
) -> Execution:
    """The fastest execution by measurement (`python -m experiments.benchmark`).

    On a CPU one thread a replicate fills the cores: convolutions are dispatched, everything else is
    scanned. On accelerators and over several devices all is scanned: convolutional replicates one
    after another, because vmapped kernels become grouped convolutions, others vmapped.
    (Accelerators: not measured yet.)

    Args:
      has_convolutions: Of the network.
      mesh: Devices.
      driver: The one to take instead.
      strategy: The one to take instead.

    Returns:
      The execution.

    Raises:
      ValueError: If what is asked for does not go together.
    """
    if is_accelerator() or mesh is not None:
        best = Execution("scan", "loop" if has_convolutions else "vmap", mesh)
    else:
        best = Execution("dispatch" if has_convolutions else "scan", "threads")
    if driver != "auto":
        best = best._replace(driver=driver)
    if strategy != "auto":
        best = best._replace(strategy=strategy)
    _check(best)
    return best


def admissible_executions(*, has_convolutions: bool, mesh: Mesh | None = None) -> list[Execution]:
    """Executions worth timing on this device: convolutions under vmap lose on every CPU.

    House definition.
    """
    if is_accelerator() or mesh is not None:
        return [Execution("scan", strategy, mesh) for strategy in ("loop", "vmap")]
    drivers: tuple[Driver, ...] = ("dispatch", "scan")
    strategies: tuple[Strategy, ...] = ("loop", "threads")
    found = [Execution(driver, strategy) for driver in drivers for strategy in strategies]
    return found if has_convolutions else [*found, Execution("scan", "vmap")]


def _check(execution: Execution) -> None:
    driver, strategy, mesh = execution
    rule = "vmap needs --driver scan"
    require((driver, strategy) != ("dispatch", "vmap"), "replicates", rule, strategy)
    if mesh is not None:
        require(driver == "scan", "driver", f"must be scan on {mesh.size} devices", driver)
        rule = f"must be loop or vmap on {mesh.size} devices"
        require(strategy != "threads", "replicates", rule, strategy)


def measure_execution(
    make_call: Callable[[Execution], Callable[[], Any]], candidates: Sequence[Execution]
) -> Timing:
    """Times the same work in each way of running it, on the present devices.

    Args:
      make_call: From an execution to a call that runs a few steps of all replicates and returns
        what they gave (`Scheme.make_try`).
      candidates: See `admissible_executions`.

    Returns:
      The fastest and the times of all, the first call of each, which compiles, left out.

    References:
      House definition.
    """
    seconds = {}
    for execution in candidates:
        call, times = make_call(execution), []
        for _ in range(1 + REPEATS):
            began = time.monotonic()
            jax.block_until_ready(call())
            times.append(time.monotonic() - began)
        seconds[execution] = statistics.median(times[1:])
    return Timing(min(seconds, key=seconds.__getitem__), seconds)
