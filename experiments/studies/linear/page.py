"""The page of the linear flow: question, answer, figures, tables, limits.

In: a `LinearResult`. Out: ``report.html``, which needs no other file, and ``figures``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.studies.linear.words import (
    TRAINED,
    LinearResult,
    answers,
    caveats,
    distinct,
    eigenvalue_text,
    ends_text,
)
from imp_rg.plots.linear import FittedFlow, linear_plane, linear_prediction
from imp_rg.report.figures import save_figures
from imp_rg.report.templates import Table, render
from imp_rg.report.words import block_list, decimal_text, environment_lines, number_text
from imp_rg.runs.files import write_bytes

CAPTIONS = {
    "plane": (
        "The flow in log-ratio coordinates",
        "Grey: the fitted vector field dz/dl = b + G z. Blue: the seeds, level by level from the "
        "dense network (square). Dashed: the linear flow from each seed's level 0, fitted to all "
        "seeds. A fixed point farther off than the visited range is not drawn.",
    ),
    "prediction": (
        "Prediction beside the seeds",
        "Share of each group against RG time. Dashed: linear flow from level 0; dotted: the same "
        "with G = 0. Both are fitted to all seeds; the errors in the table are those of left-out "
        "seeds.",
    ),
}


def lead_tables(result: LinearResult) -> dict[str, Table]:
    """Eigenvalues, fixed point and errors; the run first, then its nulls."""
    ci = f"{100 * result.ci_level:g} %"
    return {
        "Eigenvalues of G": _eigenvalue_table(result, ci),
        "Drift and fixed point of the trained weights": _group_table(result.trained),
        "Prediction error (root mean square, log-ratio coordinates)": _error_table(result),
    }


def write_page(folder: Path, result: LinearResult, environment: Mapping[str, Any]) -> Path:
    """Draws the figures and writes ``report.html``; returns its path."""
    drawn = {"prediction": linear_prediction(result.trained)}
    if len(result.trained.groups) == 3:
        drawn = {"plane": linear_plane(result.trained), **drawn}
    html = render(
        "linear.html.j2",
        name=result.name,
        answers=answers(result),
        figures=save_figures(drawn, CAPTIONS, folder / "figures"),
        tables=lead_tables(result),
        coupling=_coupling_table(result.trained),
        in_groups=_in_groups_table(result.trained.law.G_blocks, result.trained.groups),
        members={group: block_list(blocks) for group, blocks in result.members.items()},
        caveats=caveats(result),
        environment=environment_lines(environment),
        ci=f"{100 * result.ci_level:g} %",
    )
    write_bytes(folder / "report.html", html)
    return folder / "report.html"


def _eigenvalue_table(result: LinearResult, ci: str) -> Table:
    rows = []
    for name, fitted in result.fits.items():
        law = fitted.law
        for number, k in enumerate(distinct(law)):
            cells = [eigenvalue_text(law.eigenvalues[k]), ends_text(law.eigenvalues_ci[k])]
            rows.append(["" if number else _source(name), *cells])
    return Table(["flow", "eigenvalue", f"{ci} interval of the real part"], rows)


def _group_table(fitted: FittedFlow) -> Table:
    rows = [
        [
            group,
            number_text(fitted.law.b_blocks[i]),
            decimal_text(fitted.shares[:, 0, i].mean(), 3),
            decimal_text(fitted.shares[:, -1, i].mean(), 3),
            f"{fitted.shares[..., i].min():.3f} to {fitted.shares[..., i].max():.3f}",
            decimal_text(fitted.law.fixed_point[i], 3),
        ]
        for i, group in enumerate(fitted.groups)
    ]
    head = ["group", "b (drift at equal shares)", "share, dense", "share, last level", "visited"]
    return Table([*head, "fixed point"], rows)


def _error_table(result: LinearResult) -> Table:
    rows = []
    for name, fitted in result.fits.items():
        law = fitted.law
        errors = law.one_step, law.one_step_diagonal, law.multi_step, law.multi_step_diagonal
        cells = [decimal_text(error, 4) for error in errors]
        verdict = "identified" if law.identified else "not identified"
        rows.append([_source(name), *cells, f"{law.condition:.0f}", verdict])
    head = ["flow", "one level", "G = 0", "all from level 0", "G = 0", "condition", "verdict"]
    return Table(head, rows)


def _coupling_table(fitted: FittedFlow) -> Table:
    law, names = fitted.law, fitted.coordinates
    rows = []
    for i, name in enumerate(names):
        entries = [(law.b[i], law.b_ci[i])]
        entries += list(zip(law.G[i], law.G_ci[i], strict=True))
        rows.append([name, *(f"{value:+.2f} {ends_text(ends)}" for value, ends in entries)])
    return Table(["rate of", "b", *(f"G on {name}" for name in names)], rows)


def _in_groups_table(coupling: Any, groups: tuple[str, ...]) -> Table:
    rows = [
        [group, *map(number_text, values)] for group, values in zip(groups, coupling, strict=True)
    ]
    return Table(["rate of", *(f"from {group}" for group in groups)], rows)


def _source(name: str) -> str:
    return name if name == TRAINED else f"{name} null"
