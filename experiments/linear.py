"""How does every part of the network drive every other one under pruning, and do the data say so?

Exponents let each block scale on its own. Here the flow is linear with cross terms, dz/dl = b + G z
in log-ratio coordinates z of the shares, l the RG time: eigenvalues of G, the fixed point, and how
well a left-out seed is predicted, beside the diagonal model (G = 0) and beside the run's nulls.

    python -m experiments.linear RUN                            # stages, what is in none: rest
    python -m experiments.linear RUN --without-rest             # stages alone
    python -m experiments.linear RUN --group a=stage1+stage2,b=stage3
    python -m experiments.linear RUN --group block              # many parameters, many seeds

RUN is whatever `experiments.analyse` reads: a run folder, or checkpoints of other code. G of k
groups and b have k (k - 1) entries and need five transitions (seeds x levels) each: three groups
30, four groups 60. A fit takes 0.1 to 8 s, one for the run and one for each null.

Expected on ``experiments/results/digits-resnet14`` without rest: identified, left-out one-step
error 0.018 against 0.024, eigenvalues 0.24 +- 0.25i; and the same picture from untrained weights.

Source: house definition; Redman, Chen, Wang, Dogra, arXiv:2110.03210, Eqs. 13-14, is G = 0.
"""

import hashlib
from pathlib import Path

import tyro

from experiments.shell import cli
from experiments.shell.settings import Flag, ReadingSettings, identity, settings
from experiments.shell.study import Study
from experiments.studies.linear.findings import fit_run, write_findings
from experiments.studies.linear.page import lead_tables, make_page
from imp_rg.runs import read
from imp_rg.runs.folder import RunFolder


@settings
class Config(ReadingSettings):
    """Fits the linear flow with cross terms to a run.

    Attributes:
      run: Run folder, folder of checkpoints with one file a level, or a single checkpoint.
      group: stage (what stands before the first slash of a block's name), block, or
        NAME=PATTERN[+PATTERN],NAME=... over block names.
      without_rest: Leave out what is in no group.
    """

    run: tyro.conf.Positional[Path]
    group: str = "stage"
    without_rest: Flag = False


PRESETS = {"default": Config(run=tyro.MISSING)}


def run(config: Config) -> Path:
    """Reads, groups, fits and reports; returns the folder of the results."""
    study = Study("linear")
    result = fit_run(
        read(config.run),
        config.group,
        without_rest=config.without_rest,
        ci_level=config.ci_level,
    )
    settings = identity(config) | {"run": str(config.run)}
    folder = RunFolder(config.out or _default_folder(config), settings, fresh=config.fresh)
    write_findings(folder.path, result)
    study.describe(folder)
    page = make_page(folder.path)
    for title, table in lead_tables(folder.path).items():
        study.table(table, title)
    return study.report(page, folder.path)


def _default_folder(config: Config) -> Path:
    """``runs/linear/NAME-HASH``; the hash is older than `config_hash`, and folders keep it."""
    source = config.run.resolve()
    known = {
        "run": str(source),
        "group": config.group,
        "without_rest": config.without_rest,
        "ci_level": config.ci_level,
    }
    digest = hashlib.sha256(repr(known).encode()).hexdigest()[:8]
    return Path("runs/linear") / f"{source.stem}-{digest}"


if __name__ == "__main__":
    cli.main(
        run,
        PRESETS,
        prog="python -m experiments.linear",
        when_stopped="nothing was written",
    )
