"""Do width, depth and density of a pruned network act through one number?

Runs IMP on networks of several widths and depths, fits the joint law of their errors through
m = l^phi w^psi d, and collapses the curves of each depth (width) over the widths (depths).

    python -m experiments.scaling                       # digits, 3 widths x 3 depths, levels to 26
    python -m experiments.scaling --dataset cifar10 --device gpu
    python -m experiments.scaling --preset smoke        # LeNets, a minute
    python -m experiments.scaling --check percolation   # the collapse where the answer is known
    python -m experiments.scaling --check ising

The default takes hours on 2 CPU cores; the estimate is printed first. Every network has a run
folder of its own below the output: the same command continues an unfinished experiment, and a
finished one reports again. If errors depended on the number of kept weights alone, phi would be 1
and psi 2. Percolation takes a minute or two (p_c = 0.59288 +- 0.00022, nu = 1.343 +- 0.010), Ising
several.

Source: Rosenfeld, Frankle, Carbin, Shavit, arXiv:2006.10621; Houdayer and Hartmann, Phys. Rev. B
70, 014418 (2004).
"""

import dataclasses
import shlex
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from experiments import imp_flow
from experiments.shell import cli
from experiments.shell.device import use_device
from experiments.shell.study import AS_IS, duration_text
from experiments.studies.scaling.checks import check_ising, check_percolation
from experiments.studies.scaling.page import scaling_answers, write_check_page, write_scaling_page
from experiments.studies.scaling.tables import (
    collapse_frame,
    joint_arrays,
    joint_frame,
    points_frame,
)
from experiments.trunk.assemble import Setup, estimate_seconds, prepare
from experiments.trunk.config import Config as RunConfig
from experiments.trunk.config import Device, Preset
from imp_rg.config import TrainConfig, require
from imp_rg.plots.scaling import network_collapse, size_collapse
from imp_rg.plots.style import save_figure
from imp_rg.rg import fit_joint_law
from imp_rg.runs.files import read_json, write_csv, write_json
from imp_rg.runs.folder import RunFolder, config_hash, describe_runs, has_finished

UNITS = 32
"""Units of each hidden layer of a LeNet at width 1."""

CHECK_SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Fits one error law to pruned networks of several widths and depths.

    Attributes:
      preset: Defaults to start from: a minute's try, or hours.
      check: Instead: collapse a model whose critical point and exponents are known.
      dataset: As of experiments.imp_flow.
      family: ResNets of these depths, or LeNets with as many layers.
      widths: Multiples of the channels or units.
      depths: ResNet: 14, 20, 32, 44 or 56; LeNet: 2 layers or more.
      seeds: Number of replicates.
      levels: Last level.
      train: How weights are trained and rewound.
      ci_level: Coverage of the intervals.
      device: Where to compute.
      deterministic: Bit-equal reruns on GPU, slower.
      out: Folder of the results; by default below runs/scaling.
      fresh: Throw away what it holds.
    """

    preset: Preset = "default"
    check: Literal["none", "percolation", "ising"] = "none"
    dataset: str = "digits"
    family: Literal["resnet", "lenet"] = "resnet"
    widths: tuple[float, ...] = (0.5, 1.0, 2.0)
    depths: tuple[int, ...] = (14, 20, 32)
    seeds: int = 3
    levels: int = 26
    train: tyro.conf.OmitArgPrefixes[TrainConfig] = TrainConfig()
    ci_level: float = 0.95
    device: Device = "auto"
    deterministic: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    out: Path | None = None
    fresh: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False

    def __post_init__(self):
        for name, sizes in (("widths", self.widths), ("depths", self.depths)):
            is_good = len(set(sizes)) == len(sizes) > 0 and min(sizes) > 0
            require(is_good, name, "must be different positive numbers", sizes)
        several = len(self.widths) * len(self.depths) > 1
        require(several, "depths", "must give at least 2 networks with widths", self.depths)
        require(0 < self.ci_level < 1, "ci_level", "must lie in (0, 1)", self.ci_level)
        is_deep = self.family == "resnet" or min(self.depths) >= 2
        require(is_deep, "depths", "of a LeNet must be at least 2", self.depths)

    def networks(self, folder: Path) -> Iterator[tuple[float, int, RunConfig]]:
        """Width, depth and run of every network."""
        for width, depth in product(self.widths, self.depths):
            hidden = "-".join([str(UNITS)] * (depth - 1))
            model = f"resnet{depth}" if self.family == "resnet" else f"lenet{hidden}"
            yield (
                width,
                depth,
                RunConfig(
                    dataset=self.dataset,
                    model=model,
                    width=width,
                    seeds=self.seeds,
                    levels=self.levels,
                    train=self.train,
                    device=self.device,
                    deterministic=self.deterministic,
                    out=folder / f"{self.family}-depth{depth}-width{width:g}",
                    fresh=self.fresh,
                ),
            )


PRESETS = {
    "smoke": Config(
        preset="smoke",
        family="lenet",
        widths=(0.5, 1.0),
        depths=(2, 3),
        seeds=2,
        levels=18,
        train=TrainConfig(num_steps=60, rewind_step=3),
    ),
    "default": Config(),
}


def run(config: Config) -> Path:
    """Runs what is missing, then fits; or runs a check. Returns the folder of the results."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    if config.check != "none":
        return run_check(config, console)
    settings = _settings(config)
    path = config.out or _default_folder(settings)
    networks = list(config.networks(path))
    use_device(networks[0][-1])
    quiet = Console(quiet=True)
    # Before anything is written: a wrong setting leaves no folder behind.
    setups = [(run_config, prepare(run_config, quiet)) for *_, run_config in networks]
    folder = RunFolder(path, settings, fresh=config.fresh).path
    _print_estimate(setups, console)
    runs = {}
    for width, depth, run_config in networks:
        console.print(f"depth {depth}, width {width:g}", **AS_IS)
        runs[width, depth] = imp_flow.run(run_config)
    command = shlex.join(["python", "-m", "experiments.scaling", *sys.argv[1:]])
    write_json(folder / "environment.json", describe_runs(runs.values(), command=command))
    return report(config, folder, runs, console)


def report(
    config: Config, folder: Path, runs: dict[tuple[float, int], Path], console: Console
) -> Path:
    """Fits the finished runs and writes tables, figures and page."""
    points = points_frame(runs)
    density, errors, width, depth = joint_arrays(points)
    num_test = read_json(next(iter(runs.values())) / "config.json")["num_test"]
    law = fit_joint_law(density, errors, width, depth, num_test=num_test, ci_level=config.ci_level)
    columns = (points[name].to_numpy(float) for name in ("density", "width", "depth"))
    points["m"] = law.invariant(*columns)
    write_csv(folder / "points.csv", points)
    table = joint_frame(law)
    write_csv(folder / "joint_law.csv", table)
    collapses = collapse_frame(points)
    write_csv(folder / "collapses.csv", collapses)
    figure = save_figure(network_collapse(points, law), folder / "figures", "joint_law")
    is_resnet = config.family == "resnet"
    page = write_scaling_page(folder, law, table, collapses, figure, is_resnet=is_resnet)
    for sentence in scaling_answers(law, is_resnet=is_resnet):
        console.print(sentence, **AS_IS)
    console.print(f"report: {page}", **AS_IS)
    return folder


def run_check(config: Config, console: Console) -> Path:
    """Collapses percolation or the Ising model and puts the result beside the exact values."""
    folder = config.out or Path("runs") / "scaling" / f"{config.check}-{config.preset}"
    is_small = config.preset == "smoke"
    if config.check == "percolation":
        sizes, scale = ((16, 32, 64), 0.1) if is_small else ((32, 64, 128), 1.0)
        check = check_percolation(CHECK_SEED, sizes=sizes, scale=scale)
    else:
        sizes, scale = ((8, 16, 32), 0.1) if is_small else ((16, 32, 64), 1.0)
        check = check_ising(CHECK_SEED, sizes=sizes, scale=scale)
    write_csv(folder / "points.csv", check.points)
    write_csv(folder / "check.csv", check.table)
    drawn = size_collapse(check.points, check.found, check.labels)
    figure = save_figure(drawn, folder / "figures", "collapse")
    page = write_check_page(folder, check, figure)
    for row in check.table.to_dict("records"):
        console.print(
            f"{row['quantity']}: {row['found']:.5f} +- {row['error']:.5f}, "
            f"exact {row['exact']:.5f}, {row['deviation_percent']:+.2f} %",
            **AS_IS,
        )
    console.print(f"S = {check.found.quality:.2f}, {check.seconds:.0f} s", **AS_IS)
    console.print(f"report: {page}", **AS_IS)
    return folder


def _print_estimate(setups: list[tuple[RunConfig, Setup]], console: Console) -> None:
    """Says how long the unfinished networks will take, from a few steps of each."""
    missing = [
        (run, setup)
        for run, setup in setups
        if run.fresh or not (run.out and has_finished(run.out))
    ]
    if not missing:
        return
    console.print(f"{len(missing)} of {len(setups)} networks to run; timing them", **AS_IS)
    seconds = sum(estimate_seconds(run, setup) for run, setup in missing)
    console.print(f"about {duration_text(seconds)} at the speed of the first steps", **AS_IS)


def _settings(config: Config) -> dict[str, Any]:
    """What makes the experiment what it is, flat and in JSON types."""
    flat = dataclasses.asdict(config)
    flat |= flat.pop("train")
    for name in ("out", "fresh", "preset", "check"):
        del flat[name]
    return flat | {"experiment": "scaling"}


def _default_folder(settings: dict[str, Any]) -> Path:
    name = f"{Path(settings['dataset']).stem}-{settings['family']}-{config_hash(settings)}"
    return Path("runs") / "scaling" / name


if __name__ == "__main__":
    cli.main(run, PRESETS, prog="python -m experiments.scaling")
