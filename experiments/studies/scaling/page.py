"""The pages of `experiments.scaling`: the joint law of our networks, and the checks.

In: laws, tables and figures. Out: ``report.html``.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.studies.scaling.checks import Check
from experiments.studies.scaling.tables import ABOVE_PLATEAU
from imp_rg.report.page import Section, write_page
from imp_rg.report.words import MISSING
from imp_rg.rg import JointLaw

BY_COUNT = {"phi": 1.0, "psi": 2.0}
"""Exponents of a ResNet if errors depended on the number of kept weights alone, about l w^2 d."""

FIGURE_CAPTION = (
    "Left: error against density. Right: the same against m = l^phi w^psi d, with the law of the "
    "lowest and the highest plateau."
)

LAW = (
    "err = e_np [(m² + q²) / (m² + p²)]^(gamma/2), q = p (e_up / e_np)^(1/gamma): gamma, p and "
    "e_up are shared, e_np is each network's own."
)

COLLAPSE = (
    "Without the law: ln err as a function of d L^(1/nu) alone, L a width or depth, on errors "
    f"above {ABOVE_PLATEAU:g} times the dense one, because plateaus differ. 1/nu is psi or phi. S "
    "is the quality of Houdayer and Hartmann, about 1 for a collapse within the scatter of seeds."
)


def write_scaling_page(
    folder: Path,
    law: JointLaw,
    table: pd.DataFrame,
    collapses: pd.DataFrame,
    figure: Path,
    *,
    is_resnet: bool,
) -> Path:
    """Writes the page of the joint law; returns its path."""
    overview = Section(
        title="All networks on one curve",
        figures=[(figure, FIGURE_CAPTION)],
    )
    return write_page(
        folder / "report.html",
        title="Width, depth and density of pruned networks",
        question="Do width w, depth l and density d of a pruned network act on its error through "
        "the one number m = l^phi w^psi d?",
        answers=scaling_answers(law, is_resnet=is_resnet),
        sections=[overview, _parameters(table, law.ci_level), _collapses(collapses)],
    )


def _parameters(table: pd.DataFrame, ci_level: float) -> Section:
    return Section(
        title="Parameters of the joint law",
        text=[LAW],
        head=("parameter", "value", f"{100 * ci_level:g} % interval"),
        rows=[
            (row["parameter"], f"{row['value']:.3g}", _interval(row["low"], row["high"]))
            for row in table.to_dict("records")
        ],
        note="Intervals take each curve (a network and a seed) as one unit. They hold if the law "
        "does; the deviations above say how well.",
    )


def _collapses(collapses: pd.DataFrame) -> Section:
    return Section(
        title="Collapse of one size at a time",
        text=[COLLAPSE],
        head=("exponent", "held", "1/nu", "S", "points"),
        rows=[
            (
                row["exponent"],
                row["held"],
                row["why"] or f"{row['value']:.2f} ± {row['error']:.2f}",
                MISSING if np.isnan(row["quality"]) else f"{row['quality']:.1f}",
                str(row["num_points"]),
            )
            for row in collapses.to_dict("records")
        ],
        note="Errors are the spread over bootstrap samples of the seeds; few seeds make it too "
        "small.",
    )


def scaling_answers(law: JointLaw, *, is_resnet: bool) -> list[str]:
    """What the data support, in words."""
    deviation = law.deviation[np.isfinite(law.deviation)]
    spread = (
        f"Fitted over measured errors deviate by {100 * deviation.mean():+.1f} % on average with a "
        f"spread of {100 * deviation.std():.0f} % over {deviation.size} points."
    )
    if not law.identified:
        return [f"The data do not identify the joint law: {'; '.join(law.reasons)}.", spread]
    sentences = [
        _exponent_sentence(law, name, interval, is_resnet=is_resnet)
        for name, interval in (("phi", law.phi_ci), ("psi", law.psi_ci))
        if np.isfinite(getattr(law, name))
    ]
    points = f"{law.num_in_window} points lie on the power law"
    return [*sentences, f"gamma = {law.gamma:.2f} {_interval(*law.gamma_ci)}; {points}.", spread]


def _exponent_sentence(
    law: JointLaw, name: str, interval: tuple[float, float], *, is_resnet: bool
) -> str:
    """An exponent with its interval, beside what the count of kept weights would give."""
    value, (low, high), by_count = getattr(law, name), interval, BY_COUNT[name]
    size, smaller, larger = (
        ("depth", "shallower", "deeper") if name == "phi" else ("width", "narrower", "wider")
    )
    found = (
        f"{name} = {value:.2f} {_interval(low, high)} ({size}, {100 * law.ci_level:g} % interval)"
    )
    if not is_resnet:
        return f"{found}."
    better = smaller if value < by_count else larger
    verdict = f"so at equal numbers of kept weights the {better} network errs less"
    if low <= by_count <= high:
        verdict = "which the interval holds: kept weights may be all that counts"
    return f"{found}; the number of kept weights alone would give {by_count:g}, {verdict}."


def write_check_page(folder: Path, check: Check, figure: Path) -> Path:
    """Writes the page of a check; returns its path."""
    rows: list[dict[str, Any]] = check.table.to_dict("records")  # pyright: ignore[reportAssignmentType]
    section = Section(
        title="Collapse",
        figures=[(figure, "Left: as measured, the found critical point dotted. Right: collapsed.")],
        head=("quantity", "exact", "found", "bootstrap error", "S → S+1", "deviation"),
        rows=[
            (
                row["quantity"],
                f"{row['exact']:.6g}",
                f"{row['found']:.5g}",
                f"{row['error']:.2g}",
                f"{row['s_plus_one']:.2g}",
                f"{row['deviation_percent']:+.2f} %",
            )
            for row in rows
        ],
        note="S → S+1 is how far a parameter can go before the quality is worse by one: the custom "
        "of the field, wider than a standard error. Points of one size share their samples, which "
        "lowers S below 1.",
    )
    return write_page(
        folder / "report.html",
        title=f"Finite-size scaling of {check.name}",
        question="Does the collapse find a critical point and an exponent that are known exactly?",
        answers=[
            _deviation_sentence(row)
            for row in rows
        ]
        + [f"S = {check.found.quality:.2f}; {check.seconds:.0f} seconds."],
        sections=[section],
    )  # fmt: skip


def _deviation_sentence(row: dict[str, Any]) -> str:
    deviation = abs(row["found"] - row["exact"]) / row["error"]
    return (
        f"{row['quantity']} = {row['found']:.5g} ± {row['error']:.2g}, exact {row['exact']:.6g}: "
        f"{row['deviation_percent']:+.2f} %, {deviation:.1f} standard errors."
    )


def _interval(low: float, high: float) -> str:
    return MISSING if np.isnan(low) else f"[{low:.2f}, {high:.2f}]"
