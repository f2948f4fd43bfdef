"""The page of the Ising experiment: what was measured beside what is exact.

In: the tables and configurations of a run folder, and the flow of an IMP run. Out: figures and
``report.html``, which needs no other file.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from experiments.studies.ising.cells import (
    coupling_cells,
    crossing_cells,
    energy_cells,
    estimate,
    exponent_cells,
    signed,
    timing_cells,
)
from experiments.studies.ising.sampling import NUM_REPLICAS
from imp_rg.plots import ising as plots
from imp_rg.plots.style import Frame
from imp_rg.report.figures import Figure, save_figures
from imp_rg.report.templates import render
from imp_rg.report.words import MISSING, environment_lines
from imp_rg.rg.ising import CRITICAL_TEMPERATURE
from imp_rg.runs.files import read_csv, read_json, write_bytes
from imp_rg.runs.folder import RunFolder

CAPTIONS = {
    "configurations": (
        "Configurations under three blockings",
        "Every 2 × 2 block becomes the spin of its majority. Below the critical temperature "
        "blocking leads to order, above it to disorder; at it, pictures of all levels look alike. "
        "The left column of the paper's Fig. 1.",
    ),
    "exponents": (
        "Exponents by blocking and number of operators",
        "With jack-knife standard errors. The first blocking is off in y_t: the Hamiltonian that "
        "is simulated is not yet close to the fixed point. Later ones lose operators to the small "
        "lattice.",
    ),
    "coupling_flow": (
        "Flow of the renormalised couplings",
        "Left: two of four couplings, one arrow a blocking; all paths begin at (1 / T, 0). Right: "
        "the nearest-neighbour coupling by level. It grows below the critical temperature and dies "
        "above it.",
    ),
    "rg_beside_imp": (
        "RG and IMP side by side, as the paper's Fig. 1",
        "Left: the Ising model at its critical temperature. Right: the IMP run. Each row shows "
        "what the paper calls analogous; that the right column has a fixed point or exponents in "
        "the sense of the left one is not shown.",
    ),
}
"""Title and caption of each figure."""


class ImpRun(NamedTuple):
    """What the right column of Fig. 1 shows of an IMP run.

    Attributes:
      flow: Rows of the point `trained`.
      metrics: Test metric by seed and level.
    """

    flow: Frame
    metrics: Frame


def read_flow(folder: Path) -> ImpRun:
    """Reads a run folder of `experiments.imp_flow`.

    Raises:
      ValueError: If the folder holds no flow.
    """
    for name in ("flow.csv", "metrics.csv"):
        if not (folder / name).exists():
            raise ValueError(f"run: must be a run folder with {name}, got {folder}")
    flow: Frame = read_csv(folder / "flow.csv")
    return ImpRun(flow[flow["point"] == "trained"], read_csv(folder / "metrics.csv"))


def write_page(folder: RunFolder, imp_run: ImpRun | None) -> None:
    """Draws the figures and writes ``report.html``."""
    exponents: Frame = read_csv(folder.table("exponents"))
    page = render(
        "ising.html.j2",
        answers=answers(folder),
        figures=_figures(folder, exponents, imp_run),
        num_bins=read_json(folder.config)["bins"] * NUM_REPLICAS,
        critical=CRITICAL_TEMPERATURE,
        exponents={
            name: exponent_cells(rows) for name, rows in exponents.groupby("exponent", sort=False)
        },
        crossing=crossing_cells(read_csv(folder.table("crossing"))),
        energy=energy_cells(read_csv(folder.table("energy"))),
        couplings=coupling_cells(read_csv(folder.table("couplings"))),
        timing=timing_cells(read_csv(folder.table("timing"))),
        missing=MISSING,
        environment=environment_lines(read_json(folder.environment)),
    )
    write_bytes(folder.path / "report.html", page)


def answers(folder: RunFolder) -> list[str]:
    """The results in a sentence each."""
    exponents: Frame = read_csv(folder.table("exponents"))
    most = exponents[exponents["num_operators"] == 4]
    sentences = []
    for name, rows in most.groupby("exponent", sort=False):
        values = "; ".join(
            f"blocking {row.blocking}: {estimate(row.value, row.error)} "
            f"({signed(row.deviation_percent, 2)} %)"
            for row in rows.itertuples()
        )
        exact = rows["exact"].iloc[0]
        sentences.append(f"{name} with four operators, exactly {exact:g}. {values}.")
    crossing: Frame = read_csv(folder.table("crossing"))
    last = crossing.iloc[-1]
    sentences.append(
        f"T_c from the crossing of {last.small_size:.0f} and {last.large_size:.0f}: "
        f"{estimate(last.critical_temperature, last.error)}, exactly {last.exact:.5f} "
        f"({signed(last.deviation_percent, 3)} %)."
    )
    worst = read_csv(folder.table("energy"))["deviation_in_errors"].abs().max()
    sentences.append(f"Energy per spin: at most {worst:.1f} standard errors from the exact one.")
    return sentences


def print_answers(folder: RunFolder, console: Console) -> None:
    """The same on the terminal."""
    for sentence in answers(folder):
        console.print(sentence, highlight=False)


def _figures(folder: RunFolder, exponents: Frame, imp_run: ImpRun | None) -> dict[str, Figure]:
    """All figures by name."""
    with np.load(folder.path / "configurations.npz") as file:
        relative = file["temperature"] / CRITICAL_TEMPERATURE
        levels = [file[f"level{n}"] for n in range(len(file.files) - 1)]
    couplings = read_csv(folder.table("couplings"))
    drawn: dict[str, Any] = {
        "configurations": plots.configurations(levels, relative),
        "exponents": plots.exponents(exponents),
        "coupling_flow": plots.coupling_flow(couplings, CRITICAL_TEMPERATURE),
    }
    if imp_run is not None:
        nearest = int(np.abs(relative - 1).argmin())
        drawn["rg_beside_imp"] = plots.rg_beside_imp(
            [spins[nearest] for spins in levels],
            read_csv(folder.table("binder")),
            couplings,
            CRITICAL_TEMPERATURE,
            imp_run.flow,
            imp_run.metrics,
        )
    figures = save_figures(drawn, CAPTIONS, folder.path / "figures")
    return {figure.name: figure for figure in figures}
