"""Does the machinery find the exponents where they are known? Monte Carlo RG of the 2D Ising model.

Blocks spins of the two-dimensional Ising model by majority (b = 2), and reads exponents off
Swendsen's linearised RG matrix, the critical temperature off crossings of Binder's cumulant, and
the flow of the couplings off Callen's identity. Exact: y_t = 1, y_h = 15/8, T_c = 2 / ln(1 + sqrt
2), and the energy on a torus.

    python -m experiments.ising                        # 64 x 64
    python -m experiments.ising --run experiments/results/digits-resnet14   # + the paper's Fig. 1

The default takes 190 seconds of CPU time on 2 cores (a virtual Xeon), of which exponents take half.
With three operators y_t is 0.969(2), 1.001(2), 1.000(2) at blockings 1, 2, 3 and y_h 1.8806(1),
1.8760(1), 1.8746(2); cumulants of 32 x 32 and 64 x 64 cross at 1.0008(5) T_c; energies lie within
2.2 standard errors of Kaufman's; unblocked couplings come out as (1 / T, 0, 0, 0) within 1.8.

Source: the left column of Fig. 1 in Redman, Chen, Wang, Dogra, arXiv:2110.03210; Swendsen, Phys.
Rev. Lett. 42, 859 (1979) and 52, 1165 (1984).
"""

import dataclasses
import io
import shlex
import sys
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from rich.console import Console

from experiments.shell import cli
from experiments.studies.ising import page, tables
from experiments.studies.ising.plans import make_plans
from experiments.studies.ising.sampling import NUM_REPLICAS, Measured, Plan, measure_all
from imp_rg.config import require, require_choice
from imp_rg.rg import ising
from imp_rg.runs.files import write_bytes, write_csv, write_json
from imp_rg.runs.folder import RunFolder, describe_environment

Preset = Literal["smoke", "default"]

TABLES = ("exponents", "binder", "crossing", "energy", "couplings", "timing")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Measures the exponents of the two-dimensional Ising model.

    Attributes:
      preset: Real lengths, or tiny ones to see whether it runs.
      size: Spins along each side; 16 times a power of two.
      bins: Bins for the exponents, on each of two replicas of 16 chains; the other measurements
        take a quarter.
      samples: Observations in a bin, two cluster sweeps apart.
      temperatures: Below, at and above the critical temperature, relative to it.
      picture_size: Spins along each side of the lattices that are drawn.
      seed: Of all random numbers.
      run: Run folder of an IMP flow for the right column of the paper's Fig. 1.
      out: Run folder; default runs/ising/SIZE-SEED.
      fresh: Throw away a run that is there.
    """

    preset: Preset = "default"
    size: int = 64
    bins: int = 32
    samples: int = 200
    temperatures: tuple[float, float, float] = (0.95, 1.0, 1.05)
    picture_size: int = 256
    seed: int = 0
    run: Path | None = None
    out: Path | None = None
    fresh: bool = False

    def __post_init__(self):
        require_choice("preset", self.preset, Preset)
        for name in ("size", "picture_size"):
            size = getattr(self, name)
            factor = size // 16
            is_valid = size % 16 == 0 and factor >= 1 and factor & (factor - 1) == 0
            require(is_valid, name, "must be 16 times a power of two", size)
        require(self.bins >= 2, "bins", "must be at least 2", self.bins)
        require(self.samples >= 10, "samples", "must be at least 10", self.samples)
        below, _, above = self.temperatures
        is_valid = sorted(self.temperatures) == [*self.temperatures] and 0 < below <= 0.99
        rule = "must rise from at most 0.99 to at least 1.01"
        require(is_valid and above >= 1.01, "temperatures", rule, self.temperatures)


PRESETS = {
    "smoke": Config(preset="smoke", size=16, bins=4, samples=20, picture_size=32),
    "default": Config(),
}

NOT_SETTINGS = ("preset", "run", "out", "fresh")


def run(config: Config) -> Path:
    """Measures, or reports again what was measured; returns the run folder."""
    began = time.monotonic()
    console = Console(width=None if sys.stdout.isatty() else 120)
    settings = {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if name not in NOT_SETTINGS
    }
    flow = page.read_flow(config.run) if config.run else None
    default = Path("runs") / "ising" / f"{config.size}-seed{config.seed}"
    folder = RunFolder(config.out or default, settings, fresh=config.fresh)
    if folder.environment.exists():
        console.print("already finished; reporting again")
    else:
        _measure(config, folder, console)
        command = shlex.join(["python", "-m", "experiments.ising", *sys.argv[1:]])
        seconds = time.monotonic() - began
        write_json(folder.environment, describe_environment(command=command, seconds=seconds))
    page.write_page(folder, flow)
    page.print_answers(folder, console)
    console.print(f"written to {folder.path}/report.html", highlight=False)
    return folder.path


def _measure(config: Config, folder: RunFolder, console: Console) -> None:
    """Writes every table and the configurations to draw."""
    plans = make_plans(
        config.size, config.temperatures, num_bins=config.bins, num_samples=config.samples
    )
    measured = measure_all(plans, seed=config.seed, console=console)
    for name, table in _tables(plans, measured).items():
        write_csv(folder.table(name), table)
    file = io.BytesIO()
    np.savez_compressed(file, **_configurations(config))
    write_bytes(folder.path / "configurations.npz", file.getvalue())


def _tables(plans: list[Plan], measured: dict[str, Measured]) -> dict[str, pd.DataFrame]:
    by_name = {plan.name: plan for plan in plans}
    size = by_name["exponents"].size

    def of(kind: str) -> dict[str, Measured]:
        """Results of the plans `kind X`, by X."""
        return {n.split()[1]: m for n, m in measured.items() if n.split()[0] == kind}

    def temperatures(name: str) -> tuple[float, ...]:
        return tuple(dict.fromkeys(by_name[name].temperatures))

    binder = {int(part): result for part, result in of("binder").items()}
    energy = of("energy")
    at = {update: temperatures(f"energy {update}") for update in energy}
    return {
        "exponents": tables.exponent_table(measured["exponents"]),
        "binder": tables.binder_table(binder),
        "crossing": tables.crossing_table(binder),
        "energy": tables.energy_table(energy, at, size),
        "couplings": tables.coupling_table(measured["couplings"], temperatures("couplings"), size),
        "timing": pd.DataFrame(
            [
                {
                    "plan": plan.name,
                    "seconds": round(measured[plan.name].seconds, 2),
                    "spin_updates": plan.num_updates * NUM_REPLICAS,
                }
                for plan in plans
            ]
        ),
    }


def _configurations(config: Config) -> dict[str, Any]:
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


if __name__ == "__main__":
    cli.main(run, PRESETS, prog="python -m experiments.ising", when_stopped="nothing was written")
