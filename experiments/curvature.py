"""How sharp is the loss at each level, and does the gradient live where the mask keeps weights?

Reads the levels of a pruning run, ours (`--save-levels`) or other code's, and computes on training
data: the largest eigenvalues and the trace of the Hessian on the surviving weights of each level;
at the rewind point the gradient norm and the share of its energy in the top Hessian space that kept
and pruned weights carry (the subspace picture of the paper's Sec. 3.1); and the barrier on the
straight line from each level to the next.

    python -m experiments.imp_flow --model resnet14 --save-levels --out runs/mine
    python -m experiments.curvature runs/mine/levels --model resnet14 --dataset digits

Source: Redman, Chen, Wang, Dogra, arXiv:2110.03210, Sec. 3.1; Frankle et al., arXiv:1912.05671.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pandas as pd
import tyro

from experiments.shell import cli
from experiments.shell.settings import FolderSettings, identity, settings
from experiments.shell.study import Study
from experiments.trunk.checkpoint import CheckpointSettings, load_network
from imp_rg.config import require
from imp_rg.foreign.layout import RunLayout, find_levels
from imp_rg.foreign.network import open_network
from imp_rg.foreign.tensors import open_tensors
from imp_rg.foreign.variables import to_variables
from imp_rg.imp.connectivity import linear_path
from imp_rg.imp.hessian import (
    GradientEnergy,
    gradient_energy,
    hessian_trace,
    make_curvature,
    surviving_prunable,
    top_eigenpairs,
)
from imp_rg.models import Model
from imp_rg.pytree import leaf_paths, matches, ones_masks
from imp_rg.runs.files import write_csv
from imp_rg.runs.folder import RunFolder
from imp_rg.types import ApplyFn, Batch, Masks, Variables


@settings
class Config(CheckpointSettings, FolderSettings):
    """Curvature, gradient energy and barriers of a pruning run.

    Attributes:
      levels: Folder of checkpoints, one file a level; several seeds as sub-folders.
      num_examples: Training examples over which the loss is a mean, the first ones.
      top: Number of eigenvalues.
      probes: Random probes of the trace.
    """

    levels: tyro.conf.Positional[Path]
    num_examples: int = 1000
    top: int = 10
    probes: int = 30

    def __post_init__(self):
        super().__post_init__()
        require(self.num_examples >= 1, "num_examples", "must be at least 1", self.num_examples)
        require(self.top >= 1, "top", "must be at least 1", self.top)
        require(self.probes >= 2, "probes", "must be at least 2", self.probes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """A network as a function, with the data that its loss is a mean over."""

    model: Model
    apply_fn: ApplyFn
    batch: Batch

    def load(self, path: Path, masks: Path | None) -> Variables:
        """Variables of one checkpoint; pruned weights are zero."""
        opened = None if masks is None else open_tensors(masks)
        return jax.device_put(to_variables(open_network(open_tensors(path), opened), self.model))

    def prunable(self, masks: Masks) -> Masks:
        """Masks that are False where nothing is prunable."""
        can = tuple(matches(path, self.model.prunable) for path in leaf_paths(masks))
        return surviving_prunable(masks, can)

    def survivors(self, variables: Variables) -> Masks:
        """Prunable weights that are not zero."""
        return self.prunable(jax.tree.map(lambda x: x != 0, variables.params))


def run(config: Config) -> Path:
    """Measures every level of every seed; returns the folder of the table."""
    study = Study("curvature")
    layout = find_levels(config.levels)
    problem = _make_problem(config, layout)
    name = f"{config.levels.resolve().parent.name}-{config.model}"
    path = config.out or Path("runs/curvature") / name
    folder = RunFolder(path, _settings(config), fresh=config.fresh)
    rows = []
    for i, seed in enumerate(layout.seeds):
        for row in _measure_seed(config, problem, layout, i):
            cli.stop_if_asked()
            rows.append({"seed": seed, **row})
            if row["quantity"] == "eigenvalue1":
                study.say(_line(rows[-1]))
        write_csv(folder.path / "curvature.csv", pd.DataFrame(rows))
    study.describe(folder)
    study.table(_lead_table(pd.DataFrame(rows)))
    study.say(f"table: {folder.path / 'curvature.csv'}")
    return folder.path


def _settings(config: Config) -> dict[str, Any]:
    """Settings of the folder, whose paths stand as they were given."""
    paths = {name: getattr(config, name) for name in ("levels", "data_dir")}
    given = {name: None if path is None else str(path) for name, path in paths.items()}
    return identity(config) | given


def _make_problem(config: Config, layout: RunLayout) -> Problem:
    loaded = load_network(config, open_network(open_tensors(layout.levels[0][0].weights)))
    part = slice(config.num_examples)
    return Problem(
        model=loaded.model,
        apply_fn=loaded.apply_fn,
        batch=Batch(
            *(jnp.asarray(x[part]) for x in (loaded.images.x_train, loaded.images.y_train))
        ),
    )


def _measure_seed(
    config: Config, problem: Problem, layout: RunLayout, seed: int
) -> Iterator[dict[str, Any]]:
    """One row a level and quantity; what needs rewind weights is left out without."""
    rewind = layout.rewind[seed]
    at_rewind = None
    if rewind is not None:
        variables = problem.load(rewind, None)
        everything = problem.prunable(ones_masks(variables.params))
        at_rewind = make_curvature(problem.apply_fn, variables, problem.batch, everything)
        top_at_rewind = top_eigenpairs(at_rewind, config.top)
    before = None
    for level, files in enumerate(layout.levels[seed]):
        here = problem.load(files.weights, files.masks)
        kept = problem.survivors(here)
        curvature = make_curvature(problem.apply_fn, here, problem.batch, kept)
        top = top_eigenpairs(curvature, config.top)
        trace = hessian_trace(jax.random.key(level), curvature, num_probes=config.probes)
        values = {f"eigenvalue{k + 1}": value for k, value in enumerate(top.eigenvalues)}
        values |= {"trace": trace.trace, "trace_standard_error": trace.standard_error}
        values["gradient_norm"] = curvature.gradient_norm
        if at_rewind is not None:
            values |= _energy(gradient_energy(at_rewind, top_at_rewind, kept))
        if before is not None:
            line = linear_path(problem.apply_fn, before, here, problem.batch)
            values |= {"loss_barrier": line.loss_barrier, "error_barrier": line.error_barrier}
        before = here
        for name, value in values.items():
            yield {"level": level, "quantity": name, "value": float(value)}


def _energy(found: GradientEnergy) -> dict[str, float]:
    """Gradient energy at the rewind point as columns of the table."""
    values = {"rewind_gradient_norm": found.gradient_norm, "rewind_energy_in_top": found.in_top}
    for name, part in (("kept", found.kept), ("pruned", found.pruned)):
        values |= {f"rewind_{name}_{key}": value for key, value in part._asdict().items()}
    return values


def _line(row: dict[str, Any]) -> str:
    return f"seed {row['seed']}, level {row['level']}: {row['quantity']} {row['value']:.4g}"


def _lead_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of what leads, by level, as text."""
    leading = ["eigenvalue1", "trace", "rewind_kept_of_weights", "rewind_kept_of_top"]
    leading += ["loss_barrier"]
    means = rows.groupby(["level", "quantity"])["value"].mean().unstack()
    shown = means[[name for name in leading if name in means]]
    return shown.map("{:.4g}".format).reset_index().astype({"level": str})


PRESETS = {"default": Config(levels=tyro.MISSING, model=tyro.MISSING)}

if __name__ == "__main__":
    cli.main(
        run,
        PRESETS,
        prog="python -m experiments.curvature",
        when_stopped="seeds that were finished are saved; the same command starts again",
    )
