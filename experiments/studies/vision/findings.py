"""What a vision experiment found: the paper's Table 2 beside pruning alone, distances of tasks.

In: its runs. Out: ``sigma.csv``, ``distances.csv``, ``changes.csv``, ``claims.csv``,
``accuracy.csv`` and ``paths.csv``, with every verdict as a word of a fixed set.

Runs of one experiment share their seeds: what two of them differ by is taken seed by seed, and its
interval is Student's over seeds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.studies.vision.read import (
    VisionRun,
    WindowedSpectrum,
    init_text,
    measure,
    read_runs,
    stages,
)
from imp_rg.report.lead import LEAD_NULLS, verdict
from imp_rg.rg.distance import compare_values
from imp_rg.rg.estimate import Estimate, summarise
from imp_rg.runs import frames
from imp_rg.runs.files import read_csv, write_csv

TASKS, INITS = "tasks", "inits"
"""What two runs of a pair differ in."""

ALL = "all"
"""Stands for the root mean square over all listed blocks."""

INIT = "init"
"""The null that knows only the weights to which levels are rewound."""

HELD, NOT_HELD, NOT_DECIDED = "held", "not held", "not decided"

STAGE_SIGNS = (1, 1, 1, -1)
"""Signs of the exponents of the four stages that the paper finds."""

SIGNS_CLAIM = "sigma_1..3 > 0 > sigma_4"

SOURCES = {
    "sigma": "sigma",
    INIT: "init null",
    "oneshot": "oneshot null",
    f"excess_{INIT}": "excess over init",
    f"beyond_{INIT}": "beyond init",
}
"""Measures that the page shows and claims are tried on, and their names."""

KEYS = ("between", "task_a", "task_b", "init_a", "init_b", "window", "block", "measure")
"""Columns that name what a row is about, of ``distances.csv`` and ``changes.csv``."""

FRAMES = ("sigma", "distances", "changes", "claims", "accuracy", "paths")


def write_findings(folder: Path) -> None:
    """Computes and writes every table of the finished runs in a folder.

    Raises:
      ValueError: As `read_runs`.
    """
    runs, _ = read_runs(folder)
    ci_level = runs[0].flow.settings.get("ci_level", 0.95)
    measured = [found for run in runs for found in measure(run, ci_level=ci_level)]
    sigma = pd.concat([sigma_frame(x, ci_level=ci_level) for x in measured], ignore_index=True)
    changes = change_frame(measured, ci_level=ci_level)
    tables = {
        "sigma": sigma,
        "distances": distance_frame(measured, ci_level=ci_level),
        "changes": changes,
        "claims": claim_frame(measured, changes, ci_level=ci_level),
        "accuracy": pd.concat([accuracy_frame(run) for run in runs], ignore_index=True),
        "paths": path_frame(runs, opposite_blocks(sigma[sigma["window"] == sigma["window"][0]])),
    }
    for name, frame in tables.items():
        write_csv(folder / f"{name}.csv", frame)


def read_findings(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables that `write_findings` wrote, by name."""
    tables = {name: read_csv(folder / f"{name}.csv") for name in FRAMES}
    for frame in tables.values():
        for text in {"withheld", "published_row", "verdict"} & set(frame):
            frame[text] = frame[text].astype(object).fillna("")
    return tables


def sigma_frame(measured: WindowedSpectrum, *, ci_level: float) -> pd.DataFrame:
    """One row per listed block of one run and window, by the paper's estimator.

    Columns: task, init, mode, start, block, window, sigma, low, high, num_seeds, relevance; for
    every null N: sigma_N, excess_N, excess_N_low, excess_N_high; published (the paper's Table 2),
    published_row, withheld (why there is no verdict; empty if there is one), verdict.
    """
    run = measured.run
    labels = {name: getattr(run, name) for name in ("task", "init", "mode", "start")}
    frame = frames.sigma_frame(
        measured.spectrum.sigma_per_seed["paper"],
        run.blocks,
        labels,
        ci_level=ci_level,
        nulls={name: null.sigma_per_seed["paper"] for name, null in measured.nulls.items()},
    )
    frame.insert(5, "window", measured.window)
    frame.insert(10, "relevance", measured.spectrum.relevance[: len(run.blocks)])
    theirs = run.published
    frame["published"] = theirs.values if theirs else np.nan
    frame["published_row"] = theirs.row if theirs else ""
    frame["withheld"] = run.withheld
    rows: Any = frame.to_dict("records")
    nulls = [null for null in LEAD_NULLS if null in measured.nulls]
    frame["verdict"] = [_verdict(row, nulls) for row in rows]
    return frame


def _verdict(row: dict[str, Any], nulls: Sequence[str]) -> str:
    """That of a run's own page."""
    if row["withheld"]:
        return f"withheld: {row['withheld']}"
    row = row | {"sigma_low": row["low"]}
    row |= {f"side_{null}": Estimate.of(row, f"excess_{null}").side() for null in nulls[:2]}
    return verdict(row)


def opposite_blocks(sigma: pd.DataFrame) -> tuple[str, str]:
    """The blocks whose shares grow and shrink fastest, means over runs."""
    means = sigma.groupby("block", sort=False)["sigma"].mean().dropna()
    if len(means) < 2:
        return sigma["block"].iloc[0], sigma["block"].iloc[-1]
    return str(means.idxmax()), str(means.idxmin())


def accuracy_frame(run: VisionRun) -> pd.DataFrame:
    """One row per level: mean and standard deviation over seeds of the test accuracy in percent.

    Columns: task, init, mode, start, level, density, accuracy, sd, num_seeds.
    """
    by_level = run.flow.metrics.groupby("level")["test_metric"]
    columns = {"accuracy": by_level.mean(), "sd": by_level.std(), "num_seeds": by_level.count()}
    frame = pd.DataFrame(columns).rename_axis("level").reset_index()
    names = {name: getattr(run, name) for name in ("task", "init", "mode", "start")}
    density = run.flow.trajectory.density[frame["level"]]
    return pd.DataFrame(names | {"level": frame["level"], "density": density}).join(
        frame.drop(columns="level")
    )


def path_frame(runs: Sequence[VisionRun], blocks: tuple[str, str]) -> pd.DataFrame:
    """Shares of two blocks by run and level, means over seeds: the axes of the paper's Fig. 2.

    Columns: task, init, start, source (trained, or the null init), level, x, y, block_x, block_y.
    """
    paths = []
    for run in runs:
        trajectory = run.flow.trajectory
        flows = {"trained": trajectory.points["trained"]}
        flows |= {INIT: trajectory.nulls[INIT]} if INIT in trajectory.nulls else {}
        at = [trajectory.blocks.names.index(block) for block in blocks]
        for source, point in flows.items():
            x, y = summarise(np.asarray(point.magnitude_share)[..., at]).value.T
            names = {"task": run.task, "init": run.init, "start": run.start, "source": source}
            columns = names | {"level": range(len(x)), "x": x, "y": y}
            paths.append(pd.DataFrame(columns | {"block_x": blocks[0], "block_y": blocks[1]}))
    return pd.concat(paths, ignore_index=True)


# Two runs beside each other.


class Pair(NamedTuple):
    """Two runs over one window that differ in the task or in the init.

    Attributes:
      between: `TASKS` or `INITS`.
      a: The one that comes first in the list of runs.
      b: The other.
    """

    between: str
    a: WindowedSpectrum
    b: WindowedSpectrum

    @property
    def key(self) -> dict[str, str]:
        """Names of the pair in a table."""
        a, b = self.runs
        tasks, inits = {"task_a": a.task, "task_b": b.task}, {"init_a": a.init, "init_b": b.init}
        return {"between": self.between, **tasks, **inits, "window": self.a.window}

    @property
    def runs(self) -> tuple[VisionRun, VisionRun]:
        """The two."""
        return self.a.run, self.b.run

    def differences(self) -> Iterator[tuple[str, str, pd.DataFrame, pd.DataFrame]]:
        """Block, measure and the exponents [seed block] of both, for the seeds that both have.

        The block is `ALL`, or the last listed one on its own.
        """
        of_a, of_b = self.a.by_seed(), self.b.by_seed()
        blocks = self.a.run.blocks
        for name in (name for name in of_a if name in of_b):
            for block, names in {ALL: blocks, blocks[-1]: blocks[-1:]}.items():
                a, b = (found[name][list(names)].dropna() for found in (of_a, of_b))
                seeds = a.index.intersection(b.index)
                yield block, name, a.loc[seeds], b.loc[seeds]


def pairs(measured: Sequence[WindowedSpectrum]) -> list[Pair]:
    """Pairs of runs that differ in the task or in the init, and share blocks and levels.

    Two tasks share their init, too, where each starts from weights that the same method has trained
    on something else, and neither has a run from the init of the other: two tasks pre-trained on
    each other.
    """
    runs, found = {x.run.folder: x.run for x in measured}.values(), []
    there = {(run.task, run.init) for run in runs}
    for window in dict.fromkeys(x.window for x in measured):
        for x, y in combinations([x for x in measured if x.window == window], 2):
            a, b = x.run, y.run
            if a.blocks != b.blocks or a.last_level != b.last_level:
                continue
            is_crossed = (a.task, b.init) not in there and (b.task, a.init) not in there
            if a.task == b.task:
                found.append(Pair(INITS, x, y))
            elif a.init == b.init or (is_crossed and a.start == b.start):
                found.append(Pair(TASKS, x, y))
    return found


def distance_frame(measured: Sequence[WindowedSpectrum], *, ci_level: float) -> pd.DataFrame:
    """How far two runs are apart, which differ in the task or in the init.

    Columns: `KEYS` (measure: sigma, NULL, excess_NULL), distance (root mean square over blocks of
    the difference of the means), low, high (t over seeds along that difference; not below 0),
    num_seeds (that both have), p (permutation test over seeds), p_smallest (that so few seeds can
    give). Scatter alone makes a distance positive.
    """
    rows = []
    for pair in pairs(measured):
        for block, name, a, b in pair.differences():
            found = compare_values(a.to_numpy(float), b.to_numpy(float))
            along = _over_seeds(distance_by_seed(a - b), ci_level)
            rows.append(
                pair.key
                | {
                    "block": block,
                    "measure": name,
                    "distance": found.distance,
                    "low": float(np.maximum(along.low, 0)),
                    "high": float(along.high),
                    "num_seeds": len(a),
                    "p": found.p_value,
                    "p_smallest": found.p_smallest,
                }
            )
    return pd.DataFrame(rows, columns=None if rows else [*KEYS, "distance", "low", "high"])


def change_frame(measured: Sequence[WindowedSpectrum], *, ci_level: float) -> pd.DataFrame:
    """Does pre-training bring two tasks closer, and closer than it brings their nulls?

    Columns: `KEYS` (inits: the pre-trained ones; measure: sigma, NULL, excess_NULL, and
    beyond_NULL, what the change of sigma has beyond that of a null), scratch, pretrained
    (distances), change (scratch minus pre-trained: positive is closer), low, high (t over seeds),
    num_seeds, found (is it closer: held, not held, not decided), withheld.
    """
    of_tasks = [pair for pair in pairs(measured) if pair.between == TASKS]
    rows = []
    for pair in of_tasks:
        for scratch in of_tasks:
            tasks = [[run.task for run in x.runs] for x in (pair, scratch)]
            is_reference = not any(run.is_pretrained for run in scratch.runs)
            is_reference &= pair.a.window == scratch.a.window and tasks[0] == tasks[1]
            if is_reference and pair.a.run.is_pretrained:
                runs = (*scratch.runs, *pair.runs)
                rows += [
                    pair.key | row | {"withheld": withheld_text(row["measure"], runs)}
                    for row in _changes(scratch, pair, ci_level)
                ]
    columns = [*KEYS, "change", "low", "high", "found", "withheld"]
    return pd.DataFrame(rows, columns=None if rows else columns)


def _changes(scratch: Pair, pretrained: Pair, ci_level: float) -> Iterator[dict[str, Any]]:
    before, after = _with_beyond(scratch), _with_beyond(pretrained)
    for (block, name), of_scratch in before.items():
        of_pretrained = after.get((block, name))
        if of_pretrained is None:
            continue
        by_seed = of_scratch - of_pretrained  # NaN where one lacks a seed
        found = _over_seeds(by_seed, ci_level)
        yield {
            "block": block,
            "measure": name,
            "scratch": of_scratch.mean(),
            "pretrained": of_pretrained.mean(),
            "change": float(found.value),
            "low": float(found.low),
            "high": float(found.high),
            "num_seeds": int(by_seed.notna().sum()),
            "found": decide([float(found.low)], [float(found.high)]),
        }


def _over_seeds(values: Any, ci_level: float) -> Estimate:
    """NaN where two runs share no seed."""
    by_seed = values.to_numpy(float) if len(values) else np.array([np.nan])
    return summarise(by_seed, ci_level=ci_level)


def _with_beyond(pair: Pair) -> dict[tuple[str, str], Any]:
    """Distances by seed, by block and measure; those of sigma also less those of each null."""
    found = {(block, name): distance_by_seed(a - b) for block, name, a, b in pair.differences()}
    beyond = {
        (block, f"beyond_{null}"): found[block, "sigma"] - found[block, null]
        for block, null in found
        if (block, f"excess_{null}") in found
    }
    return found | beyond


def distance_by_seed(difference: pd.DataFrame) -> Any:
    """Difference [seed block] of each seed along the mean difference; [seed].

    Its mean over seeds is the distance: the root mean square over blocks of the mean difference.
    """
    difference = difference.round(12)  # what remains of equal weights is rounding
    mean = difference.mean(axis=0)
    size = float(np.sqrt(np.mean(mean**2)))
    return difference @ mean / (size * len(mean) if size > 0 else 1)


# Claims.


def claim_frame(
    measured: Sequence[WindowedSpectrum], changes: pd.DataFrame, *, ci_level: float
) -> pd.DataFrame:
    """The paper's qualitative claims on its Table 2, tried on sigma and on the nulls.

    Columns: claim, subject (a run, or the pre-trained inits), window, source (one of `SOURCES`),
    found (held, not held, not decided: what the intervals say), withheld, verdict, numbers.
    """
    rows = [row for x in measured for row in _sign_claims(x, ci_level)]
    of_block = changes[(changes["block"] != ALL) & changes["measure"].isin(list(SOURCES))]
    rows += [_closer_claim(row) for row in of_block.to_dict("records")]
    names = ["claim", "subject", "window", "source", "found", "withheld", "verdict", "numbers"]
    return pd.DataFrame(rows, columns=names)


def _sign_claims(measured: WindowedSpectrum, ci_level: float) -> Iterator[dict[str, str]]:
    run = measured.run
    if run.blocks != stages(len(STAGE_SIGNS)):
        return
    for name, values in measured.by_seed().items():
        if name in SOURCES:
            found = summarise(values.to_numpy(float), ci_level=ci_level)
            yield {
                "claim": SIGNS_CLAIM,
                "subject": run.name,
                "window": measured.window,
                "source": SOURCES[name],
                **_outcome(decide(found.low, found.high, STAGE_SIGNS), withheld_text(name, [run])),
                "numbers": " ".join(f"{value:+.3f}" for value in found.value),
            }


def _closer_claim(row: dict[Any, Any]) -> dict[str, str]:
    sigma, change = f"sigma of {row['block']}", Estimate(row["change"], row["low"], row["high"])
    return {
        "claim": f"|{sigma}, {row['task_a']} - {row['task_b']}| shrinks with pre-training",
        "subject": start_text(row),
        "window": row["window"],
        "source": SOURCES[row["measure"]],
        **_outcome(row["found"], row["withheld"]),
        "numbers": f"{row['scratch']:.3f} to {row['pretrained']:.3f}, closer by {change.text()}",
    }


def start_text(row: Mapping[Any, Any]) -> str:
    """Inits of a pair of runs: one, or both where each task has its own."""
    return " / ".join(dict.fromkeys(init_text(row[name]) for name in ("init_a", "init_b")))


def _outcome(found: str, withheld: str) -> dict[str, str]:
    verdict = f"withheld: {withheld}" if withheld else found
    return {"found": found, "withheld": withheld, "verdict": verdict}


def decide(low: Iterable[float], high: Iterable[float], signs: Sequence[int] = (1,)) -> str:
    """Do intervals have the claimed signs? One of them wholly on the wrong side says no."""
    ends = np.array([[*low], [*high]], float) * np.array(signs)
    if (ends.min(axis=0) > 0).all():
        return HELD
    return NOT_HELD if (ends.max(axis=0) < 0).any() else NOT_DECIDED


def withheld_text(measure: str, runs: Iterable[VisionRun]) -> str:
    """Why what was measured gets no verdict; weights never trained need no accuracy."""
    reasons = [run.withheld for run in runs if run.withheld]
    return reasons[0] if reasons and measure != INIT else ""
