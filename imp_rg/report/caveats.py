"""What limits a result, in words: each sentence appears when, and only when, its data say so.

In: `RunTables`. Out: `Caveat`s. Thresholds: 5 % for curvature, one point of accuracy, the interval
for everything else.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import stats

from imp_rg.report.lead import lead_nulls
from imp_rg.report.run_tables import RunTables
from imp_rg.report.words import (
    block_list,
    count_text,
    level_list,
    number_text,
    percent_text,
)

FEW_SEEDS = 5
REJECTION_LEVEL = 0.05
LOST_POINTS = 1.0
MANY_BLOCKS = 10


class Caveat(NamedTuple):
    """One limit of the result.

    Attributes:
      kind: Stable name.
      text: What the reader should know.
    """

    kind: str
    text: str


def caveats(tables: RunTables) -> list[Caveat]:
    """All limits that hold for a run, the gravest first. House definition."""
    finders = (
        _origin,
        _replicates,
        _seeds,
        _exponents,
        _excess,
        _curvature,
        _untested,
        _windows,
        _accuracy,
        _many,
    )
    return [caveat for finder in finders for caveat in finder(tables)]


def _origin(tables: RunTables) -> Iterator[Caveat]:
    """What a run that was read from other code's files cannot know."""
    if "source" not in tables.config:
        return
    if tables.config["kind"] == "single":
        yield Caveat(
            "one checkpoint",
            "There is one checkpoint only: this is the flow of pruning its weights once to each "
            "density, without retraining. It says nothing about iterative pruning.",
        )
    elif "sigma_init" not in tables.spectrum:
        yield Caveat(
            "no rewind weights",
            "The files hold no weights of the rewind point or of the initialisation, so there is "
            "no init null: what pruning alone does to untrained weights is not known here. The "
            "gaussian null stands for it, with scales of trained weights.",
        )
    if tables.density[0] < 1 - 1e-3:
        yield Caveat(
            "first level pruned",
            f"The first level is already pruned, to density {percent_text(tables.density[0])}. "
            "Nulls start from what it keeps, and the Gaussian scales are those of its survivors.",
        )


def _replicates(tables: RunTables) -> Iterator[Caveat]:
    status = tables.metrics["status"].astype(str)
    stopped = tables.metrics[status.str.startswith("non-finite")]
    for seed, rows in stopped.groupby("seed"):
        yield Caveat(
            "stopped",
            f"Seed {seed} met a non-finite loss at level {rows['level'].min()} and stopped. "
            "Its exponents are left out.",
        )
    collapsed = tables.metrics[status.str.startswith("collapsed")]
    for seed, rows in collapsed.groupby("seed"):
        first = rows.loc[rows["level"].idxmin()]
        layers = rows.loc[rows["level"].idxmax(), "status"].removeprefix("collapsed: ")
        yield Caveat(
            "collapsed",
            f"Seed {seed}: layer collapse from level {first['level']} on "
            f"(density {percent_text(first['density'])}). No weight is left in {layers}. "
            "From there on the loss has another form: the scheme no longer acts on one network.",
        )


def _seeds(tables: RunTables) -> Iterator[Caveat]:
    num = tables.num_complete_seeds
    if num <= 1:
        yield Caveat(
            "no interval",
            f"{'One seed' if num == 1 else 'No seed'} reached the last level: there are no "
            "intervals, no block can be classified, and curvature is not tested.",
        )
    elif num < FEW_SEEDS:
        at = 0.5 + tables.ci_level / 2
        yield Caveat(
            "few seeds",
            f"{num} seeds are few. Intervals use Student's t with "
            f"{count_text(num - 1, 'degree')} of freedom (quantile "
            f"{stats.t.ppf(at, num - 1):.2f}; {stats.norm.ppf(at):.2f} for many seeds), so they "
            "are honest but wide, and small effects go unseen.",
        )


def _exponents(tables: RunTables) -> Iterator[Caveat]:
    rows = tables.exponents()
    missing = rows.loc[rows["sigma"].isna(), "block"]
    if len(missing):
        yield Caveat(
            "no exponent",
            f"No exponent for {block_list(missing)}: in every seed the share is zero or missing "
            "at some level.",
        )


def _excess(tables: RunTables) -> Iterator[Caveat]:
    rows = tables.listed()
    meanings = {
        "init": "pruning the weights at the rewind point, without any training, gives the same",
        "oneshot": "pruning the dense trained weights, without retraining, gives the same",
        "gaussian": "Gaussian weights of the same scales, pruned, give the same",
    }
    for null in lead_nulls(rows):
        is_zero = (rows[f"excess_{null}_low"] <= 0) & (rows[f"excess_{null}_high"] >= 0)
        if is_zero.any():
            yield Caveat(
                f"excess {null}",
                f"The excess over the {null} null cannot be told from zero for "
                f"{count_text(int(is_zero.sum()), 'block')} of {len(rows)} "
                f"({block_list(rows.loc[is_zero, 'block'])}). There, within error, "
                f"{meanings[null]} exponent.",
            )


def _curvature(tables: RunTables) -> Iterator[Caveat]:
    rows = tables.listed()
    curved = rows.loc[rows["curvature_p"] < REJECTION_LEVEL, "block"]
    if len(curved):
        yield Caveat(
            "curvature",
            "Not a pure exponential: curvature in RG time is significant at "
            f"{percent_text(REJECTION_LEVEL)} for {count_text(len(curved), 'block')} of "
            f"{len(rows)} ({block_list(curved)}; {REJECTION_LEVEL * len(rows):.1f} expected by "
            "chance). One exponent hides a change along the flow there; see the running exponents.",
        )


def _untested(tables: RunTables) -> Iterator[Caveat]:
    rows = tables.listed()
    untested = rows.loc[rows["curvature_p"].isna(), "block"]
    if len(untested) and tables.num_complete_seeds > 1:
        yield Caveat(
            "untested",
            f"Curvature is not tested for {block_list(untested)}: the test needs three levels, and "
            "at every level a share above zero in every block.",
        )


def _windows(tables: RunTables) -> Iterator[Caveat]:
    rows = tables.listed()
    if rows["curvature_p"].isna().all() and rows["window_first"].isna().all():
        return
    last = len(tables.density) - 1
    is_whole = (rows["window_first"] == 0) & (rows["window_last"] == last)
    part = rows[~is_whole & rows["window_first"].notna()]
    if len(part):
        texts = [
            f"{r['block']} levels {r['window_first']:.0f} to {r['window_last']:.0f}, sigma "
            f"{number_text(r['window_sigma'])} there, {number_text(r['sigma'], 'none')} over all"
            for r in part.to_dict("records")
        ]
        yield Caveat(
            "window",
            "Scaling windows, selected on these same data as the longest run of levels without "
            f"significant curvature, so biased towards looking exponential: {'; '.join(texts)}.",
        )
    none = rows.loc[rows["window_first"].isna(), "block"]
    if len(none):
        yield Caveat(
            "no window",
            f"No run of five levels looks exponential for {block_list(none)}: no scaling window.",
        )


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
        word = "level" if len(lost) == 1 else "levels"
        yield Caveat(
            "lost accuracy",
            f"Mean {name} is more than {LOST_POINTS:g} point below dense ({metric[0]:.1f} %) at "
            f"{word} {level_list(lost.tolist())}, at most by {loss.max():.1f} points (density "
            f"{percent_text(tables.density[int(loss.argmax())])}). Exponents that include them "
            "describe networks that pruning has harmed.",
        )
    else:
        yield Caveat(
            "saturated",
            f"Mean {name} stays within {LOST_POINTS:g} point of dense ({metric[0]:.1f} %) down to "
            f"density {percent_text(tables.density[-1])}. The task is saturated: the flow was not "
            "followed to where pruning hurts, and accuracy cannot tell good masks from bad ones.",
        )


def _many(tables: RunTables) -> Iterator[Caveat]:
    num = len(tables.listed())
    if num >= MANY_BLOCKS and tables.num_complete_seeds > 1:
        yield Caveat(
            "many blocks",
            f"{num} blocks, {num} intervals at {percent_text(tables.ci_level)}: about "
            f"{num * (1 - tables.ci_level):.1f} of them miss their target by chance. Nothing is "
            "corrected for that.",
        )
