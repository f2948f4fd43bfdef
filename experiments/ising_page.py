"""The page of the Ising experiment: what was measured beside what is exact.

In: the tables and configurations of a run folder, and the flow of an IMP run. Out: figures and
``report.html``, which needs no other file.
"""

import base64
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined
from rich.console import Console

from experiments.ising_cells import (
    coupling_cells,
    crossing_cells,
    energy_cells,
    estimate,
    exponent_cells,
    signed,
    timing_cells,
)
from experiments.ising_sampling import NUM_REPLICAS
from imp_rg.io.files import read_csv, read_json, write_bytes
from imp_rg.io.runs import RunFolder
from imp_rg.plots import ising as plots
from imp_rg.plots.style import Frame, save_figure
from imp_rg.report.words import MISSING
from imp_rg.rg.ising import CRITICAL_TEMPERATURE

CAPTIONS = {
    "configurations": "Configurations under three blockings. Every 2 × 2 block becomes the spin of "
    "its majority. Below the critical temperature blocking leads to order, above it to disorder; "
    "at it, pictures of all levels look alike. The left column of the paper's Fig. 1.",
    "exponents": "Exponents by blocking and number of operators, with jack-knife standard errors. "
    "The first blocking is off in y_t: the Hamiltonian that is simulated is not yet close to the "
    "fixed point. Later ones lose operators to the small lattice.",
    "coupling_flow": "Flow of the renormalised couplings. Left: two of four couplings, one arrow "
    "a blocking; all paths begin at (1 / T, 0). Right: the nearest-neighbour coupling by level. "
    "It grows below the critical temperature and dies above it.",
    "rg_beside_imp": "RG and IMP side by side, as the paper's Fig. 1. Left: the Ising model at its "
    "critical temperature. Right: the IMP run. Each row shows what the paper calls analogous; that "
    "the right column has a fixed point or exponents in the sense of the left one is not shown.",
}

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Monte Carlo RG of the Ising model</title>
<style>{{ css | safe }}</style>
</head>
<body>
{% macro table_of(name, table) %}
<div class="scroll"><table id="{{ name }}">
<tr>{% for cell in table.head %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in table.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endmacro %}
{% macro figure_of(name) %}
<figure id="figure-{{ name }}">
<div><img src="{{ figures[name] }}" alt="{{ captions[name] }}"></div>
<figcaption>{{ captions[name] }}</figcaption>
</figure>
{% endmacro %}
<h1>Monte Carlo RG of the Ising model</h1>
<p class="question">Does the machinery find exponents, critical point and energy where all of them
are known?</p>
<div class="answer">
{% for sentence in answers %}
<p>{{ sentence }}</p>
{% endfor %}
</div>
{{ figure_of("configurations") }}
<h2>Exponents</h2>
<p>Exact: y_t = 1 (Onsager), y_h = 15/8 (Yang). Measured: the largest eigenvalue of Swendsen's
matrix, from correlations of operators before and after one blocking; y = log2 of it. The error is
statistical (jack-knife over {{ num_bins }} bins) and does not hold what the truncation to few
operators, few blockings and a finite lattice leaves out.</p>
{{ figure_of("exponents") }}
{% for name, table in exponents.items() %}
<h3>{{ name }} by number of operators</h3>
{{ table_of(name, table) }}
{% endfor %}
<h2>Critical temperature</h2>
<p>Exact: T_c = 2 / ln(1 + √2) = {{ "%.6f" | format(critical) }} on the infinite lattice. Measured:
where Binder's cumulants of two sizes cross; corrections to scaling are not fitted.</p>
{{ table_of("crossing", crossing) }}
<h2>Energy per spin</h2>
<p>Exact: Kaufman's partition function of the same finite torus.</p>
{{ table_of("energy", energy) }}
<h2>Flow of the couplings</h2>
<p>Measured: the couplings under which Callen's identity holds on the blocked configurations
(Swendsen 1984), four operators. At level 0 they must be (1 / T, 0, 0, 0); what they are at other
levels is not known exactly, and depends on the truncation. {{ missing }}: no finite couplings, the
configurations are too ordered.</p>
{{ figure_of("coupling_flow") }}
{{ table_of("couplings", couplings) }}
{% if "rg_beside_imp" in figures %}
<h2>RG and IMP</h2>
{{ figure_of("rg_beside_imp") }}
{% else %}
<p class="note">With <code>--run RUN_FOLDER</code> of an IMP run, the whole of the paper's Fig. 1 is
drawn here.</p>
{% endif %}
<h2>Where the time goes</h2>
{{ table_of("timing", timing) }}
</body>
</html>
"""


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
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.from_string(TEMPLATE).render(
        css=files("imp_rg.report").joinpath("page.css").read_text("utf-8"),
        answers=answers(folder),
        figures=_figures(folder, exponents, imp_run),
        captions=CAPTIONS,
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
    )
    write_bytes(folder.path / "report.html", html.encode())


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


def _figures(folder: RunFolder, exponents: Frame, imp_run: ImpRun | None) -> dict[str, str]:
    """Sources of all figures by name."""
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
    paths = {
        name: save_figure(figure, folder.path / "figures", name) for name, figure in drawn.items()
    }
    return {
        name: "data:image/png;base64,"
        + base64.b64encode(path.with_suffix(".png").read_bytes()).decode()
        for name, path in paths.items()
    }
