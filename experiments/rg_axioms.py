"""Is IMP an RG scheme, and does sigma depend on the scale factor c?

Applies T again and again to one state, composes M with itself, looks for empty layers, and runs IMP
to the same densities in steps of different size: x = 0.36, twice x = 0.2, four times x = 0.1056.
Exponents that belong to the flow and not to the steps must agree (Eq. 14).

    python -m experiments.rg_axioms                              # digits, LeNet-300-100, 5 seeds
    python -m experiments.rg_axioms --model resnet14 --width 0.5
    python -m experiments.rg_axioms --preset smoke

The default takes 3 minutes on 2 CPU cores. Exponents between -0.32 and +0.37 then differ by at most
0.009 between step sizes; 2 of 9 differences are significant. Every step size has a run folder of
its own below the output, so the same command continues an unfinished experiment.

Source: Redman, Chen, Wang, Dogra, arXiv:2110.03210, Sec. 3.2 and Eq. 14.
"""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import tyro
from rich.console import Console

from experiments import imp_flow
from experiments.shell import cli
from experiments.shell.device import use_device
from experiments.shell.study import AS_IS
from experiments.studies.rg_axioms.checks import check_operators
from experiments.studies.rg_axioms.page import write_projection_page
from experiments.studies.rg_axioms.tables import (
    difference_frame,
    null_difference,
    overlap_frame,
    sigma_frame,
)
from experiments.trunk.assemble import prepare
from experiments.trunk.config import Config as RunConfig
from experiments.trunk.config import Device, Preset
from imp_rg.config import PruneConfig, TrainConfig, require
from imp_rg.plots.rg_axioms import overlap_curves, sigma_by_scale
from imp_rg.plots.style import save_figure
from imp_rg.runs import Flow, read
from imp_rg.runs.files import read_csv, write_csv, write_json
from imp_rg.runs.folder import RunFolder, config_hash, describe_runs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Checks the paper's claim that IMP is an RG scheme.

    Attributes:
      preset: Defaults to start from: a minute's try, or minutes.
      dataset: As of experiments.imp_flow.
      model: Network.
      width: Multiplies its channels or units.
      blocks: Partition.
      seeds: Number of replicates.
      levels: Last level at the largest step; smaller steps take as many more.
      prune_fraction: The largest step x.
      divisions: Into how many equal steps each of those is divided, run by run.
      repeats: How often T is applied to one state.
      train: How weights are trained and rewound.
      ci_level: Coverage of the intervals over seeds.
      device: Where to compute.
      deterministic: Bit-equal reruns on GPU, slower.
      out: Folder of the results; by default below runs/projection.
      fresh: Throw away what it holds.
    """

    preset: Preset = "default"
    dataset: str = "digits"
    model: str = "lenet300-100"
    width: float = 1.0
    blocks: str = "block"
    seeds: int = 5
    levels: int = 8
    prune_fraction: float = 0.36
    divisions: tuple[int, ...] = (1, 2, 4)
    repeats: int = 3
    train: tyro.conf.OmitArgPrefixes[TrainConfig] = TrainConfig()
    ci_level: float = 0.95
    device: Device = "auto"
    deterministic: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    out: Path | None = None
    fresh: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False

    def __post_init__(self):
        divisions = self.divisions
        is_good = len(set(divisions)) == len(divisions) >= 2 and min(divisions) >= 1
        require(is_good, "divisions", "must be at least 2 different positive numbers", divisions)
        require(self.repeats >= 2, "repeats", "must be at least 2", self.repeats)
        require(self.levels >= 1, "levels", "must be at least 1", self.levels)
        require(0 < self.ci_level < 1, "ci_level", "must lie in (0, 1)", self.ci_level)
        PruneConfig(prune_fraction=self.prune_fraction)

    def fraction(self, division: int) -> float:
        """Step x whose `division`-fold application keeps what one of the largest keeps."""
        return round(1 - (1 - self.prune_fraction) ** (1 / division), 12)

    def run_config(self, division: int, folder: Path) -> RunConfig:
        """The run with that step."""
        return RunConfig(
            dataset=self.dataset,
            model=self.model,
            width=self.width,
            blocks=self.blocks,
            seeds=self.seeds,
            levels=self.levels * division,
            prune=PruneConfig(prune_fraction=self.fraction(division)),
            train=self.train,
            ci_level=self.ci_level,
            device=self.device,
            deterministic=self.deterministic,
            out=folder / f"x{self.fraction(division):.4f}",
            fresh=self.fresh,
        )


PRESETS = {
    "smoke": Config(
        preset="smoke",
        model="lenet32-16",
        seeds=2,
        levels=3,
        divisions=(1, 2),
        repeats=2,
        train=TrainConfig(num_steps=40, rewind_step=3),
    ),
    "default": Config(),
}


def run(config: Config) -> Path:
    """Runs what is missing, then compares; returns the folder of the results."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    settings = _settings(config)
    path = config.out or _default_folder(settings)
    use_device(config.run_config(config.divisions[0], path))
    for division in config.divisions:  # a wrong setting leaves no folder behind
        prepare(config.run_config(division, path), Console(quiet=True))
    folder = RunFolder(path, settings, fresh=config.fresh).path
    runs = {}
    for division in config.divisions:
        console.print(f"x = {config.fraction(division):.4f}", **AS_IS)
        runs[config.fraction(division)] = imp_flow.run(config.run_config(division, folder))
    flows = {x: read(path) for x, path in runs.items()}
    command = shlex.join(["python", "-m", "experiments.rg_axioms", *sys.argv[1:]])
    write_json(folder / "environment.json", describe_runs(runs.values(), command=command))
    write_csv(folder / "checks.csv", check_operators(config, folder))
    write_csv(folder / "sigma.csv", sigma_frame(flows, ci_level=config.ci_level))
    write_csv(folder / "differences.csv", difference_frame(flows, ci_level=config.ci_level))
    divisions = dict(zip(flows, config.divisions, strict=True))
    write_csv(folder / "overlap.csv", overlap_frame(flows, divisions))
    page = report(config, folder, flows)
    _print(read_csv(folder / "differences.csv"), console)
    console.print(f"report: {page}", **AS_IS)
    return folder


def report(config: Config, folder: Path, flows: dict[float, Flow]) -> Path:
    """Draws the figures and writes the page from the tables."""
    tables = {
        name: read_csv(folder / f"{name}.csv")
        for name in ("checks", "sigma", "differences", "overlap")
    }
    figures = {
        "sigma": sigma_by_scale(tables["sigma"], tables["differences"], ci_level=config.ci_level),
        "overlap": overlap_curves(tables["overlap"]),
    }
    paths = {name: save_figure(f, folder / "figures", name) for name, f in figures.items()}
    collapsed = {x: _collapsed(flow) for x, flow in flows.items()}
    return write_projection_page(
        folder,
        tables,
        paths,
        collapsed=collapsed,
        null_difference=null_difference(flows),
        ci_level=config.ci_level,
        num_seeds=config.seeds,
    )


def _collapsed(flow: Flow) -> list[str]:
    """Seeds and levels with an empty layer, as metrics.csv names them."""
    rows: Any = flow.metrics[flow.metrics["status"].str.startswith("collapsed")]
    return [f"seed {r.seed}, level {r.level}: {r.status}" for r in rows.itertuples()]


def _print(differences: pd.DataFrame, console: Console) -> None:
    rows = differences[differences["estimator"] == "paper"].to_dict("records")
    for row in rows:
        console.print(
            f"sigma({row['x_a']:.4f}) - sigma({row['x_b']:.4f}), {row['block']}: "
            f"{row['mean']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]",
            **AS_IS,
        )


def _settings(config: Config) -> dict[str, Any]:
    """What makes the experiment what it is, flat and in JSON types."""
    flat = dataclasses.asdict(config)
    flat |= flat.pop("train")
    for name in ("out", "fresh", "preset"):
        del flat[name]
    return flat | {"experiment": "projection"}


def _default_folder(settings: dict[str, Any]) -> Path:
    name = f"{Path(settings['dataset']).stem}-{settings['model']}-{config_hash(settings)}"
    return Path("runs") / "projection" / name


if __name__ == "__main__":
    cli.main(run, PRESETS, prog="python -m experiments.rg_axioms")
