"""Exponents of vision tickets by task and start: the paper's Table 2 beside pruning alone.

In: the cells of a vision experiment. Out: ``sigma.csv``, ``claims.csv``, ``accuracy.csv`` and the
tables of `experiments.studies.vision.distances`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.studies.vision.cells import CellRun, Measured, init_text, measure, stages
from experiments.studies.vision.distances import (
    ALL,
    INIT,
    change_frame,
    decide,
    distance_frame,
    withheld_text,
)
from imp_rg.plots.style import Frame
from imp_rg.report.lead import LEAD_NULLS, LeadRow, NullContrast
from imp_rg.report.words import estimate_text
from imp_rg.rg import t_interval
from imp_rg.rg.nulls import excess
from imp_rg.runs.files import write_csv

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
"""Measures on which claims are tried, and their names."""


def write_tables(folder: Path, cells: Sequence[CellRun], *, ci_level: float) -> dict[str, Frame]:
    """Computes and writes every table; returns them by name."""
    measured = [found for cell in cells for found in measure(cell, ci_level=ci_level)]
    changes = change_frame(measured, ci_level=ci_level)
    tables = {
        "sigma": pd.concat(
            [sigma_frame(x, ci_level=ci_level) for x in measured], ignore_index=True
        ),
        "distances": distance_frame(measured, ci_level=ci_level),
        "changes": changes,
        "claims": claim_frame(measured, changes, ci_level=ci_level),
        "accuracy": pd.concat([accuracy_frame(cell) for cell in cells], ignore_index=True),
    }
    for name, frame in tables.items():
        write_csv(folder / f"{name}.csv", frame)
    return tables


def sigma_frame(measured: Measured, *, ci_level: float) -> Frame:
    """One row a listed block of one cell and window, by the paper's estimator.

    Columns: task, init, mode, start, block, window, sigma, low, high, num_seeds, relevance; for
    every null N: sigma_N, excess_N, excess_N_low, excess_N_high; published (the paper's Table 2),
    published_row, withheld (why there is no verdict; empty if there is one), verdict.
    """
    cell, spectrum = measured.cell, measured.spectrum
    columns: dict[str, Any] = {
        "task": cell.task,
        "init": cell.init,
        "mode": cell.mode,
        "start": cell.start,
        "block": cell.flow.trajectory.blocks.names,
        "window": measured.window,
        "sigma": spectrum.sigma["paper"],
        "low": spectrum.ci_low["paper"],
        "high": spectrum.ci_high["paper"],
        "num_seeds": spectrum.num_seeds["paper"],
        "relevance": spectrum.relevance,
    }
    for name, null in measured.nulls.items():
        per_seed = spectrum.sigma_per_seed["paper"], null.sigma_per_seed["paper"]
        beyond = excess(*per_seed, ci_level=ci_level)
        columns |= {f"sigma_{name}": null.sigma["paper"], f"excess_{name}": beyond.mean}
        columns |= {f"excess_{name}_low": beyond.ci_low, f"excess_{name}_high": beyond.ci_high}
    frame = pd.DataFrame(columns).iloc[: len(cell.blocks)]
    theirs = cell.published
    frame["published"] = theirs.values if theirs else np.nan
    frame["published_row"] = theirs.row if theirs else ""
    frame["withheld"] = cell.withheld
    rows: Any = frame.to_dict("records")
    frame["verdict"] = [_verdict(row, measured.nulls) for row in rows]
    return frame


def _verdict(row: dict[str, Any], nulls: Any) -> str:
    """That of a run's own page."""
    if row["withheld"]:
        return f"withheld: {row['withheld']}"
    contrasts = [
        NullContrast(
            null=null,
            sigma=row[f"sigma_{null}"],
            excess=row[f"excess_{null}"],
            low=row[f"excess_{null}_low"],
            high=row[f"excess_{null}_high"],
        )
        for null in LEAD_NULLS
        if null in nulls
    ]
    values = {name: row[name] for name in ("block", "sigma", "low", "high", "relevance")}
    return LeadRow(**values, contrasts=tuple(contrasts[:2])).verdict


def claim_frame(measured: Sequence[Measured], changes: Frame, *, ci_level: float) -> Frame:
    """The paper's qualitative claims on its Table 2, tried on sigma and on the nulls.

    Columns: claim, subject (a cell, or the pre-trained inits), window, source (one of `SOURCES`),
    found (held, not held, not decided: what the intervals say), withheld, verdict, numbers.
    """
    rows = [row for x in measured for row in _sign_claims(x, ci_level)]
    of_block = changes[(changes["block"] != ALL) & changes["measure"].isin(list(SOURCES))]
    rows += [_closer_claim(row) for row in of_block.to_dict("records")]
    names = ["claim", "subject", "window", "source", "found", "withheld", "verdict", "numbers"]
    return pd.DataFrame(rows, columns=names)


def _sign_claims(measured: Measured, ci_level: float) -> Iterator[dict[str, str]]:
    cell = measured.cell
    if cell.blocks != stages(len(STAGE_SIGNS)):
        return
    for name, values in measured.by_seed().items():
        if name in SOURCES:
            found = t_interval(values.to_numpy(float), ci_level=ci_level)
            yield {
                "claim": SIGNS_CLAIM,
                "subject": cell.name,
                "window": measured.window,
                "source": SOURCES[name],
                **_outcome(decide(found.low, found.high, STAGE_SIGNS), withheld_text(name, [cell])),
                "numbers": " ".join(f"{value:+.3f}" for value in found.mean),
            }


def _closer_claim(row: dict[str, Any]) -> dict[str, str]:
    sigma = f"sigma of {row['block']}"
    return {
        "claim": f"|{sigma}, {row['task_a']} - {row['task_b']}| shrinks with pre-training",
        "subject": start_text(row),
        "window": row["window"],
        "source": SOURCES[row["measure"]],
        **_outcome(row["found"], row["withheld"]),
        "numbers": f"{row['scratch']:.3f} to {row['pretrained']:.3f}, closer by "
        + estimate_text(row["change"], row["low"], row["high"]),
    }


def start_text(row: dict[str, Any]) -> str:
    """Inits of a pair of cells: one, or both where each task has its own."""
    return " / ".join(dict.fromkeys(init_text(row[name]) for name in ("init_a", "init_b")))


def _outcome(found: str, withheld: str) -> dict[str, str]:
    verdict = f"withheld: {withheld}" if withheld else found
    return {"found": found, "withheld": withheld, "verdict": verdict}


def accuracy_frame(cell: CellRun) -> Frame:
    """One row a level: mean and standard deviation over seeds of the test accuracy in percent.

    Columns: task, init, mode, start, level, density, accuracy, sd, num_seeds.
    """
    by_level = cell.flow.metrics.groupby("level")["test_metric"]
    columns = {"accuracy": by_level.mean(), "sd": by_level.std(), "num_seeds": by_level.count()}
    frame = pd.DataFrame(columns).rename_axis("level").reset_index()
    names = {name: getattr(cell, name) for name in ("task", "init", "mode", "start")}
    density = cell.flow.trajectory.density[frame["level"]]
    return pd.DataFrame(names | {"level": frame["level"], "density": density}).join(
        frame.drop(columns="level")
    )


def path_frame(cells: Sequence[CellRun], blocks: tuple[str, str]) -> Frame:
    """Shares of two blocks by cell and level, means over seeds: the axes of the paper's Fig. 2.

    Columns: task, init, start, source (trained, or the null init), level, x, y.
    """
    frames = []
    for cell in cells:
        trajectory = cell.flow.trajectory
        flows = {"trained": trajectory.points["trained"]}
        flows |= {INIT: trajectory.nulls[INIT]} if INIT in trajectory.nulls else {}
        at = [trajectory.blocks.names.index(block) for block in blocks]
        for source, point in flows.items():
            x, y = t_interval(np.asarray(point.magnitude_share)[..., at]).mean.T
            names = {"task": cell.task, "init": cell.init, "start": cell.start, "source": source}
            frames.append(pd.DataFrame(names | {"level": range(len(x)), "x": x, "y": y}))
    return pd.concat(frames, ignore_index=True)
