"""Chains of the Ising experiment: what each measurement observes, and how it is spread over cores.

In: a list of `Plan`. Out: for each, what its bins hold, joined along the bins. Chains come in a
fixed number of independent replicas, each its own sequence of keys, so that results do not depend
on how many cores run them.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from experiments.shell.cli import stop_if_asked
from experiments.shell.progress import Progress
from imp_rg.imp.replicates import num_usable_cores
from imp_rg.rg import ising

NUM_REPLICAS = 2
"""Independent runs of every plan; more cores than this stay idle."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """One measurement.

    Attributes:
      name: What is measured.
      size: Spins along each side.
      temperatures: One per chain, in units of J.
      update: Sweep of all chains.
      observe: `observe(key, spins)`, arrays; traced.
      reduce: Observations [sample chain ...] to arrays with a leading bin axis of length 1.
      num_bins: Per replica.
      num_samples: Observations per bin.
      sweeps_between: Sweeps before each observation.
      warm_up: Bins thrown away first, from the ordered start.
    """

    name: str
    size: int
    temperatures: tuple[float, ...]
    update: ising.Update
    observe: ising.Observe
    reduce: Callable[[Any], Any]
    num_bins: int
    num_samples: int
    sweeps_between: int
    warm_up: int

    @property
    def num_updates(self) -> int:
        """Spins offered an update by one replica."""
        return (self.warm_up + self.num_bins) * self.updates_per_bin

    @property
    def updates_per_bin(self) -> int:
        """Spins offered an update in one bin."""
        sweeps = self.num_samples * self.sweeps_between
        return sweeps * len(self.temperatures) * self.size**2


class PlanResult(NamedTuple):
    """Results of one plan.

    Attributes:
      bins: Arrays of `reduce`, joined over bins and replicas.
      seconds: Wall-clock time, compilation included.
    """

    bins: Any
    seconds: float


def measure_all(plans: Sequence[Plan], *, seed: int, console: Console) -> dict[str, PlanResult]:
    """Runs all plans, one after another, replicas at the same time.

    Raises:
      KeyboardInterrupt: After Ctrl-C, at the end of a bin.
    """
    keys = jax.random.split(jax.random.key(seed), len(plans))
    results = {}
    total = sum(plan.num_updates for plan in plans) * NUM_REPLICAS
    with Progress(console, total=total) as progress:
        for plan, key in zip(plans, keys, strict=True):
            began = time.monotonic()
            run = functools.partial(_run_replica, plan, _compile(plan), progress)
            replica_keys = list(jax.random.split(key, NUM_REPLICAS))
            with ThreadPoolExecutor(min(NUM_REPLICAS, num_usable_cores())) as pool:
                bins = [b for replica in pool.map(run, replica_keys) for b in replica]
            joined = jax.tree.map(lambda *parts: np.concatenate(parts), *bins)
            results[plan.name] = PlanResult(joined, time.monotonic() - began)
    return results


def _compile(plan: Plan) -> Callable[..., Any]:
    """The program of one bin, made once: threads that meet it at the same time would each make it.

    Takes (key, spins, coupling).
    """
    num_chains = len(plan.temperatures)
    return ising.sample.lower(
        jax.random.key(0),
        jnp.ones((num_chains, plan.size, plan.size), jnp.int8),
        jnp.ones(num_chains, jnp.float32),
        num_samples=plan.num_samples,
        sweeps_between=plan.sweeps_between,
        update=plan.update,
        observe=plan.observe,
    ).compile()


def _run_replica(
    plan: Plan, sample: Callable[..., Any], progress: Progress, key: jax.Array
) -> list[Any]:
    """Bins of one replica."""
    spins = jnp.ones((len(plan.temperatures), plan.size, plan.size), jnp.int8)
    coupling = 1 / jnp.array(plan.temperatures, jnp.float32)
    bins = []
    for index, bin_key in enumerate(jax.random.split(key, plan.warm_up + plan.num_bins)):
        stop_if_asked()
        spins, observed = sample(bin_key, spins, coupling)
        if index >= plan.warm_up:
            bins.append(plan.reduce(jax.tree.map(np.asarray, observed)))
        progress.advance(plan.updates_per_bin, plan.name)
    return bins
