"""The page of `experiments.rg_axioms`: proven, measured, and what determinism needs.

In: its tables and figures. Out: ``report.html``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.studies.rg_axioms.checks import COMPOSES, ONE_OUTCOME
from imp_rg.report.page import Section, write_page
from imp_rg.report.words import estimate_text, number_text, percent_text

BY_CONSTRUCTION = (
    "P >= 0. The projection operator of T is a Kronecker delta (Eq. 12): 0 or 1 by its form, "
    "whatever T does. The check below can only count how many states T leads to.",
    "The form of the loss. M removes weights and nothing else, and a pruned weight is a weight "
    "that is 0, so the loss is the dense one at other weights until a layer is empty. Such a layer "
    "is looked for at every level and named.",
    "M composed with itself. Ranks do not change between two prunings of the same scores, and "
    "counts are exact, so pruning in steps equals pruning at once. With refinement in between the "
    "scores change, and nothing follows: that is what is measured.",
)

DETERMINISM = (
    "sum P = 1 needs that T leads from one state to one state. Random numbers come from a key that "
    "is stored, so data order and augmentation repeat; what is left is the order in which a device "
    "adds. On a CPU the same program on the same number of usable cores repeats its bits without "
    "any flag, also with replicates in threads; another number of cores or another CPU affinity "
    "may not (the run folder records the number and warns when it changes). Another driver of the "
    "training loop is another program, and need not agree. On a GPU --deterministic is needed.",
)

SIGMA_CAPTION = (
    "Top: sigma of every block at each step size x. Bottom: differences; an interval that holds 0 "
    "shows no dependence on x."
)

OVERLAP_CAPTION = "Jaccard overlap of masks at matched densities. Bands: t-intervals over seeds."

SMALL = 0.03
"""Differences of sigma below this are called small: the paper prints two decimals."""


def write_projection_page(
    folder: Path,
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Path],
    *,
    collapsed: Mapping[float, list[str]],
    null_difference: float,
    ci_level: float,
    num_seeds: int,
) -> Path:
    """Writes ``report.html``; returns its path."""
    ci = f"{100 * ci_level:g} %"
    empty = [f"x = {x:.4g}, {what}" for x, found in collapsed.items() for what in found]
    sections = [
        Section(title="Proven by construction", text=BY_CONSTRUCTION),
        _check_section(tables["checks"]),
        Section(
            title="Empty layers",
            text=empty or ["No layer of any run lost all its weights: the loss kept its form."],
        ),
        Section(title="Where determinism needs more than a key", text=DETERMINISM),
        _sigma_section(tables["differences"], figures["sigma"], null_difference, ci, num_seeds),
        Section(
            title="Masks at equal densities",
            text=[_overlap_sentence(tables["overlap"])],
            figures=[(figures["overlap"], OVERLAP_CAPTION)],
        ),
    ]
    return write_page(
        folder / "report.html",
        title="IMP as an RG scheme",
        question="Does IMP have the properties of an RG operator that the paper's Sec. 3.2 lists, "
        "and is sigma independent of the scale factor c (Eq. 14)?",
        answers=_answers(tables, empty, null_difference, ci),
        sections=sections,
    )


def _check_section(checks: pd.DataFrame) -> Section:
    return Section(
        title="Checked by applying the operators",
        head=("check", "holds", "what was seen"),
        rows=[
            (row["check"], "yes" if row["holds"] else "no", row["detail"])
            for row in checks.to_dict("records")
        ],
        note="Another key or driver need not lead to the same state: those rows say whether the "
        "key and the program belong to what has to be held.",
    )


def _sigma_section(
    differences: pd.DataFrame, figure: Path, null_difference: float, ci: str, num_seeds: int
) -> Section:
    return Section(
        title="Is sigma invariant under c?",
        text=[
            f"Differences of sigma between step sizes over the same range of densities, seed by "
            f"seed, {num_seeds} seeds, {ci} t-intervals, paper's estimator. Without refinement "
            f"(one-shot null) the largest difference is {null_difference:.1g}: rounding of counts."
        ],
        figures=[(figure, SIGMA_CAPTION)],
        head=("difference", "block", f"sigma, {ci} interval", "p, after Holm"),
        rows=[
            (
                f"{row['x_a']:.4g} − {row['x_b']:.4g}",
                row["block"],
                estimate_text(row["mean"], row["low"], row["high"]),
                number_text(row["p_holm"]).lstrip("+"),
            )
            for row in _paper(differences).to_dict("records")
        ],
        note="Other estimators stand in differences.csv. Not different is not the same: the width "
        "of the intervals says what could have been seen.",
    )


def _paper(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["estimator"] == "paper"]


def _answers(
    tables: Mapping[str, pd.DataFrame], empty: list[str], null_difference: float, ci: str
) -> list[str]:
    holds = dict(zip(tables["checks"]["check"], tables["checks"]["holds"], strict=True))
    outcome = "led to one state" if holds[ONE_OUTCOME] else "led to several states"
    verdict = "holds" if holds[ONE_OUTCOME] else "fails"
    composes = "equals" if holds[COMPOSES] else "differs from"
    collapse = f"{len(empty)} empty layers were found" if empty else "no layer was emptied"
    return [
        f"P >= 0 holds by construction; T applied to one state with one key {outcome}, so "
        f"sum P = 1 {verdict} here; {collapse}.",
        f"Without refinement M in small steps {composes} M at once, to the bit, and sigma does "
        f"not depend on c (differences up to {null_difference:.1g}).",
        invariance_sentence(tables["differences"], ci),
    ]


def invariance_sentence(differences: pd.DataFrame, ci: str) -> str:
    """Verdict on Eq. 14 with refinement, by the paper's estimator."""
    rows: list[dict[str, Any]] = _paper(differences).to_dict("records")  # pyright: ignore[reportAssignmentType]
    if any(np.isnan(row["low"]) for row in rows):
        return "With refinement one seed gives no interval: nothing can be said about sigma and c."
    bound = max(max(-row["low"], row["high"]) for row in rows)
    widest = max(rows, key=lambda row: abs(row["mean"]))
    size = (
        f"the largest difference is {widest['mean']:+.3f} ({_pair(widest)}), and all {len(rows)} "
        f"{ci} intervals lie within ±{bound:.3f}"
    )
    differing = [row for row in rows if row["p_holm"] < 0.05]
    if not differing:
        return (
            "With refinement no dependence of sigma on c is seen after Holm's correction over all "
            f"blocks and pairs: {size}."
        )
    names = ", ".join(f"{_pair(row)}: {row['mean']:+.3f}" for row in differing)
    return (
        f"With refinement sigma is not exactly invariant: {len(differing)} of {len(rows)} "
        f"differences are significant after Holm's correction over all blocks and pairs ({names}). "
        f"They are small: {size}."
        if bound < SMALL
        else f"With refinement sigma depends on c: {len(differing)} of {len(rows)} differences "
        f"are significant after Holm's correction over all blocks and pairs ({names}); {size}."
    )


def _pair(row: dict[str, Any]) -> str:
    return f"{row['block']}, x = {row['x_a']:.4g} against {row['x_b']:.4g}"


def _overlap_sentence(overlap: pd.DataFrame) -> str:
    lowest = overlap[overlap["density"] < 1.01 * overlap["density"].min()]
    step, seed = (lowest[lowest["kind"] == kind] for kind in ("step", "seed"))
    text = (
        f"At {percent_text(lowest['density'].min())} density masks of one seed made in different "
        f"steps overlap {step['above_chance'].mean():.2f} above chance "
        f"({step['jaccard'].mean():.2f} against {step['chance'].mean():.2f})"
    )
    if seed.empty:
        return f"{text}."
    return f"{text}; those of two seeds {seed['above_chance'].mean():+.2f}."
