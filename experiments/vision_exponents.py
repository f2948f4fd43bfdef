"""With which exponent does the error of vision tickets grow, with and without pre-training?

Fits the error law of Eq. 15 to every run of vision experiments, and to any other run folder, such
as one of IMP on a pre-training task, and puts gamma beside the value of the paper's Table 7 for the
same task and pre-training. The errors against density with their laws are the paper's Fig. 3.

    python -m experiments.vision_exponents runs/vision_flow/NAME
    python -m experiments.vision_exponents runs/vision_flow/NAME runs/pretrain/NAME/imp

Unfinished runs are left out and named. A fit takes 0.03 to 0.2 s. Gamma is identified only if four
densities lie on the power law: levels 0 to 10 end at 11 % density, where errors have hardly begun
to rise, so expect *not identified* from them; the paper's runs go to 1.8 %.

Source: Redman, Chen, Wang, Dogra, arXiv:2110.03210, Eq. 15, Table 7, Fig. 3 and App. D.
"""

from pathlib import Path

import pandas as pd
import tyro

from experiments.shell import cli
from experiments.shell.settings import settings
from experiments.shell.study import Study
from experiments.studies.error_law.config import Config as FitConfig
from experiments.studies.error_law.config import FitSettings, check_folder
from experiments.studies.error_law.fits import fit_curves, read_run, write_results
from experiments.studies.error_law.page import SHOWN
from experiments.studies.vision_exponents.findings import find_published, finished_runs
from experiments.studies.vision_exponents.page import make_page
from imp_rg.config import require
from imp_rg.report.columns import tabulate
from imp_rg.runs.files import read_json


@settings
class Config(FitSettings):
    """Fits the dependence of the error on density, run by run.

    Attributes:
      runs: Folders of vision experiments, or finished run folders.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()


def run(config: Config) -> Path:
    """Fits every run and reports; returns the folder of the results."""
    require(bool(config.runs), "runs", "give a vision experiment or a run folder", "none")
    study = Study("vision_exponents")
    found = [named for path in config.runs for named in finished_runs(path, study.say)]
    require(bool(found), "runs", "must hold a finished cell", [str(x) for x in config.runs])
    fits = FitConfig(runs=tuple(named.folder for named in found), ci_level=config.ci_level)
    out = config.out or fits.folder()
    check_folder(out)
    table, fitted = fit_curves([read_run(*named) for named in found], fits)
    beside = [find_published(read_json(named.folder / "config.json")) for named in found]
    write_results(out, fits, pd.concat([table, pd.DataFrame(beside)], axis=1), fitted)
    study.table(tabulate(table, SHOWN), "critical exponent")
    return study.report(make_page(out), out)


PRESETS = {"default": Config()}

if __name__ == "__main__":
    cli.main(
        run,
        PRESETS,
        prog="python -m experiments.vision_exponents",
        when_stopped="nothing was written",
    )
