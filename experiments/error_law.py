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

import dataclasses
import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table

from experiments.shell import cli
from experiments.shell.study import AS_IS
from experiments.studies.error_law.page import gamma_text, interval_text, write_page
from imp_rg.config import require
from imp_rg.plots.error_law import FittedCurve, error_collapse, error_curves
from imp_rg.plots.style import save_figure
from imp_rg.rg import fit_error_law, fit_power_law, predict_held_out
from imp_rg.rg.error_law import MIN_DENSITIES
from imp_rg.runs.files import read_json, write_csv, write_json

ACCURACY = "test accuracy (%)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Fits the dependence of the error on density.

    Attributes:
      runs: Finished run folders.
      csv: Table with the columns density, error and, if there are several, seed and task.
      num_test: Number of test examples behind each error of the CSV.
      window: Densities d_L and d_C of the power law of Eq. 1; none by default.
      ci_level: Coverage of the intervals.
      out: Folder of the results; by default below runs/exponents.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    csv: Path | None = None
    num_test: int | None = None
    window: tuple[float, float] | None = None
    ci_level: float = 0.95
    out: Path | None = None

    def __post_init__(self):
        require(0 < self.ci_level < 1, "ci_level", "must lie in (0, 1)", self.ci_level)
        is_known = self.num_test is None or self.csv is not None
        require(is_known, "num_test", "goes with --csv, a run folder has its own", self.num_test)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """Errors in percent [seed level] of one task, and how many examples stand behind each."""

    name: str
    dataset: str
    density: np.ndarray
    errors: np.ndarray
    num_test: int | None


def run(config: Config) -> Path:
    """Fits every task and reports; returns the folder of the results."""
    require(bool(config.runs or config.csv), "runs", "give a run folder or --csv", "none")
    console = Console(width=None if sys.stdout.isatty() else 120)
    tasks = list(_read_tasks(config))
    out = config.out or default_folder(config)
    check_folder(out)
    table, curves = fit_tasks(tasks, config)
    figures = write_results(out, config, table, curves)
    page = write_page(out, table, figures, ci_level=config.ci_level)
    print_table(table, console)
    console.print(f"report: {page}", **AS_IS)
    return out


def fit_tasks(tasks: Sequence[Task], config: Config) -> tuple[pd.DataFrame, list[FittedCurve]]:
    """The law of every task: the rows of ``exponents.csv``, and what is drawn."""
    curves, rows = zip(*(_fit(task, config) for task in tasks), strict=True)
    return pd.DataFrame(rows), list(curves)


def write_results(
    out: Path, config: Config, table: pd.DataFrame, curves: Sequence[FittedCurve]
) -> dict[str, Path]:
    """Writes settings, tables and figures; returns the figures by name."""
    settings = dataclasses.asdict(config) | {"tasks": table["task"].to_list()}
    write_json(out / "config.json", {name: _json(value) for name, value in settings.items()})
    write_csv(out / "exponents.csv", table)
    write_csv(out / "curves.csv", pd.concat([_curve_frame(curve) for curve in curves]))
    figures = {"errors": save_figure(error_curves(curves), out / "figures", "errors")}
    if table["identified"].sum() > 1:
        collapse = error_collapse(curves)
        figures["collapse"] = save_figure(collapse, out / "figures", "collapse")
    return figures


def _read_tasks(config: Config) -> Iterator[Task]:
    names = [path.resolve().name for path in config.runs]
    for path, name in zip(config.runs, names, strict=True):
        yield read_run(path, name if names.count(name) == 1 else str(path))
    if config.csv is not None:
        yield from _read_csv(config.csv, config.num_test)


def read_run(path: Path, name: str) -> Task:
    """Errors of a run folder, in seeds that reached every level; its metric is an accuracy."""
    for file in ("metrics.csv", "config.json"):
        require((path / file).is_file(), "runs", f"must be run folders with {file}", str(path))
    settings = read_json(path / "config.json")
    metric = settings.get("metric", ACCURACY)
    rule = f"{path}: metric must be {ACCURACY} or another accuracy (%)"
    require(metric.endswith("accuracy (%)"), "runs", rule, metric)
    metrics = _read_table(path / "metrics.csv", {"seed", "level", "density", "test_metric"}, "runs")
    # Levels mean the same in all seeds; a seed that stopped is no curve.
    accuracy = metrics.pivot(index="seed", columns="level", values="test_metric").dropna()
    require(len(accuracy) > 0, "runs", f"{path} must hold a seed that reached every level", 0)
    density = metrics.groupby("level")["density"].first().to_numpy(float)
    return Task(
        name=name,
        dataset=str(settings.get("dataset", name)),
        density=density,
        errors=100 - accuracy.to_numpy(float),
        num_test=settings.get("num_test"),
    )


def _read_csv(path: Path, num_test: int | None) -> Iterator[Task]:
    require(path.is_file(), "csv", "must be a file", str(path))
    table = _read_table(path, {"density", "error"}, "csv")
    table = table.assign(
        seed=table.get("seed", default=0), task=table.get("task", default=path.stem)
    )
    is_empty = table[["density", "error", "seed", "task"]].isna().any(axis=1)
    line = int(is_empty.argmax()) + 2
    require(not is_empty.any(), "csv", f"{path} must have no empty or NaN cell", f"line {line}")
    for name, rows in table.groupby("task", sort=False):
        is_twice = rows.duplicated(["seed", "density"])
        rule = f"{path}, task {name}: must hold each seed and density once"
        require(not is_twice.any(), "csv", rule, f"{is_twice.sum()} more")
        errors = rows.pivot(index="seed", columns="density", values="error")
        rule = f"{path}, task {name}: every seed must have the same densities"
        require(not errors.isna().any(axis=None), "csv", rule, f"{errors.isna().sum().sum()} gaps")
        yield Task(
            name=str(name),
            dataset=str(name),
            density=errors.columns.to_numpy(float),
            errors=errors.to_numpy(float),
            num_test=num_test,
        )


def _read_table(path: Path, columns: set[str], setting: str) -> Any:
    """A CSV with at least these columns, numbers but for the names of tasks."""
    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{setting}: {path} must be a CSV table, got {error}") from error
    missing = sorted(columns - set(table))
    require(not missing, setting, f"{path} must have the columns {sorted(columns)}", list(table))
    for column in columns:
        is_number = pd.api.types.is_numeric_dtype(table[column])
        require(is_number, setting, f"{path}: column {column} must hold numbers", "text")
    return table


def _fit(task: Task, config: Config) -> tuple[FittedCurve, dict[str, Any]]:
    """The law of one task, and its row of the table."""
    density, errors, num_test = task.density, task.errors, task.num_test
    try:
        law = fit_error_law(density, errors, num_test=num_test, ci_level=config.ci_level)
        row = _row(task, law)
        row["held_out_rms"] = _held_out_rms(task)
        if config.window is not None:
            power = fit_power_law(density, errors, window=config.window, ci_level=config.ci_level)
            low, high = power.gamma_ci
            row |= {"eq1_gamma": power.gamma, "eq1_gamma_low": low, "eq1_gamma_high": high}
    except ValueError as error:
        raise ValueError(f"{task.name}: {error}") from error
    return FittedCurve(task.name, density, errors, law), row


def _row(task: Task, law: Any) -> dict[str, Any]:
    paper = law.in_paper_gauge()
    return {
        "task": task.name,
        "dataset": task.dataset,
        "num_seeds": len(task.errors),
        "num_densities": task.density.size,
        "num_test": task.num_test,
        "identified": law.identified,
        "gamma": law.gamma,
        "gamma_low": law.gamma_ci[0],
        "gamma_high": law.gamma_ci[1],
        "p": law.p,
        "q": law.q,
        "e_np": law.e_np,
        "e_up": law.e_up,
        "paper_gamma": paper.gamma,
        "paper_gamma_low": paper.gamma_ci[0],
        "paper_gamma_high": paper.gamma_ci[1],
        "paper_p": paper.p,
        "num_in_window": law.num_in_window,
        "dispersion": law.dispersion,
        "seed_dispersion": law.seed_dispersion,
        "why": "; ".join(law.reasons),
    }


def _held_out_rms(task: Task) -> float:
    """Error in points of every third density, predicted from the others; NaN if too few."""
    is_held_out = np.arange(task.density.size) % 3 == 1
    if np.sum(~is_held_out) < MIN_DENSITIES:
        return float("nan")
    held = predict_held_out(
        task.density, task.errors, is_held_out=is_held_out, num_test=task.num_test
    )
    return held.rms


def _curve_frame(curve: FittedCurve) -> pd.DataFrame:
    num_seeds, num_levels = curve.errors.shape
    return pd.DataFrame(
        {
            "task": curve.task,
            "seed": np.repeat(np.arange(num_seeds), num_levels),
            "density": np.tile(curve.density, num_seeds),
            "error": curve.errors.ravel(),
            "fitted": np.tile(curve.law.error_at(curve.density), num_seeds),
        }
    )


def print_table(table: pd.DataFrame, console: Console) -> None:
    """Gamma with interval and verdict, one row a task."""
    head = ("task", "gamma", "interval", "paper's gauge", "verdict")
    shown = Table(*head, title="critical exponent")
    for row in table.to_dict("records"):
        verdict = "identified" if row["identified"] else f"not identified: {row['why']}"
        shown.add_row(
            str(row["task"]),
            gamma_text(row["gamma"], row["identified"]),
            interval_text(row["gamma_low"], row["gamma_high"], row["identified"]),
            gamma_text(row["paper_gamma"], row["identified"]),
            verdict,
        )
    console.print(shown)


def check_folder(out: Path) -> None:
    """Results go to a folder that is new, empty, or holds earlier results of this command."""
    is_ours = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    is_ours = is_ours or (out / "exponents.csv").is_file()
    require(is_ours, "out", "must be empty or hold earlier results of this command", str(out))


def default_folder(config: Config) -> Path:
    """``runs/exponents/NAMES-HASH``: other sources or settings, other folder."""
    sources = [*config.runs, *([config.csv] if config.csv else [])]
    settings = repr([path.resolve() for path in sources]) + repr((config.num_test, config.window))
    digest = hashlib.sha256(f"{settings}{config.ci_level}".encode()).hexdigest()[:8]
    return Path("runs/exponents") / "-".join([sources[0].resolve().stem, str(len(sources)), digest])


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value


PRESETS = {"default": Config()}

if __name__ == "__main__":
    cli.main(
        run,
        PRESETS,
        prog="python -m experiments.error_law",
        when_stopped="nothing was written",
    )
