"""What limits a result: a kind and one line, when, and only when, the data say so.

In: `RunTables`. Out: `Caveat`s. Thresholds: 5 % for curvature, one point of accuracy, the interval
for everything else.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from imp_rg.report.lead import lead_nulls
from imp_rg.report.words import block_list, count_text, level_list, percent_text
from imp_rg.rg.estimate import Estimate, number_text
from imp_rg.runs.run_tables import RunTables

FEW_SEEDS = 5
REJECTION_LEVEL = 0.05
LOST_POINTS = 1.0
MANY_BLOCKS = 10

Kind = Literal[
    "one checkpoint",
    "no rewind weights",
    "first level pruned",
    "stopped",
    "collapsed",
    "no interval",
    "few seeds",
    "no exponent",
    "as null",
    "curvature",
    "untested",
    "window",
    "no window",
    "lost accuracy",
    "saturated",
    "many blocks",
    "many pairs",
    "control",
    "excess",
    "loose",
    "profile",
    "densities",
    "run",
]


class Caveat(NamedTuple):
    """One limit of a result.

    Attributes:
      kind: Which.
      text: What the reader should know, with its number.
    """

    kind: Kind
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def caveats(tables: RunTables) -> list[Caveat]:
    """All limits that hold for a run, the gravest first. House definition."""
    finders = (_origin, _replicates, _seeds, _exponents, _nulls, _curvature, _windows, _accuracy)
    found = [caveat for finder in finders for caveat in finder(tables)]
    num = len(tables.listed())
    if num >= MANY_BLOCKS and tables.num_complete_seeds > 1:
        missed = num * (1 - tables.ci_level)
        text = f"{num} intervals, of which about {missed:.1f} miss by chance; none is corrected."
        found.append(Caveat("many blocks", text))
    return found


def _origin(tables: RunTables) -> Iterator[Caveat]:
    """What a run that was read from other code's files cannot know."""
    if "source" not in tables.config:
        return
    if tables.config["kind"] == "single":
        text = "its weights are pruned once to each density, not retrained: no iterative pruning."
        yield Caveat("one checkpoint", text)
    elif "sigma_init" not in tables.spectrum:
        text = "none in the files, so no init null; gaussian stands for it, with trained scales."
        yield Caveat("no rewind weights", text)
    if tables.density[0] < 1 - 1e-3:
        kept = percent_text(tables.density[0])
        yield Caveat("first level pruned", f"to density {kept}; nulls start from what it keeps.")


def _replicates(tables: RunTables) -> Iterator[Caveat]:
    status = tables.metrics["status"].astype(str)
    for seed, rows in tables.metrics[status.str.startswith("non-finite")].groupby("seed"):
        text = f"seed {seed} met a non-finite loss at level {rows['level'].min()}; it is left out."
        yield Caveat("stopped", text)
    for seed, rows in tables.metrics[status.str.startswith("collapsed")].groupby("seed"):
        by_level = rows.sort_values("level").to_dict("records")
        first, layers = by_level[0], by_level[-1]["status"].removeprefix("collapsed: ")
        yield Caveat(
            "collapsed",
            f"seed {seed} has no weight left in {layers}, from level {first['level']} on (density "
            f"{percent_text(first['density'])}).",
        )


def _seeds(tables: RunTables) -> Iterator[Caveat]:
    num = tables.num_complete_seeds
    if num <= 1:
        who = "one seed" if num == 1 else "no seed"
        yield Caveat("no interval", f"{who} reached the last level; no class, no curvature test.")
    elif num < FEW_SEEDS:
        at = 0.5 + tables.ci_level / 2
        yield Caveat(
            "few seeds",
            f"{num}, so intervals reach {stats.t.ppf(at, num - 1):.2f} standard errors "
            f"({stats.norm.ppf(at):.2f} with many seeds) and small effects go unseen.",
        )


def _exponents(tables: RunTables) -> Iterator[Caveat]:
    rows = tables.exponents()
    missing = rows.loc[rows["sigma"].isna(), "block"]
    if len(missing):
        text = f"for {block_list(missing)}: in every seed the share vanishes at some level."
        yield Caveat("no exponent", text)


def _nulls(tables: RunTables) -> Iterator[Caveat]:
    rows = tables.listed()
    for null in lead_nulls(rows):
        low, high = (rows[f"excess_{null}_{end}"].to_numpy(float) for end in ("low", "high"))
        is_as = np.isfinite(low) & ~np.asarray(Estimate(np.nan, low, high).excludes())
        if is_as.any():
            yield Caveat(
                "as null",
                f"sigma cannot be told from the {null} null in "
                f"{count_text(int(is_as.sum()), 'block')} of {len(rows)} "
                f"({block_list(rows.loc[is_as, 'block'])}).",
            )


def _curvature(tables: RunTables) -> Iterator[Caveat]:
    rows = tables.listed()
    p = rows["curvature_p"].to_numpy(float)
    curved, untested = rows.loc[p < REJECTION_LEVEL, "block"], rows.loc[np.isnan(p), "block"]
    if len(curved):
        yield Caveat(
            "curvature",
            f"no pure exponential in {count_text(len(curved), 'block')} of {len(rows)} "
            f"({block_list(curved)}; {REJECTION_LEVEL * len(rows):.1f} expected by chance): see "
            "the running exponents.",
        )
    if len(untested) and tables.num_complete_seeds > 1:
        text = f"{block_list(untested)}: curvature needs three levels with a share above zero."
        yield Caveat("untested", text)


def _windows(tables: RunTables) -> Iterator[Caveat]:
    rows = tables.listed()
    if rows["curvature_p"].isna().all() and rows["window_first"].isna().all():
        return
    last = len(tables.density) - 1
    is_whole = (rows["window_first"] == 0) & (rows["window_last"] == last)
    part = rows[~is_whole & rows["window_first"].notna()]
    if len(part):
        texts = [
            f"{r['block']} levels {r['window_first']:.0f} to {r['window_last']:.0f} "
            f"({number_text(r['window_sigma'])} there, {number_text(r['sigma'])} over all)"
            for r in part.to_dict("records")
        ]
        text = f"selected on these same data, so biased to look exponential: {'; '.join(texts)}."
        yield Caveat("window", text)
    none = rows.loc[rows["window_first"].isna(), "block"]
    if len(none):
        yield Caveat("no window", f"no five levels look exponential in {block_list(none)}.")


def mean_metric(tables: RunTables) -> np.ndarray:
    """Test metric in percent by level, mean over the seeds that reached every level."""
    values = tables.metrics.pivot(index="seed", columns="level", values="test_metric")
    complete = values.dropna()
    return complete.mean().to_numpy(float) if len(complete) else np.full(values.shape[1], np.nan)


def _accuracy(tables: RunTables) -> Iterator[Caveat]:
    metric = mean_metric(tables)
    if np.isnan(metric).any():
        return
    loss = metric[0] - metric
    lost = np.flatnonzero(loss > LOST_POINTS)
    name = str(tables.config.get("metric", "test metric (%)")).removesuffix(" (%)")
    if len(lost):
        yield Caveat(
            "lost accuracy",
            f"{name} is more than {LOST_POINTS:g} point below dense ({metric[0]:.1f} %) at "
            f"{'level' if len(lost) == 1 else 'levels'} {level_list(lost.tolist())}, by "
            f"{loss.max():.1f} at most: these networks are harmed.",
        )
    else:
        yield Caveat(
            "saturated",
            f"{name} stays within {LOST_POINTS:g} point of dense ({metric[0]:.1f} %) down to "
            f"{percent_text(tables.density[-1])}: the flow ends before pruning hurts.",
        )
