"""The linear flow of a run and of its nulls, and what it says.

In: a `Flow`. Out: ``linear.csv`` (every fitted number), ``shares.csv`` (what was fitted),
``findings.json`` (verdicts as words of fixed sets, and what limits them).
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from experiments.studies.linear.groups import group_blocks, group_shares
from imp_rg.config import require
from imp_rg.report.lead import LEAD_NULLS
from imp_rg.rg import FittedFlow, LinearFlow, fit_linear_flow
from imp_rg.rg.estimate import Estimate
from imp_rg.runs import Flow
from imp_rg.runs.files import read_csv, write_csv, write_json

TRAINED = "trained"

MISFIT = 3.0
"""Standard errors of the mean of the seeds beyond which the fitted flow misses it."""

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

Stability = Literal["attracting", "repelling", "a saddle", "of open stability"]
BesideNull = Literal["no null", "unknown", "as", "apart"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearResult:
    """Fits of one run.

    Attributes:
      flow: Of the run.
      fits: `TRAINED` first, then the nulls.
      laws: What was fitted, with intervals.
      members: Names of the blocks of each group.
    """

    flow: Flow
    fits: dict[str, FittedFlow]
    laws: dict[str, LinearFlow]
    members: dict[str, list[str]]


def fit_run(flow: Flow, group: str, *, without_rest: bool, ci_level: float) -> LinearResult:
    """The linear flow of the trained weights and of every null that has a complete seed.

    Args:
      flow: Of the run.
      group: As of `group_blocks`.
      without_rest: As of `group_blocks`.
      ci_level: Coverage of the intervals.

    Raises:
      ValueError: If the groups are not understood, or the run has too little.
    """
    trajectory = flow.trajectory
    names, num_levels = trajectory.blocks.names, len(trajectory.num_kept)
    groups = group_blocks(names, group, without_rest=without_rest)
    require(num_levels >= 2, "run", f"{flow.name} must hold at least two levels", num_levels)
    elapsed = -np.log(trajectory.density / trajectory.density[0])
    fits, laws = {}, {}
    for name, point in {TRAINED: trajectory.points[TRAINED], **trajectory.nulls}.items():
        shares = group_shares(np.asarray(point.magnitude_share, float), groups)
        if len(shares):
            law = fit_linear_flow(shares, trajectory.scale_factor, ci_level=ci_level)
            fits[name] = FittedFlow(tuple(groups), elapsed, shares, law.b, law.G, law.fixed_point)
            laws[name] = law
    rule = f"{flow.name} must hold a seed that has every level, and weights in every group"
    require(TRAINED in fits, "run", rule, "none")
    return LinearResult(
        flow=flow,
        fits=fits,
        laws=laws,
        members={group: [names[i] for i in blocks] for group, blocks in groups.items()},
    )


def write_findings(folder: Path, result: LinearResult) -> None:
    """Writes tables and verdicts."""
    write_csv(folder / "linear.csv", linear_frame(result))
    write_csv(folder / "shares.csv", shares_frame(result.fits[TRAINED]))
    write_json(folder / "findings.json", findings(result))


def linear_frame(result: LinearResult) -> pd.DataFrame:
    """Everything that was fitted: one row a number; `source` is the run or a null."""
    rows = [
        {"source": name, **row}
        for name, fitted in result.fits.items()
        for row in _rows(fitted, result.laws[name])
    ]
    return pd.DataFrame(rows, columns=["source", "quantity", "of", "on", "value", "low", "high"])


def _rows(fitted: FittedFlow, law: LinearFlow) -> Iterator[dict[str, Any]]:
    groups, coordinates = fitted.groups, fitted.coordinates
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


def _row(quantity: str, value: float, ci: Any = (np.nan, np.nan), *, of: Any = "", on: str = ""):
    low, high = ci
    found = {"value": float(value), "low": low, "high": high}
    return {"quantity": quantity, "of": of, "on": on, **found}


def shares_frame(fitted: FittedFlow) -> pd.DataFrame:
    """Shares of the complete seeds: seed (counted), level, time, group, share."""
    seed, level, group = np.indices(fitted.shares.shape).reshape(3, -1)
    columns = {"seed": seed, "level": level, "time": fitted.time[level]}
    columns |= {"group": np.array(fitted.groups)[group], "share": fitted.shares.ravel()}
    return pd.DataFrame(columns)


def read_fit(folder: Path) -> FittedFlow:
    """The fit of the trained weights as `write_findings` left it."""
    table, shares = read_csv(folder / "linear.csv"), read_csv(folder / "shares.csv")
    table = table[table["source"] == TRAINED]
    groups = tuple(dict.fromkeys(shares["group"]))

    def values(quantity: str) -> np.ndarray:
        return table[table["quantity"] == quantity]["value"].to_numpy(float)

    return FittedFlow(
        groups=groups,
        time=shares.groupby("level")["time"].first().to_numpy(float),
        shares=shares["share"].to_numpy(float).reshape(
            shares["seed"].nunique(), -1, len(groups)
        ),
        b=values("b"),
        G=values("G").reshape(len(groups) - 1, -1),
        fixed_point=values("fixed_point"),
    )  # fmt: skip


def findings(result: LinearResult) -> dict[str, Any]:
    """Verdicts, and the facts that limit them.

    Keys: name, members, num_seeds (of the run), num_complete, is_single, reasons (why b and G are
    not identified), cross_terms_help, misfit (level, missed, error, is_misfit: where the fitted
    flow misses the mean of the seeds most), stability, outside (groups whose share at the fixed
    point was never visited), null (which), beside_null, entries_apart (entries of G told from
    zero), num_entries.
    """
    fitted, law = result.fits[TRAINED], result.laws[TRAINED]
    null = next((null for null in LEAD_NULLS if null in result.laws), None)
    is_apart = Estimate(law.G, *np.moveaxis(law.G_ci, -1, 0)).excludes()
    return {
        "name": result.flow.name,
        "members": result.members,
        "num_seeds": len(result.flow.seeds),
        "num_complete": len(fitted.shares),
        "is_single": result.flow.settings.get("kind") == "single",
        "reasons": list(law.reasons),
        "cross_terms_help": bool(law.one_step < law.one_step_diagonal),
        "misfit": misfit(fitted),
        "stability": stability(law.eigenvalues_ci),
        "outside": outside(fitted),
        "null": null,
        "beside_null": beside_null(law, result.laws[null] if null else None),
        "entries_apart": int(is_apart.sum()),
        "num_entries": is_apart.size,
    }


def misfit(fitted: FittedFlow) -> dict[str, Any] | None:
    """Where the mean of the seeds leaves the fitted flow most, beside its own standard error.

    None with one seed, which does not tell scatter from a misfit.
    """
    num_seeds = len(fitted.z)
    if num_seeds == 1:
        return None
    missed = np.linalg.norm((fitted.predicted() - fitted.z).mean(axis=0), axis=-1)
    level = int(missed.argmax())
    error = np.linalg.norm(fitted.z[:, level].std(axis=0, ddof=1)) / np.sqrt(num_seeds)
    return {
        "level": level,
        "missed": float(missed[level]),
        "error": float(error),
        "is_misfit": bool(missed[level] > MISFIT * error),
    }


def stability(ends: Float[np.ndarray, "coordinate 2"]) -> Stability:
    """What the signs of the real parts make of the fixed point, where intervals tell them."""
    low, high = ends.T
    if np.all(high < 0):
        return "attracting"
    if np.all(low > 0):
        return "repelling"
    if np.any(high < 0) and np.any(low > 0):
        return "a saddle"
    return "of open stability"


def outside(fitted: FittedFlow) -> list[str]:
    """Groups whose share at the fixed point was never visited."""
    low, high = fitted.shares.min(axis=(0, 1)), fitted.shares.max(axis=(0, 1))
    is_outside = (fitted.fixed_point < low) | (fitted.fixed_point > high)
    return [group for group, is_out in zip(fitted.groups, is_outside, strict=True) if is_out]


def beside_null(law: LinearFlow, null: LinearFlow | None) -> BesideNull:
    """Whether the eigenvalues of the run and of its null have intervals that overlap."""
    if null is None:
        return "no null"
    ours, theirs = law.eigenvalues_ci, null.eigenvalues_ci
    if not null.identified or np.isnan(ours).any() or np.isnan(theirs).any():
        return "unknown"
    do_overlap = (ours[:, 0] <= theirs[:, 1]) & (theirs[:, 0] <= ours[:, 1])
    return "as" if np.all(do_overlap) else "apart"
