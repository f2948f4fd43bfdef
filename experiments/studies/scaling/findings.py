"""Errors of many networks as tables and arrays, the joint law and the collapses as tables.

In: run folders by width and depth. Out: ``points.csv``, ``joint_law.csv``, ``joint_fit.csv``,
``collapses.csv``.
"""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imp_rg.config import require
from imp_rg.rg import JointLaw, collapse, fit_joint_law
from imp_rg.runs.files import read_csv, read_json, write_csv

HELD = ("x_c", "zeta")

ABOVE_PLATEAU = 3.0
"""A collapse uses errors this many times the dense one: plateaus differ between networks."""


def write_tables(folder: Path, runs: Mapping[tuple[float, int], Path], *, ci_level: float) -> None:
    """Fits the finished runs, by width and depth, and writes every table."""
    points = points_frame(runs)
    density, errors, width, depth = joint_arrays(points)
    num_test = read_json(next(iter(runs.values())) / "config.json")["num_test"]
    law = fit_joint_law(density, errors, width, depth, num_test=num_test, ci_level=ci_level)
    columns = (points[name].to_numpy(float) for name in ("density", "width", "depth"))
    points["m"] = law.invariant(*columns)
    write_csv(folder / "points.csv", points)
    write_csv(folder / "joint_law.csv", joint_frame(law))
    write_csv(folder / "joint_fit.csv", fit_frame(law))
    write_csv(folder / "collapses.csv", collapse_frame(points))


def points_frame(runs: Mapping[tuple[float, int], Path]) -> pd.DataFrame:
    """Error of every network, seed and level: width, depth, seed, level, density, error.

    Seeds that did not reach the last level of every network are left out.

    Raises:
      ValueError: If no seed is left.
    """
    frames = []
    for (width, depth), folder in runs.items():
        metrics = read_csv(folder / "metrics.csv")
        metrics = metrics.assign(width=width, depth=depth, error=100 - metrics["test_metric"])
        frames.append(metrics[["width", "depth", "seed", "level", "density", "error"]])
    points = pd.concat(frames, ignore_index=True).dropna()
    counts = points.groupby("seed").size()
    whole = counts[counts == len(runs) * (points["level"].max() + 1)].index
    require(len(whole) > 0, "seeds", "one must reach the last level of every network", 0)
    return points[points["seed"].isin(whole)].reset_index(drop=True)


def joint_arrays(points: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Density [point], errors [seed point], width and depth [point] of `fit_joint_law`."""
    table = points.pivot(
        index="seed", columns=["width", "depth", "level", "density"], values="error"
    )
    width, depth, _, density = np.array(table.columns.to_list(), float).T
    return density, table.to_numpy(float), width, depth


def joint_frame(law: JointLaw) -> pd.DataFrame:
    """One row a parameter: value, low, high (NaN without interval)."""
    none = np.nan, np.nan
    shared = [("phi", law.phi, *law.phi_ci), ("psi", law.psi, *law.psi_ci)]
    shared += [("gamma", law.gamma, *law.gamma_ci), ("p", law.p, *none), ("e_up", law.e_up, *none)]
    plateaus = [
        (f"e_np, width {width:g}, depth {depth:g}", e_np, *none)
        for width, depth, e_np in zip(law.width, law.depth, law.e_np, strict=True)
    ]
    return pd.DataFrame([*shared, *plateaus], columns=["parameter", "value", "low", "high"])


def fit_frame(law: JointLaw) -> pd.DataFrame:
    """How well the law fits, in one row.

    Columns: identified, reasons (why not), num_in_window, and of the deviations of fitted from
    measured errors in percent deviation_mean, deviation_sd, num_deviations.
    """
    deviation = 100 * law.deviation[np.isfinite(law.deviation)]
    row = {
        "identified": law.identified,
        "reasons": "; ".join(law.reasons),
        "num_in_window": law.num_in_window,
        "deviation_mean": deviation.mean(),
        "deviation_sd": deviation.std(),
        "num_deviations": deviation.size,
    }
    return pd.DataFrame([row])


def collapse_frame(points: pd.DataFrame) -> pd.DataFrame:
    """Exponent of one size with the other held, from the collapse of ln err over d L^(1/nu).

    Columns: exponent (phi or psi), held (what is held and where), value, error, quality,
    num_points, why (empty, or why there is none).
    """
    sizes = {"psi": ("width", "depth"), "phi": ("depth", "width")}
    rows = []
    for exponent, (size, held) in sizes.items():
        for place, group in points.groupby(held):
            if group[size].nunique() > 1:
                row = {"exponent": exponent, "held": f"{held} {place:g}"}
                rows.append(row | _collapse(group, size))
    return pd.DataFrame(rows)


def _collapse(points: pd.DataFrame, size: str) -> dict[str, Any]:
    """Collapse of the curves of one group of networks, above their plateaus."""
    table = points.pivot(index="seed", columns=[size, "level", "density"], values="error")
    errors = table.to_numpy(float)
    sizes, levels, density = np.array(table.columns.to_list(), float).T
    mean = errors.mean(axis=0)
    plateau = np.array([max(mean[(sizes == s) & (levels < 3)].mean(), 1e-9) for s in sizes])
    is_used = (errors > 0).all(axis=0) & (mean > ABOVE_PLATEAU * plateau)
    none = {"value": np.nan, "error": np.nan, "quality": np.nan, "num_points": 0}
    if len(errors) < 2:
        return none | {"why": "one seed has no error bar"}
    if not is_used.any():
        return none | {"why": "no error rises above the plateau"}
    logs = np.log(errors[:, is_used])
    # One scatter for all: that of two or three seeds at one density is no error bar.
    scatter = np.sqrt(np.mean(logs.var(axis=0, ddof=1)))
    y_err = np.full(logs.shape[1], scatter / np.sqrt(len(errors)))
    curves = density[is_used], logs.mean(axis=0), y_err
    try:
        sign, nu = _best_start(curves, sizes[is_used])
        scale = sizes[is_used] ** sign
        found = collapse(*curves, scale, start=(0.0, nu, 0.0), hold=HELD, samples=logs)
    except ValueError as error:
        return none | {"why": str(error)}
    return {
        "value": sign / found.nu,
        "error": found.nu_error / found.nu**2,
        "quality": found.quality,
        "num_points": found.num_points,
        "why": "",
    }


def _best_start(
    curves: tuple[np.ndarray, np.ndarray, np.ndarray], sizes: np.ndarray
) -> tuple[int, float]:
    """Sign of the exponent and nu of the best of several collapses.

    A collapse knows positive exponents only: a negative one is a positive one of 1 / L.

    Raises:
      ValueError: If the curves overlap at no start.
    """
    found, complaint = [], ValueError()
    for sign, nu in product((1, -1), (0.4, 0.7, 1.2, 3.0)):
        try:
            best = collapse(*curves, sizes**sign, start=(0.0, nu, 0.0), hold=HELD)
        except ValueError as error:
            complaint = error
        else:
            found.append((best.quality, sign, best.nu))
    if not found:
        raise complaint
    _, sign, nu = min(found)
    return sign, nu
