"""Error curves and the law of Eq. 15 fitted to them.

In: run folders, or a table of density and error. Out: ``exponents.csv``, one row per curve,
``curves.csv``, the errors beside the law, and ``config.json``.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from experiments.studies.error_law.config import Config
from imp_rg.config import require
from imp_rg.rg import ErrorLaw, fit_error_law, fit_power_law, predict_held_out
from imp_rg.rg.error_law import MIN_DENSITIES
from imp_rg.runs.files import read_json, write_csv, write_json

ACCURACY = "test accuracy (%)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ErrorCurve:
    """Errors of one task against density.

    Attributes:
      name: Of the task.
      dataset: What it is trained on.
      density: Kept fraction.
      errors: In percent.
      num_test: How many test examples stand behind each error; None if it is not known.
    """

    name: str
    dataset: str
    density: Float[np.ndarray, " level"]
    errors: Float[np.ndarray, "seed level"]
    num_test: int | None


def read_curves(config: Config) -> Iterator[ErrorCurve]:
    """The curves of all run folders and of the CSV."""
    names = [path.resolve().name for path in config.runs]
    for path, name in zip(config.runs, names, strict=True):
        yield read_run(path, name if names.count(name) == 1 else str(path))
    if config.csv is not None:
        yield from _read_csv(config.csv, config.num_test)


def read_run(path: Path, name: str) -> ErrorCurve:
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
    return ErrorCurve(
        name=name,
        dataset=str(settings.get("dataset", name)),
        density=density,
        errors=100 - accuracy.to_numpy(float),
        num_test=settings.get("num_test"),
    )


def _read_csv(path: Path, num_test: int | None) -> Iterator[ErrorCurve]:
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
        yield ErrorCurve(
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


def fit_curves(curves: Sequence[ErrorCurve], config: Config) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fits every curve; returns the rows of ``exponents.csv`` and of ``curves.csv``."""
    rows, fitted = zip(*(_fit(curve, config) for curve in curves), strict=True)
    return pd.DataFrame(rows), pd.concat(fitted)


def write_results(out: Path, config: Config, table: pd.DataFrame, fitted: pd.DataFrame) -> None:
    """Writes settings and tables."""
    settings = dataclasses.asdict(config) | {"tasks": table["task"].to_list()}
    write_json(out / "config.json", {name: _json(value) for name, value in settings.items()})
    write_csv(out / "exponents.csv", table)
    write_csv(out / "curves.csv", fitted)


def _fit(curve: ErrorCurve, config: Config) -> tuple[dict[str, Any], pd.DataFrame]:
    """The row of a curve, and its errors beside the law."""
    density, errors, num_test = curve.density, curve.errors, curve.num_test
    try:
        law = fit_error_law(density, errors, num_test=num_test, ci_level=config.ci_level)
        row = _row(curve, law)
        row["held_out_rms"] = _held_out_rms(curve)
        if config.window is not None:
            power = fit_power_law(density, errors, window=config.window, ci_level=config.ci_level)
            low, high = power.gamma_ci
            row |= {"eq1_gamma": power.gamma, "eq1_gamma_low": low, "eq1_gamma_high": high}
    except ValueError as error:
        raise ValueError(f"{curve.name}: {error}") from error
    return row, _beside_law(curve, law)


def _row(curve: ErrorCurve, law: ErrorLaw) -> dict[str, Any]:
    paper = law.in_paper_gauge()
    return {
        "task": curve.name,
        "dataset": curve.dataset,
        "num_seeds": len(curve.errors),
        "num_densities": curve.density.size,
        "num_test": curve.num_test,
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


def _held_out_rms(curve: ErrorCurve) -> float:
    """Error in points of every third density, predicted from the others; NaN if too few."""
    is_held_out = np.arange(curve.density.size) % 3 == 1
    if np.sum(~is_held_out) < MIN_DENSITIES:
        return float("nan")
    held = predict_held_out(
        curve.density, curve.errors, is_held_out=is_held_out, num_test=curve.num_test
    )
    return held.rms


def _beside_law(curve: ErrorCurve, law: ErrorLaw) -> pd.DataFrame:
    num_seeds, num_levels = curve.errors.shape
    return pd.DataFrame(
        {
            "task": curve.name,
            "seed": np.repeat(np.arange(num_seeds), num_levels),
            "density": np.tile(curve.density, num_seeds),
            "error": curve.errors.ravel(),
            "fitted": np.tile(law.error_at(curve.density), num_seeds),
        }
    )


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value
