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

import dataclasses
import hashlib
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import rich.table
import tyro
from rich.console import Console

from experiments.shell import cli
from experiments.shell.study import AS_IS
from experiments.studies.linear.groups import group_blocks, group_shares
from experiments.studies.linear.page import lead_tables, write_page
from experiments.studies.linear.words import TRAINED, LinearResult, answers
from imp_rg.config import require
from imp_rg.plots.linear import FittedFlow
from imp_rg.rg import fit_linear_flow
from imp_rg.runs import Flow, read
from imp_rg.runs.files import write_csv, write_json
from imp_rg.runs.folder import RunFolder, describe_environment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Fits the linear flow with cross terms to a run.

    Attributes:
      run: Run folder, folder of checkpoints with one file a level, or a single checkpoint.
      group: stage (what stands before the first slash of a block's name), block, or
        NAME=PATTERN[+PATTERN],NAME=... over block names.
      without_rest: Leave out what is in no group.
      ci_level: Coverage of the intervals.
      out: Folder of the results; by default below runs/linear.
      fresh: Throw away what that folder holds.
    """

    run: tyro.conf.Positional[Path]
    group: str = "stage"
    without_rest: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    ci_level: float = 0.95
    out: Path | None = None
    fresh: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False

    def __post_init__(self):
        require(0 < self.ci_level < 1, "ci_level", "must lie in (0, 1)", self.ci_level)

    @property
    def settings(self) -> dict[str, Any]:
        """What makes a result what it is."""
        return {
            "run": str(self.run),
            "group": self.group,
            "without_rest": self.without_rest,
            "ci_level": self.ci_level,
        }


def run(config: Config) -> Path:
    """Reads, groups, fits and reports; returns the folder of the results."""
    began = time.monotonic()
    console = Console(width=None if sys.stdout.isatty() else 120)
    result = fit_run(read(config.run), config)
    folder = RunFolder(config.out or _default_folder(config), config.settings, fresh=config.fresh)
    write_csv(folder.path / "linear.csv", linear_frame(result))
    command = shlex.join(["python", "-m", "experiments.linear", *sys.argv[1:]])
    environment = describe_environment(command=command, seconds=time.monotonic() - began)
    environment = environment | {"finished": True}
    write_json(folder.environment, environment)
    page = write_page(folder.path, result, environment)
    for title, table in lead_tables(result).items():
        shown = rich.table.Table(*table.head, title=title)
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    for sentence in answers(result):
        console.print(sentence, highlight=False, markup=False)
    console.print(f"report: {page}", **AS_IS)
    return folder.path


def fit_run(flow: Flow, config: Config) -> LinearResult:
    """The linear flow of the trained weights and of every null that has a complete seed."""
    trajectory = flow.trajectory
    names, num_levels = trajectory.blocks.names, len(trajectory.num_kept)
    groups = group_blocks(names, config.group, without_rest=config.without_rest)
    require(num_levels >= 2, "run", f"{config.run} must hold at least two levels", num_levels)
    elapsed = -np.log(trajectory.density / trajectory.density[0])
    fits = {}
    for name, point in {TRAINED: trajectory.points[TRAINED], **trajectory.nulls}.items():
        shares = group_shares(np.asarray(point.magnitude_share, float), groups)
        if len(shares):
            law = fit_linear_flow(shares, trajectory.scale_factor, ci_level=config.ci_level)
            fits[name] = FittedFlow(tuple(groups), elapsed, shares, law)
    rule = f"{config.run} must hold a seed that has every level, and weights in every group"
    require(TRAINED in fits, "run", rule, "none")
    return LinearResult(
        name=flow.name,
        fits=fits,
        members={group: [names[i] for i in blocks] for group, blocks in groups.items()},
        num_seeds=len(flow.seeds),
        ci_level=config.ci_level,
        is_single=flow.settings.get("kind") == "single",
    )


def linear_frame(result: LinearResult) -> pd.DataFrame:
    """Everything that was fitted: one row a number; `source` is the run or a null."""
    rows = [
        {"source": name, **row} for name, fitted in result.fits.items() for row in _rows(fitted)
    ]
    return pd.DataFrame(rows, columns=["source", "quantity", "of", "on", "value", "low", "high"])


def _rows(fitted: FittedFlow) -> Iterator[dict[str, Any]]:
    law, groups, coordinates = fitted.law, fitted.groups, fitted.coordinates
    for i, of in enumerate(coordinates):
        yield _row("b", law.b[i], law.b_ci[i], of=of)
        for j, on in enumerate(coordinates):
            yield _row("G", law.G[i, j], law.G_ci[i, j], of=of, on=on)
    for i, of in enumerate(groups):
        yield _row("b_group", law.b_blocks[i], of=of)
        yield _row("fixed_point", law.fixed_point[i], of=of)
        visited = fitted.shares[..., i]
        yield _row("visited", visited.mean(), (visited.min(), visited.max()), of=of)
        for j, on in enumerate(groups):
            yield _row("G_group", law.G_blocks[i, j], of=of, on=on)
    for k, eigenvalue in enumerate(law.eigenvalues):
        yield _row("eigenvalue_real", eigenvalue.real, law.eigenvalues_ci[k], of=k)
        yield _row("eigenvalue_imag", eigenvalue.imag, of=k)
        for i, on in enumerate(groups):
            yield _row("eigenvector_real", law.eigenvectors[i, k].real, of=k, on=on)
            yield _row("eigenvector_imag", law.eigenvectors[i, k].imag, of=k, on=on)
    for name in SCALARS:
        yield _row(name, getattr(law, name))


SCALARS = (
    "one_step",
    "one_step_diagonal",
    "multi_step",
    "multi_step_diagonal",
    "condition",
    "ridge",
    "num_transitions",
    "num_parameters",
    "identified",
)


def _row(quantity: str, value: float, ci: Any = (np.nan, np.nan), *, of: Any = "", on: str = ""):
    low, high = ci
    return {
        "quantity": quantity,
        "of": of,
        "on": on,
        "value": float(value),
        "low": low,
        "high": high,
    }


def _default_folder(config: Config) -> Path:
    """``runs/linear/NAME-HASH``: another run or other settings, another folder."""
    source = config.run.resolve()
    digest = hashlib.sha256(repr(config.settings | {"run": str(source)}).encode()).hexdigest()[:8]
    return Path("runs/linear") / f"{source.stem}-{digest}"


PRESETS = {"default": Config(run=tyro.MISSING)}

if __name__ == "__main__":
    cli.main(
        run,
        PRESETS,
        prog="python -m experiments.linear",
        when_stopped="nothing was written",
    )
