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
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table

from experiments.evaluate import check_images, normalisation
from experiments.shell import cli
from experiments.shell.study import AS_IS
from imp_rg import data
from imp_rg.config import require
from imp_rg.foreign.layout import RunLayout, find_levels
from imp_rg.foreign.network import open_network
from imp_rg.foreign.tensors import open_tensors
from imp_rg.foreign.variables import infer_model, to_variables
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
from imp_rg.runs.files import write_csv, write_json
from imp_rg.runs.folder import RunFolder, describe_environment
from imp_rg.types import ApplyFn, Batch, Masks, Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Curvature, gradient energy and barriers of a pruning run.

    Attributes:
      levels: Folder of checkpoints, one file a level; several seeds as sub-folders.
      model: Name of the network, such as resnet20.
      shortcut: Where a residual block changes shape; auto reads it off the checkpoint.
      dataset: digits, npz:PATH, or a TensorFlow Datasets name.
      data_dir: Where prepared TensorFlow Datasets lie.
      mean: Of each channel as used in training, on the 0 to 1 scale; by default of the data.
      std: Likewise.
      num_examples: Training examples over which the loss is a mean, the first ones.
      top: Number of eigenvalues.
      probes: Random probes of the trace.
      out: Folder of the results; by default below runs/curvature.
      fresh: Throw away what that folder holds.
    """

    levels: tyro.conf.Positional[Path]
    model: str
    shortcut: Literal["auto", "projection", "pad"] = "auto"
    dataset: str = "digits"
    data_dir: Path | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    num_examples: int = 1000
    top: int = 10
    probes: int = 30
    out: Path | None = None
    fresh: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False

    def __post_init__(self):
        require(self.num_examples >= 1, "num_examples", "must be at least 1", self.num_examples)
        require(self.top >= 1, "top", "must be at least 1", self.top)
        require(self.probes >= 2, "probes", "must be at least 2", self.probes)
        same = len(self.mean) == len(self.std)
        require(same, "std", f"must have as many values as mean = {self.mean}", self.std)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
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
    began = time.monotonic()
    console = Console(width=None if sys.stdout.isatty() else 120)
    layout = find_levels(config.levels)
    task = _make_task(config, layout)
    settings = {k: _plain(v) for k, v in dataclasses.asdict(config).items() if k not in DROPPED}
    name = f"{config.levels.resolve().parent.name}-{config.model}"
    folder = RunFolder(config.out or Path("runs/curvature") / name, settings, fresh=config.fresh)
    rows = []
    for i, seed in enumerate(layout.seeds):
        for row in _measure_seed(config, task, layout, i):
            if cli.interrupted.is_set():
                raise KeyboardInterrupt
            rows.append({"seed": seed, **row})
            if row["quantity"] == "eigenvalue1":
                console.print(_line(rows[-1]), **AS_IS)
        write_csv(folder.path / "curvature.csv", pd.DataFrame(rows))
    command = shlex.join(["python", "-m", "experiments.curvature", *sys.argv[1:]])
    environment = describe_environment(command=command, seconds=time.monotonic() - began)
    write_json(folder.environment, environment | {"finished": True})
    _print_table(pd.DataFrame(rows), console)
    console.print(f"table: {folder.path / 'curvature.csv'}", **AS_IS)
    return folder.path


DROPPED = ("out", "fresh")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _make_task(config: Config, layout: RunLayout) -> Task:
    images = data.load(config.dataset, data_dir=config.data_dir)
    shortcut = None if config.shortcut == "auto" else config.shortcut
    network = open_network(open_tensors(layout.levels[0][0].weights))
    model = infer_model(network, config.model, num_classes=images.num_classes, shortcut=shortcut)
    check_images(model, to_variables(network, model), images)
    part = slice(config.num_examples)
    return Task(
        model=model,
        apply_fn=model.make_apply_fn(*normalisation(images, config.mean, config.std)),
        batch=Batch(jnp.asarray(images.x_train[part]), jnp.asarray(images.y_train[part])),
    )


def _measure_seed(
    config: Config, task: Task, layout: RunLayout, seed: int
) -> Iterator[dict[str, Any]]:
    """One row a level and quantity; what needs rewind weights is left out without."""
    rewind = layout.rewind[seed]
    at_rewind = None
    if rewind is not None:
        variables = task.load(rewind, None)
        everything = task.prunable(ones_masks(variables.params))
        at_rewind = make_curvature(task.apply_fn, variables, task.batch, everything)
        top_at_rewind = top_eigenpairs(at_rewind, config.top)
    before = None
    for level, files in enumerate(layout.levels[seed]):
        here = task.load(files.weights, files.masks)
        kept = task.survivors(here)
        curvature = make_curvature(task.apply_fn, here, task.batch, kept)
        top = top_eigenpairs(curvature, config.top)
        trace = hessian_trace(jax.random.key(level), curvature, num_probes=config.probes)
        values = {f"eigenvalue{k + 1}": value for k, value in enumerate(top.eigenvalues)}
        values |= {"trace": trace.trace, "trace_standard_error": trace.standard_error}
        values["gradient_norm"] = curvature.gradient_norm
        if at_rewind is not None:
            values |= _energy(gradient_energy(at_rewind, top_at_rewind, kept))
        if before is not None:
            line = linear_path(task.apply_fn, before, here, task.batch)
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


def _print_table(rows: pd.DataFrame, console: Console) -> None:
    """Mean over seeds of what leads, by level."""
    columns = ["eigenvalue1", "trace", "rewind_kept_of_weights", "rewind_kept_of_top"]
    columns += ["loss_barrier"]
    means = rows.groupby(["level", "quantity"])["value"].mean().unstack()
    columns = [name for name in columns if name in means]
    table = Table("level", *columns)
    for level, row in means.iterrows():
        table.add_row(str(level), *(f"{row[name]:.4g}" for name in columns))
    console.print(table)


PRESETS = {"default": Config(levels=tyro.MISSING, model=tyro.MISSING)}

if __name__ == "__main__":
    cli.main(
        run,
        PRESETS,
        prog="python -m experiments.curvature",
        when_stopped="seeds that were finished are saved; the same command starts again",
    )
