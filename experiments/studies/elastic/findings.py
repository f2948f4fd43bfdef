"""What moved tickets lose, and whether a mismatch of exponents foretells it.

In: trained networks, metrics of the source runs, exponents. Out: ``losses.csv`` (every training and
seed beside the target's own ticket at the same density), ``transfer.csv`` (means with intervals),
``mismatch.csv``, ``score.csv``, ``comparisons.csv``, and what they add up to. Routes (source,
target, map) are the replicates of a score, not seeds.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.studies.elastic.config import DEFAULT_MAPS, IDENTITY, Config, Route
from experiments.studies.elastic.exponents import (
    Exponents,
    mismatch_by_stage,
    paper_frame,
    read_exponents,
    sigma_frame,
    spread_differences,
    spread_frame,
)
from experiments.studies.elastic.run import ABOUT, KEY, Training
from imp_rg.rg.estimate import Estimate, summarise
from imp_rg.rg.prediction import RouteScore, score_routes
from imp_rg.rg.ticket_transfer import is_saturated, is_within, loss_margin
from imp_rg.runs import read
from imp_rg.runs.files import read_csv, write_csv

ROUTE = ["source_depth", "target_depth", "map", "block_map"]
MISMATCHES = ("sigma", "excess_init", "excess_oneshot", "param_share", "sigma_init")
"""Exponents whose mismatch is a predictor; the last two have learned nothing or see counts only."""

CONTROL = "depth_ratio"

AGAINST_CONTROL = {
    "above": "beats the ratio of depths",
    "below": "loses to the ratio of depths",
    "as": "no power",
    "unknown": "no power",
}
CAME_OUT = {"above": "worse", "below": "better", "as": "not told apart", "unknown": "no interval"}

STATEMENTS = {
    "unique blocks": ((32, 56), "32 to 56, four against two and one unique block"),
    "earlier blocks copied": ((32, 44), "32 to 44, the last two blocks copied"),
    "first blocks dropped": ((56, 32), "56 to 32, the first four blocks dropped"),
}
"""Depths that the study's own test of a statement needs, and that test."""

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


def write_findings(config: Config, folder: Path, planned: Sequence[Training]) -> None:
    """Writes every table; of ``cells.csv`` what was asked for counts.

    Args:
      config: Settings.
      folder: With ``cells.csv`` and the run of each depth.
      planned: All trainings that were asked for.
    """
    ci_level = config.ci_level
    flows = {depth: read(folder / f"depth{depth}") for depth in config.depths}
    exponents = {
        level: {depth: read_exponents(flow, depth, last_level=level)
                for depth, flow in flows.items()}
        for level in dict.fromkeys((config.sigma_levels, config.levels))
    }  # fmt: skip
    shown = [found for of_level in exponents.values() for found in of_level.values()]
    trained, wanted = read_csv(folder / "cells.csv"), {training.key for training in planned}
    is_wanted = [key in wanted for key in trained[KEY].itertuples(index=False, name=None)]
    losses = loss_frame(trained[is_wanted], {depth: flow.metrics for depth, flow in flows.items()})
    transfer = transfer_frame(losses, ci_level=ci_level)
    routes = list(dict.fromkeys(training.route for training in planned))
    read_from, all_levels = exponents[config.sigma_levels], exponents[config.levels]
    mismatch = mismatch_frame(routes, read_from, all_levels)
    tables = {
        "sigma": sigma_frame(shown, ci_level=ci_level),
        "spread": spread_frame(shown, ci_level=ci_level),
        "spread_differences": spread_differences(shown, ci_level=ci_level),
        "losses": losses,
        "transfer": transfer,
        "mismatch": mismatch,
        "score": score_frame(mismatch, transfer),
        "comparisons": compare_frame(losses, transfer, ci_level=ci_level),
        "paper_mismatch": paper_frame(),
    }
    for name, table in tables.items():
        path = folder / f"{name}.csv"
        if len(table):
            write_csv(path, table)
        else:  # what an earlier start asked for
            path.unlink(missing_ok=True)


def loss_frame(trained: pd.DataFrame, metrics: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Trainings beside the target's own tickets of the same seed.

    Adds `own`, the metric of the target's own tickets, linear in log-density between their levels
    (NaN outside of them); `own_density`, that of the nearest of these levels; `dense`; and `loss` =
    own - test_metric.

    Args:
      trained: ``cells.csv``.
      metrics: ``metrics.csv`` of each depth's run.
    """
    curves = {
        (depth, seed): rows.dropna(subset="test_metric").sort_values("density")
        for depth, frame in metrics.items()
        for seed, rows in frame.groupby("seed")
    }
    names = trained[["target_depth", "seed", "density"]].itertuples(index=False, name=None)
    beside = [_own_tickets(curves[depth, seed], density) for depth, seed, density in names]
    own, own_density, dense = np.reshape(beside, (-1, 3)).T
    table = trained.assign(own=own, own_density=own_density, dense=dense)
    return table.assign(loss=table["own"] - table["test_metric"])


def _own_tickets(curve: pd.DataFrame, density: float) -> tuple[float, float, float]:
    """Metric of own tickets at a density, density of the nearest, metric of the dense network."""
    if curve.empty:  # the seed failed at level 0
        return np.nan, np.nan, np.nan
    log_density, metric = np.log(curve["density"].to_numpy()), curve["test_metric"].to_numpy()
    at = np.log(density)
    own = np.interp(at, log_density, metric, left=np.nan, right=np.nan)
    nearest = np.exp(log_density[np.argmin(np.abs(log_density - at))])
    return float(own), float(nearest), float(metric[-1])


def transfer_frame(losses: pd.DataFrame, *, ci_level: float) -> pd.DataFrame:
    """One row per route and level: means over seeds of the moved ticket and of what is beside it.

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
        row: dict[Any, Any] = dict(zip([*ROUTE, "level"], names, strict=True))
        densities = [name for name in ABOUT if name.startswith("density")] + ["own_density"]
        row |= ticket[densities].mean().to_dict()
        row |= {name: ticket[name].mean() for name in ("own", "dense")} | by_kind.mean().to_dict()
        row |= _over_seeds(ticket["loss"], ci_level).columns("loss")
        for name in by_kind.columns.drop("ticket"):
            difference = by_kind["ticket"] - by_kind[name]
            row |= _over_seeds(difference, ci_level).columns(f"minus_{name}")
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
    """Predictors of every route between two depths: root mean square over stages of the mismatch.

    Args:
      routes: Those that stay at one depth are left out.
      read: Exponents of each depth, of the levels they are read from.
      whole: Exponents of all levels, for the predictor `sigma_all_levels`.
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


def score_frame(mismatches: pd.DataFrame, transfer: pd.DataFrame) -> pd.DataFrame:
    """`RouteScore` of every predictor, the controls among them, and its verdict."""
    counted = transfer.assign(loss=transfer["loss"].where(transfer["counted"]))
    loss = counted.pivot(index="level", columns=ROUTE, values="loss")
    loss = loss.reindex(columns=pd.MultiIndex.from_frame(mismatches[ROUTE])).to_numpy(float)
    group = mismatches.groupby(ROUTE[:2]).ngroup().to_numpy()
    control = mismatches[CONTROL].to_numpy(float)
    rows = []
    for name in mismatches.columns.drop(ROUTE):
        score = score_routes(mismatches[name].to_numpy(float), loss, control=control, group=group)
        side = Estimate(score.difference, score.low, score.high).side()
        rows.append(score._asdict() | {"verdict": AGAINST_CONTROL[side], "predictor": name})
    return pd.DataFrame(rows)[[*RouteScore._fields[:-2], "verdict", "agree", "pairs", "predictor"]]


def compare_frame(losses: pd.DataFrame, transfer: pd.DataFrame, *, ci_level: float) -> pd.DataFrame:
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
            is_route = (tickets["source_depth"] == source) & (tickets["target_depth"] == target)
            table = tickets[is_route & tickets["level"].isin(both)]
            table = table.pivot(index=["seed", "level"], columns="map", values="loss")
            more = (table[worse] - table[better]).groupby("seed").mean()
            names = {"source_depth": source, "target_depth": target, "worse": worse}
            row = {"statement": statement, **names, "better": better, "num_levels": len(both)}
            rows.append(row | _over_seeds(more, ci_level).columns("mean"))
    return pd.DataFrame(rows)


def _over_seeds(values: pd.Series, ci_level: float) -> Estimate:
    return summarise(values.to_numpy(float), ci_level=ci_level)


def tally_moved(transfer: pd.DataFrame) -> dict[str, int]:
    """What became of the tickets that the default maps move to another depth.

    Returns:
      Numbers of routes and levels: `moved`; `counted`, and of these `within` the margin of the
      target's own ticket, `above_random` and `above_reinit`: clearly better than these controls.
    """
    moved = transfer[transfer["map"].isin(DEFAULT_MAPS)]
    counted = moved[moved["counted"]]
    within = int(counted["transfers"].sum())
    lows = {name: counted.get(f"minus_{name}_low", pd.Series()) for name in ("random", "reinit")}
    above = {f"above_{name}": int((low > 0).sum()) for name, low in lows.items()}
    return {"moved": len(moved), "counted": len(counted), "within": within, **above}


def came_out(row: Mapping[Any, Any]) -> str:
    """Whether the map that a statement calls worse was worse, of `CAME_OUT`."""
    return CAME_OUT[Estimate.of(row, "mean").side()]


def tally_statement(comparisons: pd.DataFrame, statement: str) -> Counter[str]:
    """How many comparisons came out which way; empty if there is none."""
    rows = comparisons.to_dict("records")
    return Counter(came_out(row) for row in rows if row["statement"] == statement)


def untested(statement: str, depths: Sequence[int], dataset: str) -> str:
    """What of the study's own test was not run; empty if all was."""
    needed, test = STATEMENTS[statement]
    missing = [] if set(needed) <= set(depths) else [f"the study's own test ({test})"]
    if not dataset.startswith("cifar10"):
        missing.append("CIFAR-10")
    return ", ".join(missing)


def count_signs(sigma: pd.DataFrame) -> dict[str, int]:
    """In how many blocks an exponent agrees with something; ``sigma.csv``, one range of levels.

    Returns:
      `blocks` with an exponent; those with the sign `as_paper` and `as_init`; those whose excess
      over a null excludes 0, `clear_init` and `clear_oneshot`.
    """
    rows: Any = sigma[sigma["sigma"].notna()]
    agree = {
        f"as_{name}": int((np.sign(rows[column]) == np.sign(rows["sigma"])).sum())
        for name, column in (("paper", "paper"), ("init", "sigma_init"))
    }
    clear = {
        f"clear_{null}": int(Estimate.of(rows, f"excess_{null}").excludes().sum())
        for null in ("init", "oneshot")
    }
    return {"blocks": len(rows), **agree, **clear}


def paper_pairs(paper: pd.DataFrame) -> pd.DataFrame:
    """Every map found worse beside every one found better between the same depths.

    Columns: source_depth, target_depth, and map, stage1 and rms with ``_worse`` and ``_better``.
    """
    shown = paper[["source_depth", "target_depth", "expected", "map", "stage1", "rms"]]
    worse, better = (
        shown[shown["expected"] == found].drop(columns="expected") for found in ("worse", "better")
    )
    return worse.merge(better, on=["source_depth", "target_depth"], suffixes=("_worse", "_better"))
