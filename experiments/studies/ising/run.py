"""Measures what `experiments.ising` asks for, and keeps of an IMP run what is drawn beside it.

In: a config. Out: every table, ``configurations.npz``, ``imp_flow.csv`` and ``imp_metrics.csv``.
"""

import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shell.study import Study
from experiments.studies.ising.config import Config
from experiments.studies.ising.findings import tables
from experiments.studies.ising.plans import make_plans
from experiments.studies.ising.sampling import measure_all
from imp_rg.rg import ising
from imp_rg.runs.files import read_csv, write_bytes, write_csv
from imp_rg.runs.folder import RunFolder


def measure(config: Config, folder: RunFolder, study: Study) -> None:
    """Writes every table and the configurations to draw."""
    plans = make_plans(
        config.size, config.temperatures, num_bins=config.bins, num_samples=config.samples
    )
    results = measure_all(plans, seed=config.seed, console=study.console)
    for name, table in tables(plans, results).items():
        write_csv(folder.table(name), table)
    file = io.BytesIO()
    np.savez_compressed(file, **configurations(config))
    write_bytes(folder.path / "configurations.npz", file.getvalue())


def configurations(config: Config) -> dict[str, Any]:
    """One configuration at each temperature under three blockings, and the temperatures."""
    keys = jax.random.split(jax.random.key(config.seed + 1), 2)
    temperatures = ising.CRITICAL_TEMPERATURE * np.array(config.temperatures)
    spins = jnp.ones((len(temperatures), config.picture_size, config.picture_size), jnp.int8)
    spins, _ = ising.sample(
        keys[0], spins, jnp.asarray(1 / temperatures, jnp.float32), num_samples=1,
        sweeps_between=5 * config.samples, update=ising.cluster_sweep,
        observe=ising.observe_nothing,
    )  # fmt: skip
    levels = ising.block_spins_to(keys[1], spins, smallest=config.picture_size // 8)
    named = {f"level{n}": np.asarray(level) for n, level in enumerate(levels)}
    return {"temperature": temperatures, **named}


def check_imp_run(run: Path) -> None:
    """Looks whether a folder is a run of `experiments.imp_flow`.

    Raises:
      ValueError: If it holds no flow.
    """
    for name in ("flow.csv", "metrics.csv"):
        if not (run / name).exists():
            raise ValueError(f"run: must be a run folder with {name}, got {run}")


def keep_imp_run(run: Path, folder: RunFolder) -> None:
    """Copies the trained flow and the metrics, which the page draws, from a run folder."""
    flow = read_csv(run / "flow.csv")
    columns = ["seed", "level", "block", "magnitude_share"]
    write_csv(folder.table("imp_flow"), flow[flow["point"] == "trained"][columns])
    metrics = read_csv(run / "metrics.csv")
    write_csv(folder.table("imp_metrics"), metrics[["seed", "level", "density", "test_metric"]])
