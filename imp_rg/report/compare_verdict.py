"""What a comparison comes to: classes of runs, differences of pairs, and what limits them.

In: `ComparisonTables`. Out: a frame of pairs, answers and `Caveat`s. "Different" is a claim and
needs a test; "not told apart" is not "the same", so it comes with the difference that is still
possible.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from imp_rg.report.caveats import Caveat
from imp_rg.report.words import count_text, percent_text
from imp_rg.rg.estimate import Estimate
from imp_rg.rg.universality import MIN_SEEDS, SIGNIFICANCE, seeds_needed
from imp_rg.runs.agreement import agreement
from imp_rg.runs.comparison_tables import ComparisonTables
from imp_rg.runs.run_tables import select

MIN_PAIRS = 4
"""Fewest pairs of runs for a rank correlation over pairs."""

CONTROLS = ("excess_init", "param_share")
"""Measures whose verdicts stand beside that of sigma: without learning, and by counts alone."""

MEASURE_TITLES = {
    "sigma": "σ",
    "param_share": "P profile (counts only)",
    "mask_overlap": "1 − mask overlap above chance",
}


def measure_title(measure: str) -> str:
    """Short name of a measure: σ, σ − init null, ..."""
    return MEASURE_TITLES.get(measure, f"σ − {measure.removeprefix('excess_')} null")


def pair_frame(tables: ComparisonTables) -> pd.DataFrame:
    """What is known of each pair beside the rows of ``comparison.csv`` with the measure sigma.

    Returns:
      Those rows, and prediction (whether a ticket should transfer), largest, largest_low,
      largest_high (difference of sigma), largest_block, num_blocks, num_apart (blocks whose
      interval leaves out zero; NaN without intervals), bound (largest difference that an interval
      allows), and for each N of `CONTROLS` verdict_N.

    References:
      House definition.
    """
    pairs = tables.of("sigma").to_dict("records")
    return pd.DataFrame([{**row, "prediction": prediction(row), **_pair(tables, row)}
                         for row in pairs])  # fmt: skip


def prediction(pair: dict[Any, Any]) -> str:
    """Should a ticket of one run work in the other: yes, no, none. Never more than a prediction.

    Args:
      pair: Row of ``comparison.csv`` with the measure sigma.

    References:
      House definition, after Redman et al., arXiv:2110.03210, Sec. 5.
    """
    if pair["verdict"] == "different":
        return "no"
    is_one_class = pair["class_a"] == pair["class_b"]
    return "yes" if pair["verdict"] == "not told apart" and is_one_class else "none"


def _pair(tables: ComparisonTables, row: dict[Any, Any]) -> dict[str, Any]:
    pair = {"run_a": row["run_a"], "run_b": row["run_b"]}
    verdicts = select(tables.pairs, **pair).set_index("measure")["verdict"]
    blocks = select(tables.blocks, **pair, measure="sigma")
    found: dict[str, Any] = {f"verdict_{n}": verdicts.get(n, "no verdict") for n in CONTROLS}
    found["num_blocks"] = len(blocks)
    value, low, high = blocks[["difference", "ci_low", "ci_high"]].to_numpy(float).T
    if not np.isfinite(value).any():
        none = Estimate(np.nan).columns("largest")
        return found | none | {"largest_block": "", "num_apart": np.nan, "bound": np.nan}
    at = np.nanargmax(np.abs(value))
    has_intervals = np.isfinite(low).any()
    return found | {
        **Estimate(value[at], low[at], high[at]).columns("largest"),
        "largest_block": blocks["block"].iloc[at],
        "num_apart": Estimate(value, low, high).excludes().sum() if has_intervals else np.nan,
        "bound": np.nanmax(np.abs([low, high])) if has_intervals else np.nan,
    }


def classes(tables: ComparisonTables) -> dict[int, list[str]]:
    """Names of the runs of each class, and under 0 of those that are undecided."""
    found: dict[int, list[str]] = {}
    for run in sorted(tables.runs, key=lambda run: run["class"] or np.inf):
        found.setdefault(run["class"] or 0, []).append(run["name"])
    return found


def answers(tables: ComparisonTables) -> list[str]:
    """The result in a few sentences. House definition."""
    pairs, members = tables.of("sigma"), classes(tables)
    num_classes = len(members.keys() - {0})
    if not num_classes:
        smallest = pairs["p_holm_smallest"].fillna(pairs["p_smallest"]).min()
        return [
            "Whether these runs share a universality class cannot be decided: with so few seeds "
            f"and {count_text(len(pairs), 'pair')} the smallest possible p is "
            f"{_p_text(smallest)}; {seeds_needed(len(pairs))} seeds in every run would do.",
            "Should a ticket of one run work in another? No prediction is made.",
        ]
    listed = "; ".join(
        f"{f'class {number}' if number else 'undecided'}: {', '.join(names)}"
        for number, names in members.items()
    )
    counts = [f"{count} {verdict}" for verdict, count in pairs["verdict"].value_counts().items()]
    first = f"The runs fall into {num_classes} universality classes ({listed})."
    if num_classes == 1:
        first = f"No two runs are told apart, which is no proof that they are the same ({listed})."
    return [
        first,
        f"Of {count_text(len(pairs), 'pair')}: {', '.join(counts)}.",
        "Should a ticket of one run work in another? Within a class yes, where two are told apart "
        "no: a prediction of the theory, unproven here, where nothing was transferred.",
    ]


def _p_text(p: float) -> str:
    return f"{p:.2g}" if p >= 0.001 else "below 0.001"


def comparison_caveats(tables: ComparisonTables) -> list[Caveat]:
    """All limits that hold for a comparison, the gravest first. House definition."""
    finders = (_few_seeds, _many_pairs, _control, _excess, _loose, _profiles, _densities)
    found = [caveat for finder in finders for caveat in finder(tables)]
    notes = ((run["name"], note) for run in tables.runs for note in run["notes"])
    return found + [Caveat("run", f"{name}: {note}") for name, note in notes]


def _few_seeds(tables: ComparisonTables) -> Iterator[Caveat]:
    few = [f"{r['name']} ({r['num_seeds']})" for r in tables.runs if r["num_seeds"] < MIN_SEEDS]
    if few:
        yield Caveat(
            "few seeds",
            f"{', '.join(few)}. Below {MIN_SEEDS}, p cannot fall under 0.10, so there is no "
            "verdict, only intervals; of one seed not even those.",
        )


def _many_pairs(tables: ComparisonTables) -> Iterator[Caveat]:
    pairs = tables.of("sigma")
    out_of_reach = pairs[pairs["p_holm_smallest"] >= SIGNIFICANCE]
    if len(out_of_reach):
        yield Caveat(
            "many pairs",
            f"corrected for {len(pairs)}, {len(out_of_reach)} cannot get a verdict: the smallest "
            f"adjusted p is {_p_text(out_of_reach['p_holm_smallest'].min())}. Compare fewer runs, "
            f"or give each {seeds_needed(len(pairs))} seeds.",
        )


def _control(tables: ComparisonTables) -> Iterator[Caveat]:
    sigma, counts = tables.of("sigma"), tables.of("param_share")
    is_decided = sigma["verdict"] != "no verdict"
    same = (sigma["verdict"] == counts["verdict"])[is_decided]
    both = pd.DataFrame({"sigma": sigma["distance"], "counts": counts["distance"]}).dropna()
    parts = []
    if len(same):
        parts.append(
            f"gives the verdict of sigma in {same.sum()} of {count_text(len(same), 'pair')}"
        )
    if len(both) >= MIN_PAIRS and (both.nunique() > 1).all():
        ranks = agreement(both["sigma"], both["counts"]).rank_correlation
        parts.append(f"orders the pairs as sigma does (rank correlation {ranks:.2f})")
    if parts:
        text = f"the P profile, which only counts weights, {' and '.join(parts)}."
        yield Caveat("control", text)


def _excess(tables: ComparisonTables) -> Iterator[Caveat]:
    sigma = tables.of("sigma").set_index(["run_a", "run_b"])["verdict"]
    for measure in (m for m in tables.measures if m.startswith("excess_")):
        excess = tables.of(measure).set_index(["run_a", "run_b"])["verdict"]
        gone = sigma.index[(sigma == "different") & (excess == "not told apart")]
        if len(gone):
            yield Caveat(
                "excess",
                f"different in sigma, not in its excess over the {measure.removeprefix('excess_')} "
                f"null, so perhaps by shapes and initial weights alone: {_pair_list(gone)}.",
            )


def _loose(tables: ComparisonTables) -> Iterator[Caveat]:
    pairs = tables.of("sigma")
    is_decided = pairs["class_a"].notna() & pairs["class_b"].notna()
    is_parted = is_decided & (pairs["class_a"] != pairs["class_b"])
    loose = pairs[is_parted & (pairs["verdict"] == "not told apart")]
    if len(loose):
        yield Caveat("loose", f"in different classes, but not told apart: {_names_of(loose)}.")


def _profiles(tables: ComparisonTables) -> Iterator[Caveat]:
    pairs = tables.of("sigma")
    profiled = pairs[pairs["matched_by"] == "profile"]
    if len(profiled):
        text = "of other blocks, so interpolated on relative depth inside each stage"
        yield Caveat("profile", f"{text}: {_names_of(profiled)}.")


def _densities(tables: ComparisonTables) -> Iterator[Caveat]:
    last = {run["name"]: run["density"][-1] for run in tables.runs}
    if max(last.values()) > 1.05 * min(last.values()):
        texts = [f"{name} {percent_text(density)}" for name, density in last.items()]
        yield Caveat(
            "densities",
            f"the runs end at {', '.join(texts)}; unless flows are exponential, means over all "
            "levels differ by that too.",
        )


def _names_of(pairs: pd.DataFrame) -> str:
    return _pair_list(zip(pairs["run_a"], pairs["run_b"], strict=True))


def _pair_list(pairs: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{a} and {b}" for a, b in pairs)
