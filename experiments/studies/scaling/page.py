"""The pages of `experiments.scaling`: the joint law of our networks, and the checks.

In: the folder of the experiment or of a check. Out: figures and a `Page`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.studies.scaling.checks import LABELS
from experiments.studies.scaling.findings import ABOVE_PLATEAU
from imp_rg.plots.scaling import network_collapse, size_collapse
from imp_rg.plots.style import save_figure
from imp_rg.report.columns import number, signed, significant, tabulate
from imp_rg.report.page import Page, Section
from imp_rg.rg.estimate import Estimate
from imp_rg.runs.files import read_csv, read_json

BY_COUNT = {"phi": 1.0, "psi": 2.0}
"""Exponents of a ResNet if errors depended on the number of kept weights alone, about l w^2 d."""

SIZE = {"phi": "depth", "psi": "width"}

BESIDE_COUNT = {
    "unknown": "and without an interval nothing follows",
    "as": "which the interval holds: kept weights may be all that counts",
    "below": "so at equal numbers of kept weights the smaller network errs less",
    "above": "so at equal numbers of kept weights the larger network errs less",
}
"""What follows from the side of `BY_COUNT` on which an interval lies."""


def make_page(folder: Path) -> Page:
    """Draws the figure and makes the page of the joint law."""
    points, law, fit, collapses = (
        read_csv(folder / f"{name}.csv")
        for name in ("points", "joint_law", "joint_fit", "collapses")
    )
    settings = read_json(folder / "config.json")
    ci = f"{100 * settings['ci_level']:g} %"
    figure = save_figure(network_collapse(points, law), folder / "figures", "joint_law")
    return Page(
        title="Width, depth and density of pruned networks",
        question="Do width w, depth l and density d of a pruned network act on its error through "
        "the one number m = l^phi w^psi d?",
        answers=answers(law, fit.iloc[0].to_dict(), ci, is_resnet=settings["family"] == "resnet"),
        sections=[
            Section(
                title="All networks on one curve",
                figures=[(figure, "Lines: the law of the lowest and the highest plateau.")],
            ),
            Section(
                title="Parameters of the joint law",
                text=[
                    "err = e_np [(m² + q²) / (m² + p²)]^(gamma/2), q = p (e_up / e_np)^(1/gamma): "
                    "gamma, p and e_up are shared, e_np is each network's own."
                ],
                table=tabulate(
                    law,
                    {
                        "parameter": "parameter",
                        "value": significant("value", 3),
                        f"{ci} interval": lambda row: Estimate.at(row).ends(2),
                    },
                ),
                note="Intervals take each curve (a network and a seed) as one unit, and hold if "
                "the law does.",
            ),
            Section(
                title="Collapse of one size at a time",
                text=[
                    "Without the law: ln err as a function of d L^(1/nu) alone, L a width or "
                    f"depth, on errors above {ABOVE_PLATEAU:g} times the dense one, because "
                    "plateaus differ. 1/nu is psi or phi; S is about 1 within the scatter of seeds."
                ],
                table=tabulate(
                    collapses,
                    {
                        "exponent": "exponent",
                        "held": "held",
                        "1/nu": _collapsed,
                        "S": number("quality", 1),
                        "points": "num_points",
                    },
                ),
                note="Errors are the standard deviation over bootstrap samples of the seeds; few "
                "seeds make it too small.",
            ),
        ],
    )


def answers(law: pd.DataFrame, fit: Mapping[Any, Any], ci: str, *, is_resnet: bool) -> list[str]:
    """What the data support.

    Args:
      law: ``joint_law.csv``.
      fit: The row of ``joint_fit.csv``.
      ci: Coverage of the intervals, as text.
      is_resnet: Whether the number of weights is about l w^2 d.
    """
    deviations = (
        f"Fitted over measured errors deviate by {fit['deviation_mean']:+.1f} % on average, with a "
        f"standard deviation of {fit['deviation_sd']:.0f} % over {fit['num_deviations']} points."
    )
    if not fit["identified"]:
        return [f"The data do not identify the joint law: {fit['reasons']}.", deviations]
    found = {row["parameter"]: Estimate.at(row) for row in law.to_dict("records")}
    exponents = []
    for name, by_count in BY_COUNT.items():
        if np.isnan(found[name].value):
            continue
        text = f"{name} = {found[name].text(2)} ({SIZE[name]}, {ci} interval)"
        if is_resnet:
            verdict = BESIDE_COUNT[found[name].side(by_count)]
            text += f"; the number of kept weights alone would give {by_count:g}, {verdict}"
        exponents.append(f"{text}.")
    gamma = f"gamma = {found['gamma'].text(2)}; {fit['num_in_window']} points lie on the power law."
    return [*exponents, gamma, deviations]


def make_check_page(folder: Path) -> Page:
    """Draws the figure and makes the page of a check."""
    points, check = read_csv(folder / "points.csv"), read_csv(folder / "check.csv")
    name = check["model"].iloc[0]
    figure = save_figure(size_collapse(points, check, LABELS[name]), folder / "figures", "collapse")
    check["in_errors"] = (check["found"] - check["exact"]) / check["error"]
    found = "; ".join(
        f"{row['quantity']} = {row['found']:.5g} ± {row['error']:.2g}, exact {row['exact']:.6g}, "
        f"{row['in_errors']:+.1f} standard errors off"
        for row in check.to_dict("records")
    )
    return Page(
        title=f"Finite-size scaling of {name}",
        question="Does the collapse find a critical point and an exponent that are known exactly?",
        answers=[f"{found}. S = {check['quality'].iloc[0]:.2f}."],
        sections=[
            Section(
                title="Collapse",
                figures=[(figure, "Left: as measured, the found critical point dotted.")],
                table=tabulate(
                    check,
                    {
                        "quantity": "quantity",
                        "exact": significant("exact", 6),
                        "found": significant("found", 5),
                        "bootstrap error": significant("error"),
                        "S → S+1": significant("s_plus_one"),
                        "deviation (%)": signed("deviation_percent", 2),
                        "in standard errors": signed("in_errors", 1),
                    },
                ),
                note="S → S+1: how far a parameter can go before the quality is worse by one, "
                "wider than a standard error. Points of one size share their samples, which "
                "lowers S below 1.",
            )
        ],
    )


def _collapsed(row: Mapping[str, Any]) -> str:
    return row["why"] if pd.notna(row["why"]) else f"{row['value']:.2f} ± {row['error']:.2f}"
