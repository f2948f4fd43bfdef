"""The page of `experiments.rg_axioms`: proven, measured, and what determinism needs.

In: the folder of the experiment. Out: figures and a `Page`.
"""

from pathlib import Path

import pandas as pd

from experiments.studies.rg_axioms.checks import COMPOSES, ONE_OUTCOME
from experiments.studies.rg_axioms.findings import (
    LEVEL,
    bound,
    by_paper,
    invariance,
    lowest_overlaps,
)
from imp_rg.plots.rg_axioms import overlap_curves, sigma_by_scale
from imp_rg.plots.style import save_figure
from imp_rg.report.columns import number, signed, tabulate
from imp_rg.report.page import Page, Section
from imp_rg.rg.estimate import Estimate
from imp_rg.runs.files import read_csv, read_json

BY_CONSTRUCTION = (
    "P >= 0. The projection operator of T is a Kronecker delta (Eq. 12), 0 or 1 by its form; the "
    "check below can only count how many states T leads to.",
    "The form of the loss. A pruned weight is a weight that is 0, so the loss is the dense one at "
    "other weights until a layer is empty.",
    "M composed with itself. Ranks of the same scores do not change and counts are exact, so "
    "pruning in steps equals pruning at once. With refinement in between nothing follows.",
)

DETERMINISM = (
    "A stored key repeats data order and augmentation; what is left is the order in which a device "
    "adds. On a CPU the same program on as many usable cores repeats its bits, also replicates "
    "in threads; other cores or another driver of the training loop may not. On a GPU "
    "--deterministic is needed.",
)

KINDS = {"step": "one seed, two step sizes", "seed": "two seeds, one step size"}

VERDICTS = {
    "unknown": "With refinement one seed gives no interval: nothing can be said about sigma and c.",
    "not refuted": "With refinement no dependence of sigma on c is seen",
    "small dependence": "With refinement sigma is not exactly invariant, but what differs is small",
    "dependence": "With refinement sigma depends on c",
}


def make_page(folder: Path) -> Page:
    """Draws the figures and writes the page from the tables of an experiment."""
    settings = read_json(folder / "config.json")
    ci = f"{100 * settings['ci_level']:g} %"
    checks, sigma, differences, overlap, empty = (
        read_csv(folder / f"{name}.csv")
        for name in ("checks", "sigma", "differences", "overlap", "empty_layers")
    )
    unrefined = read_csv(folder / "null_differences.csv")["largest"].max()
    by_scale = sigma_by_scale(sigma, differences, ci_level=settings["ci_level"])
    by_scale = save_figure(by_scale, folder / "figures", "sigma")
    masks = save_figure(overlap_curves(overlap), folder / "figures", "overlap")
    return Page(
        title="IMP as an RG scheme",
        question="Does IMP have the properties of an RG operator that the paper's Sec. 3.2 lists, "
        "and is sigma independent of the scale factor c (Eq. 14)?",
        answers=[
            invariance_sentence(differences, ci),
            f"Without refinement M in small steps equals M at once, to the bit: "
            f"{_holds(checks, COMPOSES)}; sigma then depends on c by up to {unrefined:.1g}, the "
            "rounding of counts.",
            "P >= 0 holds by construction; sum P = 1, T applied to one state with one key leads to "
            f"one state: {_holds(checks, ONE_OUTCOME)}. Empty layers: {len(empty)}.",
        ],
        sections=[
            Section(title="Proven by construction", text=BY_CONSTRUCTION),
            Section(
                title="Checked by applying the operators",
                table=tabulate(
                    checks,
                    {
                        "check": "check",
                        "holds": lambda row: "yes" if row["holds"] else "no",
                        "what was seen": "detail",
                    },
                ),
                note="Another key or driver need not lead to the same state: those rows say "
                "whether the key and the program belong to what has to be held.",
            ),
            Section(title="Where determinism needs more than a key", text=DETERMINISM),
            Section(
                title="Is sigma invariant under c?",
                figures=[(by_scale, "An interval that holds 0 shows no dependence on x.")],
                table=difference_table(differences, ci),
                note=f"Seed by seed ({settings['seeds']} seeds), paper's estimator; others stand "
                "in differences.csv. The width of the intervals says what could have been seen.",
            ),
            Section(
                title="Masks at equal densities",
                figures=[(masks, "Bands: t-intervals over seeds.")],
                table=tabulate(
                    lowest_overlaps(overlap),
                    {
                        "masks of": lambda row: KINDS[row["kind"]],
                        "density": number("density"),
                        "overlap": number("jaccard", 2),
                        "by chance": number("chance", 2),
                        "above chance": signed("above_chance", 2),
                    },
                ),
                note="Means at the lowest density.",
            ),
            Section(
                title="Empty layers",
                text=[] if len(empty) else ["No layer of any run lost all its weights."],
                table=tabulate(
                    empty, {name: name for name in ("x", "seed", "level", "status")}
                ),
            ),
        ],
    )  # fmt: skip


def difference_table(differences: pd.DataFrame, ci: str) -> pd.DataFrame:
    """Differences by the paper's estimator as text."""
    return tabulate(
        by_paper(differences),
        {
            "difference": lambda row: f"{row['x_a']:.4g} − {row['x_b']:.4g}",
            "block": "block",
            f"sigma, {ci} interval": lambda row: Estimate.at(row, "mean").text(4),
            "p, after Holm": number("p_holm"),
        },
    )


def invariance_sentence(differences: pd.DataFrame, ci: str) -> str:
    """Verdict on Eq. 14 with the largest difference and the bound of all."""
    verdict, rows = invariance(differences), by_paper(differences)
    if verdict == "unknown":
        return VERDICTS[verdict]
    largest = rows.iloc[rows["mean"].abs().to_numpy().argmax()]
    return (
        f"{VERDICTS[verdict]}: {(rows['p_holm'] < LEVEL).sum()} of {len(rows)} differences are "
        "significant after Holm's correction over all blocks and pairs; the largest is "
        f"{largest['mean']:+.3f} ({largest['block']}, x = {largest['x_a']:.4g} against "
        f"{largest['x_b']:.4g}), and all {ci} intervals lie within ±{bound(rows):.3f}."
    )


def _holds(checks: pd.DataFrame, check: str) -> str:
    return "yes" if checks.set_index("check")["holds"][check] else "no"
