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

from pathlib import Path

from experiments.shell import cli
from experiments.shell.device import use_device
from experiments.shell.settings import identity
from experiments.shell.study import Study
from experiments.studies.scaling.checks import run_check
from experiments.studies.scaling.config import PRESETS, Config
from experiments.studies.scaling.findings import write_tables
from experiments.studies.scaling.page import make_check_page, make_page
from experiments.trunk.several import (
    estimate_all,
    missing,
    prepare_all,
    run_all,
    seconds_of_runs,
)
from imp_rg.runs.files import write_csv
from imp_rg.runs.folder import RunFolder

CHECK_SEED = 0


def run(config: Config) -> Path:
    """Runs what is missing, then fits; or runs a check. Returns the folder of the results."""
    study = Study("scaling")
    if config.check != "none":
        return _check(config, study)
    use_device(config)
    settings = identity(config) | {"experiment": "scaling"}
    stem = Path(config.dataset).stem, config.family
    path = config.out or study.default_folder(*stem, settings=settings)
    configs = config.runs(path)
    setups = prepare_all(configs)
    folder = RunFolder(path, settings, fresh=config.fresh)
    to_run = missing(configs)
    if to_run:
        study.say(f"{len(to_run)} of {len(configs)} networks to run; timing them")
        study.announce(sum(estimate_all(to_run, setups).values()))
    runs = run_all(configs, study, title=lambda size: f"depth {size[1]}, width {size[0]:g}")
    study.describe(folder, seconds=seconds_of_runs(runs))
    write_tables(path, runs, ci_level=config.ci_level)
    return study.report(make_page(path), path)


def _check(config: Config, study: Study) -> Path:
    """Collapses a model whose exponents are known exactly."""
    folder = config.out or Path("runs") / "scaling" / f"{config.check}-{config.preset}"
    check = run_check(config.check, config.preset, seed=CHECK_SEED)
    write_csv(folder / "points.csv", check.points)
    write_csv(folder / "check.csv", check.table)
    return study.report(make_check_page(folder), folder)


if __name__ == "__main__":
    cli.main(run, PRESETS, prog="python -m experiments.scaling")
