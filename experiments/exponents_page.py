"""The page of the critical exponents: one table as the paper's Table 7, ours beside it.

In: the rows of exponents.csv and the figures. Out: ``report.html``, which needs no other file.
"""

import base64
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined

from imp_rg import published
from imp_rg.io.files import write_bytes
from imp_rg.report.words import MISSING, percent_text
from imp_rg.rg.error_law import GAMMA_BOUNDS, MIN_IN_WINDOW

NOT_IDENTIFIED = "not identified"

CAPTIONS = {
    "errors": "Error against density. Markers: measured (faint: single seeds). Lines: the fitted "
    "law, dashed where gamma is not identified. As the paper's Fig. 3.",
    "collapse": "Collapse. Error over e_np against density over p, in the paper's gauge: tasks "
    "with the same gamma share one curve, which each leaves below its lower knee.",
}

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Critical exponents of the error</title>
<style>{{ css | safe }}</style>
</head>
<body>
<h1>Critical exponents of the error</h1>
<p class="question">With which exponent does the error grow as weights are pruned, and do the data
determine it?</p>
<div class="answer">
{% for sentence in answers %}
<p>{{ sentence }}</p>
{% endfor %}
</div>
{% for name, source in figures.items() %}
<figure id="figure-{{ name }}">
<div><img src="{{ source }}" alt="{{ captions[name] }}"></div>
<figcaption>{{ captions[name] }}</figcaption>
</figure>
{% endfor %}
{% if "collapse" not in figures %}
<p class="note">No collapse is drawn: it takes two tasks whose gamma is identified.</p>
{% endif %}
<h2>Gamma beside the paper's Table 7</h2>
<div class="scroll"><table id="gamma">
<tr><th>task</th>{% for column in columns %}<th>paper, {{ column }}</th>{% endfor %}
<th>here, paper's gauge</th><th>{{ ci }} interval</th>
<th>here, positive gauge</th><th>{{ ci }} interval</th></tr>
{% for row in gamma_rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
<p class="note">The law err(d) = e_np [(d² + q²) / (d² + p²)]^(γ/2) is the same curve for (γ, p, q)
and (−γ, q, p): the sign of gamma is a convention. The paper prints the negative one, without
intervals, for ResNet-50. A gamma is <em>not identified</em> if fewer than {{ fewest }} densities
lie on the power law, between 3 p and q / 3, or if its profile interval has no end between
{{ bounds[0] }} and {{ bounds[1] }}.</p>
<h2>All parameters (positive gauge)</h2>
<div class="scroll"><table id="parameters">
<tr>{% for cell in parameter_head %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in parameter_rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
<p class="note">e_np is the error unpruned; e_up that at vanishing density, an extrapolation. Noise:
standard deviation of the logarithm of the error, or its variance over the binomial one where the
number of test examples is known. Seeds: variance of gamma between seeds over what the noise
explains; above 1 it widens the interval. Held out: error in points of every third density,
predicted from the others.</p>
</body>
</html>
"""


def write_page(
    folder: Path, table: pd.DataFrame, figures: dict[str, Path], *, ci_level: float
) -> Path:
    """Writes ``report.html``; returns its path."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    rows: list[dict[str, Any]] = table.to_dict("records")  # pyright: ignore[reportAssignmentType]
    head, parameters = _parameters(rows)
    html = environment.from_string(TEMPLATE).render(
        css=files("imp_rg.report").joinpath("page.css").read_text("utf-8"),
        answers=[_answer(row) for row in rows],
        figures={name: _inline(path) for name, path in figures.items()},
        captions=CAPTIONS,
        columns=_columns(),
        gamma_rows=_gamma_rows(rows),
        parameter_head=head,
        parameter_rows=parameters,
        ci=f"{100 * ci_level:g} %",
        fewest=MIN_IN_WINDOW,
        bounds=GAMMA_BOUNDS,
    )
    write_bytes(folder / "report.html", html.encode())
    return folder / "report.html"


def gamma_text(gamma: float, is_identified: bool) -> str:
    """Signed, two decimals as in the paper; in words where the data do not say."""
    return f"{gamma:+.2f}" if is_identified else NOT_IDENTIFIED


def interval_text(low: float, high: float, is_identified: bool) -> str:
    """[low, high], or a dash."""
    return f"[{low:+.2f}, {high:+.2f}]" if is_identified else MISSING


def published_gamma(dataset: str) -> published.PublishedRow | None:
    """Row of Table 7 of a data set, whatever its spelling: cifar10 is CIFAR-10."""
    rows = {_plain(row.row): row for row in published.rows(7)}
    return rows.get(_plain(dataset).removesuffix("cropped"))


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _columns() -> list[str]:
    return list(dict.fromkeys(label for row in published.rows(7) for label in row.labels))


def _answer(row: dict[str, Any]) -> str:
    if not row["identified"]:
        return f"{row['task']}: gamma is not identified: {row['why']}."
    interval = interval_text(row["gamma_low"], row["gamma_high"], True)
    return (
        f"{row['task']}: gamma = {row['gamma']:.2f} {interval}, "
        f"{gamma_text(row['paper_gamma'], True)} in the paper's gauge; "
        f"{row['num_in_window']} densities lie on the power law."
    )


def _gamma_rows(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Ours first, each beside its published row; then the published rows that have none of ours."""
    table, used = [], set()
    for row in rows:
        found = published_gamma(row["dataset"])
        used.add(found.row if found else None)
        label = f"{row['task']} ({found.row})" if found else str(row["task"])
        cells = []
        for gauge in ("paper_gamma", "gamma"):
            ends = row[f"{gauge}_low"], row[f"{gauge}_high"]
            cells += [gamma_text(row[gauge], row["identified"])]
            cells += [interval_text(*ends, row["identified"])]
        table.append([label, *_published_cells(found), *cells])
    for found in published.rows(7):
        if found.row not in used:
            table.append([found.row, *_published_cells(found), *[MISSING] * 4])
    return table


def _published_cells(row: published.PublishedRow | None) -> list[str]:
    by_label = row.by_label if row else {}
    return [f"{by_label[c]:+.2f}" if c in by_label else MISSING for c in _columns()]


def _parameters(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    head = ["task", "seeds", "densities", "on the power law", "p", "q", "e_np (%)", "e_up (%)"]
    head += ["noise", "seeds / noise", "held out (points)"]
    has_window = "eq1_gamma" in rows[0]
    table = []
    for row in rows:
        is_counted = pd.notna(row["num_test"])
        noise = row["dispersion"] if is_counted else np.sqrt(row["dispersion"])
        known = [percent_text(row["p"]), percent_text(row["q"])]
        known += [f"{row['e_np']:.3g}", f"{row['e_up']:.3g}"]
        cells = [str(row[name]) for name in ("task", "num_seeds", "num_densities", "num_in_window")]
        cells += known if row["identified"] else [MISSING] * 4
        cells += [f"{noise:.2f} × binomial" if is_counted else f"{noise:.3f}"]
        cells += [_or_missing(row["seed_dispersion"]), _or_missing(row["held_out_rms"])]
        if has_window:
            ends = interval_text(row["eq1_gamma_low"], row["eq1_gamma_high"], True)
            cells.append(f"{row['eq1_gamma']:+.2f} {ends}")
        table.append(cells)
    return head + (["gamma of Eq. 1"] if has_window else []), table


def _or_missing(value: float) -> str:
    return MISSING if np.isnan(value) else f"{value:.2f}"


def _inline(svg: Path) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.read_bytes()).decode()}"
