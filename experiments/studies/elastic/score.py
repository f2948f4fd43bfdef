"""What moved tickets lose, and whether a mismatch of exponents foretells it.

In: trained cells, metrics of the source runs, exponents. Out: ``losses.csv`` (every cell and seed
beside the target's own ticket at the same density), ``transfer.csv`` (means with intervals),
``mismatch.csv``, ``score.csv`` and ``comparisons.csv``. Ways between depths (source, target, map)
are the replicates of a score, not seeds.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from experiments.studies.elastic.config import IDENTITY, Route
from experiments.studies.elastic.tables import Exponents, mismatch_by_stage
from imp_rg.plots.style import Frame
from imp_rg.rg import t_interval
from imp_rg.rg.ticket_transfer import is_saturated, is_within, loss_margin, rank_correlation

ROUTE = ["source_depth", "target_depth", "map", "block_map"]
MISMATCHES = ("sigma", "excess_init", "excess_oneshot", "param_share", "sigma_init")
"""Exponents whose mismatch is a predictor; the last two have learned nothing or see counts only."""

CONTROL = "depth_ratio"
CONTROLS = (CONTROL, "depth_difference")

MIN_ROUTES = 5
"""Fewest ways with a counted cell for an interval over ways."""

NUM_DRAWS = 10_000

COMPARISONS = (
    ("unique blocks", "copy-first", "appending"),
    ("unique blocks", "copy-first", "copy-first-two-twice"),
    ("unique blocks", "copy-first-two-twice", "appending"),
    ("earlier blocks copied", "copy-last", "copy-first"),
    ("earlier blocks copied", "copy-last-two", "appending"),
    ("first blocks dropped", "drop-first", "drop-last"),
    ("first blocks dropped", "drop-first", "drop-even"),
    ("order of copies", "interpolation", "appending"),
)
"""Statement, the map that it calls worse (or, for the order, no better), the other one."""


def loss_frame(cells: Frame, metrics: Mapping[int, Frame]) -> pd.DataFrame:
    """Cells beside the target's own tickets of the same seed.

    Adds `own`, the metric of the target's own tickets, linear in log-density between their levels
    (NaN outside of them); `own_density`, that of the nearest of these levels; `dense`; and `loss` =
    own - test_metric.

    Args:
      cells: ``cells.csv``.
      metrics: ``metrics.csv`` of each depth's run.
    """
    curves = {
        (depth, seed): rows.dropna(subset="test_metric").sort_values("density")
        for depth, frame in metrics.items()
        for seed, rows in frame.groupby("seed")
    }
    beside = [
        _own_tickets(curves[row.target_depth, row.seed], row.density) for row in cells.itertuples()
    ]
    own, own_density, dense = np.reshape(beside, (-1, 3)).T
    table = cells.assign(own=own, own_density=own_density, dense=dense)
    return table.assign(loss=table["own"] - table["test_metric"])


def _own_tickets(curve: Frame, density: float) -> tuple[float, float, float]:
    """Metric of own tickets at a density, density of the nearest, metric of the dense network."""
    if curve.empty:  # the seed failed at level 0
        return np.nan, np.nan, np.nan
    log_density, metric = np.log(curve["density"].to_numpy()), curve["test_metric"].to_numpy()
    at = np.log(density)
    own = np.interp(at, log_density, metric, left=np.nan, right=np.nan)
    nearest = np.exp(log_density[np.argmin(np.abs(log_density - at))])
    return float(own), float(nearest), float(metric[-1])


def transfer_frame(losses: Frame, *, ci_level: float) -> pd.DataFrame:
    """One row a way and level: means over seeds of the moved ticket and what it is compared with.

    Columns beside names and densities: ticket, own, dense, random, reinit, shuffled; `loss` (own -
    ticket), `minus_NAME` (ticket - control) with `_low` and `_high`; `margin`, `transfers` (the
    loss is within it), `saturated` (the random mask loses less than 3 points to dense), `counted`
    (not saturated, between two depths and with a loss).
    """
    rows = []
    for names, part in losses.groupby([*ROUTE, "level"]):
        by_kind = part.pivot(index="seed", columns="kind", values="test_metric")
        if "ticket" not in by_kind:
            continue
        ticket = part[part["kind"] == "ticket"].set_index("seed")
        row: dict[str, Any] = dict(zip([*ROUTE, "level"], names, strict=True))
        densities = [name for name in part if name.startswith("density") or name == "own_density"]
        row |= ticket[densities].mean().to_dict()
        row |= {name: ticket[name].mean() for name in ("own", "dense")} | by_kind.mean().to_dict()
        row |= _interval("loss", ticket["loss"], ci_level)
        for name in by_kind.columns.drop("ticket"):
            row |= _interval(f"minus_{name}", by_kind["ticket"] - by_kind[name], ci_level)
        random_minus_dense = row.get("random", np.nan) - row["dense"]
        margin = loss_margin(ticket["own"].to_numpy())
        row["margin"] = float(margin)
        row["transfers"] = bool(is_within(-row["loss"], margin))
        row["saturated"] = bool(is_saturated(random_minus_dense))
        is_known = np.isfinite(row["loss"] + random_minus_dense)
        is_moved = row["source_depth"] != row["target_depth"]
        row["counted"] = bool(is_moved and is_known and not row["saturated"])
        rows.append(row)
    return pd.DataFrame(rows)


def mismatch_frame(
    routes: Sequence[Route], read: Mapping[int, Exponents], whole: Mapping[int, Exponents]
) -> pd.DataFrame:
    """Predictors of every way between two depths: root mean square over stages of the mismatch.

    Args:
      routes: Ways; those that stay at one depth are left out.
      read: Exponents of each depth, of the levels they are read from.
      whole: The same of all levels, for the predictor `sigma_all_levels`.
    """

    def mismatch(route: Route, exponents: Mapping[int, Exponents], quantity: str) -> float:
        source, target = (exponents[depth].profile(quantity) for depth in route[:2])
        return mismatch_by_stage(source, target, route.block_map)["rms"]

    rows = []
    for route in routes:
        if route.name == IDENTITY:
            continue
        source, target, name, block_map = route
        row: dict[str, Any] = dict(zip(ROUTE, (source, target, name, str(block_map)), strict=True))
        row |= {quantity: mismatch(route, read, quantity) for quantity in MISMATCHES}
        row["sigma_all_levels"] = mismatch(route, whole, "sigma")
        row["depth_ratio"] = math.log(max(source, target) / min(source, target))
        row["depth_difference"] = abs(target - source)
        rows.append(row)
    return pd.DataFrame(rows)


class Score(NamedTuple):
    """How well one predictor orders the ways between depths by what their tickets lose.

    Attributes:
      spearman: Rank correlation over the ways, at each level, averaged over levels.
      p_value: Chance of one as large if losses are dealt to the ways at random, one-sided.
      num_routes: Ways with a counted cell.
      num_cells: Counted cells.
      difference: `spearman` minus that of the control, the ratio of depths.
      low: Lower end of its 95 % bootstrap interval over ways.
      high: Upper end.
      verdict: "no power" where the interval holds 0 or there are too few ways.
      agree: Pairs of maps between the same depths, at the same level, ordered as their losses are.
      pairs: Pairs that the predictor orders at all.
    """

    spearman: float
    p_value: float
    num_routes: int
    num_cells: int
    difference: float
    low: float
    high: float
    verdict: str
    agree: int
    pairs: int


def score_frame(mismatches: Frame, transfer: Frame, *, seed: int) -> pd.DataFrame:
    """`Score` of every predictor, the controls among them."""
    counted = transfer.assign(loss=transfer["loss"].where(transfer["counted"]))
    loss = counted.pivot(index="level", columns=ROUTE, values="loss")
    loss = loss.reindex(columns=pd.MultiIndex.from_frame(mismatches[ROUTE])).to_numpy(float)
    group = mismatches.groupby(ROUTE[:2]).ngroup().to_numpy()
    control = mismatches[CONTROL].to_numpy(float)
    names = [name for name in mismatches if name not in ROUTE]
    scores = [
        score_routes(mismatches[name].to_numpy(float), loss, control, group, seed=seed)
        for name in names
    ]
    return pd.DataFrame(scores, columns=Score._fields).assign(predictor=names)


def score_routes(
    x: Float[np.ndarray, " route"],
    loss: Float[np.ndarray, "level route"],
    control: Float[np.ndarray, " route"],
    group: np.ndarray,
    *,
    seed: int,
) -> Score:
    """Scores one predictor.

    Args:
      x: The predictor.
      loss: Points lost; NaN where a cell does not count.
      control: What it must beat.
      group: Number of the pair of depths of each way.
      seed: Of permutations and bootstrap.

    Returns:
      The score; NaN where nothing can be correlated.

    References:
      House definition, after `imp_rg.rg.prediction`.
    """
    rng = np.random.default_rng(seed)
    is_used = np.isfinite(x) & np.isfinite(loss).any(axis=0)
    num = len(x)
    orders = np.concatenate([np.arange(num)[None], rng.random((NUM_DRAWS, num)).argsort(axis=1)])
    found = _by_level(x[orders], loss)
    p_value = np.nan
    if np.isfinite(found[0]):
        p_value = float(np.mean(np.nan_to_num(found) >= found[0] - 1e-12))
    actual = np.arange(num)[None]
    drawn = np.concatenate([actual, rng.integers(0, num, (NUM_DRAWS, num))])
    resampled = loss[:, drawn]
    difference = _by_level(x[drawn], resampled) - _by_level(control[drawn], resampled)
    low, high = np.nan, np.nan
    if is_used.sum() >= MIN_ROUTES and np.isfinite(difference[1:]).mean() > 0.5:
        low, high = np.nanquantile(difference[1:], [0.025, 0.975])
    verdict = "no power"
    if low > 0 or high < 0:
        verdict = "beats the ratio of depths" if low > 0 else "loses to the ratio of depths"
    agree, pairs = _agreement(x, loss, group)
    return Score(
        spearman=float(found[0]),
        p_value=p_value,
        num_routes=int(is_used.sum()),
        num_cells=int(np.isfinite(loss[:, is_used]).sum()),
        difference=float(difference[0]),
        low=float(low),
        high=float(high),
        verdict=verdict,
        agree=agree,
        pairs=pairs,
    )


def compare_frame(losses: Frame, transfer: Frame, *, ci_level: float) -> pd.DataFrame:
    """Maps against each other: points the first loses more, seed by seed, over counted levels.

    Columns: statement, source_depth, target_depth, worse, better, num_levels, mean, low, high.
    """
    tickets = losses[losses["kind"] == "ticket"]
    counted = transfer[transfer["counted"]]
    rows = []
    for (source, target), part in counted.groupby(["source_depth", "target_depth"]):
        for statement, worse, better in COMPARISONS:
            levels = [set(part.loc[part["map"] == name, "level"]) for name in (worse, better)]
            both = sorted(levels[0] & levels[1])
            if not both:
                continue
            is_way = (tickets["source_depth"] == source) & (tickets["target_depth"] == target)
            table = tickets[is_way & tickets["level"].isin(both)]
            table = table.pivot(index=["seed", "level"], columns="map", values="loss")
            more = (table[worse] - table[better]).groupby("seed").mean()
            names = {"source_depth": source, "target_depth": target, "worse": worse}
            row = {"statement": statement, **names, "better": better, "num_levels": len(both)}
            rows.append(row | _interval("mean", more, ci_level))
    return pd.DataFrame(rows)


def _interval(name: str, values: pd.Series, ci_level: float) -> dict[str, float]:
    found = t_interval(values.to_numpy(float), ci_level=ci_level)
    return {name: float(found.mean), f"{name}_low": float(found.low),
            f"{name}_high": float(found.high)}  # fmt: skip


def _by_level(x: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Rank correlation at each level, averaged over the levels where there is one."""
    found = np.stack([rank_correlation(x, of_level) for of_level in loss])
    is_known = np.isfinite(found)
    total = np.where(is_known, found, 0).sum(axis=0)
    return np.where(is_known.any(axis=0), total / np.maximum(is_known.sum(axis=0), 1), np.nan)


def _agreement(x: np.ndarray, loss: np.ndarray, group: np.ndarray) -> tuple[int, int]:
    """Pairs of maps between the same depths, whose losses are ordered as the predictor says."""
    agree = pairs = 0
    for i, j in combinations(range(len(x)), 2):
        if group[i] != group[j] or not abs(x[i] - x[j]) > 0:
            continue
        order = (loss[:, i] - loss[:, j]) * np.sign(x[i] - x[j])
        pairs += int(np.isfinite(order).sum())
        agree += int((order > 0).sum())
    return agree, pairs
