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

from pathlib import Path

from experiments.shell import cli
from experiments.shell.settings import identity
from experiments.shell.study import Study
from experiments.studies.ising.config import PRESETS, Config
from experiments.studies.ising.page import make_page
from experiments.studies.ising.run import check_imp_run, keep_imp_run, measure
from imp_rg.runs.folder import RunFolder


def run(config: Config) -> Path:
    """Measures, or reports again what was measured; returns the run folder."""
    study = Study("ising")
    if config.run:
        check_imp_run(config.run)
    default = Path("runs") / "ising" / f"{config.size}-seed{config.seed}"
    folder = RunFolder(config.out or default, identity(config), fresh=config.fresh)
    if folder.environment.exists():
        study.say("already finished; reporting again")
    else:
        measure(config, folder, study)
        study.describe(folder)
    if config.run:
        keep_imp_run(config.run, folder)
    return study.report(make_page(folder.path), folder.path)


if __name__ == "__main__":
    cli.main(run, PRESETS, prog="python -m experiments.ising", when_stopped="nothing was written")
