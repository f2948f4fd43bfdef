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

from pathlib import Path

from experiments.shell import cli
from experiments.shell.device import use_device
from experiments.shell.settings import identity
from experiments.shell.study import Study
from experiments.studies.rg_axioms.checks import check_operators
from experiments.studies.rg_axioms.config import PRESETS, Config
from experiments.studies.rg_axioms.findings import write_tables
from experiments.studies.rg_axioms.page import difference_table, make_page
from experiments.trunk.several import missing, prepare_all, run_all, seconds_of_runs
from imp_rg.runs import read
from imp_rg.runs.files import read_csv, write_csv
from imp_rg.runs.folder import RunFolder


def run(config: Config) -> Path:
    """Runs what is missing, then compares; returns the folder of the results."""
    use_device(config)
    study = Study("rg_axioms")
    settings = identity(config) | {"experiment": "projection"}
    stem = Path(config.dataset).stem, config.model
    path = config.out or study.default_folder(*stem, settings=settings, former="projection")
    configs = config.runs(path)
    prepare_all(configs)
    folder = RunFolder(path, settings, fresh=config.fresh)
    is_new = bool(missing(configs)) or not (path / "checks.csv").exists()
    runs = run_all(configs, study, title=lambda x: f"x = {x:.4f}")
    if is_new:
        write_csv(path / "checks.csv", check_operators(config, path))
    study.describe(folder, seconds=seconds_of_runs(runs))
    flows = {x: read(run) for x, run in runs.items()}
    divisions = dict(zip(flows, config.divisions, strict=True))
    write_tables(path, flows, divisions, ci_level=config.ci_level)
    page = make_page(path)
    ci = f"{100 * config.ci_level:g} %"
    study.table(difference_table(read_csv(path / "differences.csv"), ci))
    return study.report(page, path)


if __name__ == "__main__":
    cli.main(run, PRESETS, prog="python -m experiments.rg_axioms")
