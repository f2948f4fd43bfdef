"""With which exponent does the error grow under pruning, and do the data say so?

Fits the error law of Eq. 15 to finished runs, or to any table of density and error, and puts gamma
with its interval, or the words *not identified*, beside the paper's Table 7.

    python -m experiments.error_law RUN...                     # run folders with metrics.csv
    python -m experiments.error_law --csv my.csv               # density,error[,seed][,task]
    python -m experiments.error_law RUN --window 0.01 0.3      # Eq. 1 between these densities too

Densities are fractions in (0, 1], errors percent. Give ``--num-test`` with a CSV of accuracies over
that many test examples: zero errors are then legal. A fit takes 0.03 to 0.2 s.

On the runs under ``experiments/results`` gamma is not identified: digits are saturated above 1 %
density (the error hardly rises from 100 to 6.9 %), and the five CIFAR-10 levels fall from 16.9 to
13.5 % error, before any rise.

Source: Redman, Chen, Wang, Dogra, arXiv:2110.03210, Eqs. 1 and 15, Table 7, Fig. 3 and App. D.
"""

from pathlib import Path

from experiments.shell import cli
from experiments.shell.study import Study
from experiments.studies.error_law.config import PRESETS, Config, check_folder
from experiments.studies.error_law.fits import fit_curves, read_curves, write_results
from experiments.studies.error_law.page import SHOWN, make_page
from imp_rg.config import require
from imp_rg.report.columns import tabulate


def run(config: Config) -> Path:
    """Fits every curve and reports; returns the folder of the results."""
    require(bool(config.runs or config.csv), "runs", "give a run folder or --csv", "none")
    study = Study("error_law")
    curves = list(read_curves(config))
    out = config.folder()
    check_folder(out)
    table, fitted = fit_curves(curves, config)
    write_results(out, config, table, fitted)
    study.table(tabulate(table, SHOWN), "critical exponent")
    return study.report(make_page(out), out)


if __name__ == "__main__":
    cli.main(
        run,
        PRESETS,
        prog="python -m experiments.error_law",
        when_stopped="nothing was written",
    )
