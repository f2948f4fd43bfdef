"""What a comparison says, in sentences with their uncertainty.

In: `ComparisonTables`. Out: sentences for the page. "Different" is a claim and needs a test; "not
told apart" is not "the same", so it comes with the difference that is still possible.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from imp_rg.plots.style import Frame
from imp_rg.report.caveats import Caveat
from imp_rg.report.compare_folder import ComparisonTables
from imp_rg.report.run_tables import select
from imp_rg.report.words import count_text, estimate_text, percent_text
from imp_rg.rg.universality import MIN_SEEDS, SIGNIFICANCE, seeds_needed

MIN_PAIRS = 4
"""Fewest pairs of runs for a rank correlation over pairs."""


def answer(tables: ComparisonTables) -> list[str]:
    """The result in a few sentences. House definition."""
    pairs = tables.of("sigma")
    verdicts = pairs["verdict"].value_counts()
    numbers = {run["name"]: run["class"] for run in tables.runs}
    decided = sorted({number for number in numbers.values() if number})
    if not decided:
        smallest = pairs["p_holm_smallest"].fillna(pairs["p_smallest"]).min()
        return [
            "Whether these runs share a universality class cannot be decided: with so few seeds "
            f"and {count_text(len(pairs), 'pair')} of runs, the smallest possible p-value is "
            f"{_p_text(smallest)}. {seeds_needed(len(pairs))} seeds in every run would do. What "
            "stands is the size of each difference, with its interval.",
            "Should a ticket of one run work in another? No prediction is made.",
        ]
    members = [
        f"class {number}: {', '.join(name for name, of in numbers.items() if of == number)}"
        for number in decided
    ]
    undecided = [name for name, number in numbers.items() if not number]
    if undecided:
        members.append(f"undecided: {', '.join(undecided)}")
    if len(decided) == 1:
        first = "No two runs could be told apart, so they stay in one universality class. That is "
        first += f"no proof that they are the same ({'; '.join(members)})."
    else:
        first = f"The runs fall into {len(decided)} universality classes ({'; '.join(members)})."
    counts = [f"{count} {verdict}" for verdict, count in verdicts.items()]
    return [
        first,
        f"Of {count_text(len(pairs), 'pair')}: {', '.join(counts)}.",
        "Should a ticket of one run work in another? Within a class, yes; where two runs are told "
        "apart, no. This is a prediction of the theory and unproven: nothing was transferred here, "
        "and the distance of sigma has not been shown here to predict transfer any better than the "
        "P profile, a control that only counts the surviving weights.",
    ]


def prediction(pair: dict) -> str:
    """Should a ticket of one run work in the other? Never more than a prediction.

    Args:
      pair: Row of ``comparison.csv`` with the measure sigma.

    References:
      House definition, after Redman et al., arXiv:2110.03210, Sec. 5.
    """
    if pair["verdict"] == "different":
        return "predicted: no"
    if pair["verdict"] == "not told apart" and pair["class_a"] == pair["class_b"]:
        return "predicted: yes"
    return "no prediction"


def pair_sentence(tables: ComparisonTables, run_a: str, run_b: str) -> str:
    """One pair in words, with its uncertainty.

    Args:
      tables: The comparison.
      run_a: First run, as in ``comparison.csv``.
      run_b: Second run.

    Returns:
      Verdict, size of the difference with its interval, and whether the controls agree.

    References:
      House definition.
    """
    rows = select(tables.pairs, run_a=run_a, run_b=run_b).set_index("measure")
    sigma = rows.loc["sigma"].to_dict()
    blocks = select(tables.blocks, run_a=run_a, run_b=run_b, measure="sigma")
    texts = [_verdict_text(sigma, blocks, run_a, run_b, num_pairs=len(tables.of("sigma")))]
    if blocks["difference"].notna().any():
        texts.append(_difference_text(blocks, run_a, run_b))
    if sigma["verdict"] == "different":
        texts += _control_texts(rows)
    if sigma["matched_by"] == "profile":
        texts.append("Their depths differ, so they are compared at equal relative depth.")
    return " ".join(texts)


def _verdict_text(sigma: dict, blocks: Frame, run_a: str, run_b: str, *, num_pairs: int) -> str:
    p = f"p = {_p_text(sigma['p'])}"
    if num_pairs > 1 and not np.isnan(sigma["p_holm"]):
        p += f", {_p_text(sigma['p_holm'])} after correction for {num_pairs} pairs"
    if sigma["verdict"] == "different":
        return f"{run_a} and {run_b} flow differently ({p})."
    if sigma["verdict"] == "not told apart":
        return f"{run_a} and {run_b} cannot be told apart ({p})."
    seeds = blocks[["num_seeds_a", "num_seeds_b"]].iloc[0].tolist() if len(blocks) else [0, 0]
    against = f"{seeds[0]} against {count_text(seeds[1], 'seed')}"
    if np.isnan(sigma["p_smallest"]):
        return f"No verdict on {run_a} and {run_b}: their exponents are not known."
    if min(seeds) < MIN_SEEDS or np.isnan(sigma["p_holm_smallest"]):
        reason = f"{against} could not give a p-value below {_p_text(sigma['p_smallest'])}"
    else:
        reason = (
            f"{against} among {num_pairs} pairs could not give an adjusted p-value below "
            f"{_p_text(sigma['p_holm_smallest'])}"
        )
    found = sigma["p"] if np.isnan(sigma["p_holm"]) else sigma["p_holm"]
    return f"No verdict on {run_a} and {run_b}: {reason} (it is {_p_text(found)})."


def _difference_text(blocks: Frame, run_a: str, run_b: str) -> str:
    """The largest difference, and what the intervals still allow."""
    at = blocks["difference"].abs().idxmax()
    largest = blocks.loc[at]
    ends = largest["difference"], largest["ci_low"], largest["ci_high"]
    text = f"Largest difference of sigma, {run_a} minus {run_b}: {estimate_text(*ends)} in "
    text += f"{largest['block']}"
    if np.isnan(largest["ci_low"]):
        return f"{text}; one seed gives no interval."
    excludes = (blocks["ci_low"] > 0) | (blocks["ci_high"] < 0)
    text += f"; the interval leaves out zero in {excludes.sum()} of {len(blocks)} blocks"
    bound = np.nanmax(np.abs(blocks[["ci_low", "ci_high"]].to_numpy(float)))
    return f"{text}, and allows differences up to {bound:.3f}."


def _control_texts(rows: Frame) -> list[str]:
    """Whether what parts two runs is there without learning, or in the counts alone."""
    texts = []
    for measure, meaning in (
        ("excess_init", "after the init null is taken off, they are {}"),
        ("param_share", "by counts of surviving weights alone (P profile), they are {}"),
    ):
        if measure in rows.index and rows.loc[measure, "verdict"] != "no verdict":
            texts.append(meaning.format(rows.loc[measure, "verdict"]))
    if not texts:
        return []
    text = "; ".join(texts)
    return [f"{text[0].upper()}{text[1:]}."]


def _p_text(p: float) -> str:
    return f"{p:.2g}" if p >= 0.001 else "below 0.001"


def comparison_caveats(tables: ComparisonTables) -> list[Caveat]:
    """All limits that hold for a comparison, the gravest first. House definition."""
    finders = (_few_seeds, _many_pairs, _control, _excess, _loose, _profiles, _densities, _notes)
    return [caveat for finder in finders for caveat in finder(tables)]


def _few_seeds(tables: ComparisonTables) -> Iterator[Caveat]:
    few = [f"{r['name']} ({r['num_seeds']})" for r in tables.runs if r["num_seeds"] < MIN_SEEDS]
    if few:
        yield Caveat(
            "few seeds",
            f"Fewer than {MIN_SEEDS} seeds: {', '.join(few)}. Three against three have 20 "
            "relabellings, of which two part the groups as far as the actual one: p cannot fall "
            "below 0.10, so there is no verdict, only intervals; of one seed not even those.",
        )


def _many_pairs(tables: ComparisonTables) -> Iterator[Caveat]:
    pairs = tables.of("sigma")
    out_of_reach = pairs[pairs["p_holm_smallest"] >= SIGNIFICANCE]
    if len(out_of_reach):
        yield Caveat(
            "many pairs",
            f"With {len(pairs)} pairs the correction for many tests leaves "
            f"{count_text(len(out_of_reach), 'pair')} without a possible verdict: the smallest "
            f"adjusted p-value is {_p_text(out_of_reach['p_holm_smallest'].min())}. Compare fewer "
            f"runs, or give each {seeds_needed(len(pairs))} seeds.",
        )


def _control(tables: ComparisonTables) -> Iterator[Caveat]:
    sigma, counts = tables.of("sigma"), tables.of("param_share")
    same = (sigma["verdict"] == counts["verdict"])[sigma["verdict"] != "no verdict"]
    both = pd.DataFrame({"sigma": sigma["distance"], "counts": counts["distance"]}).dropna()
    has_ranks = len(both) >= MIN_PAIRS and (both.nunique() > 1).all()
    parts = []
    if len(same):
        parts.append(f"gives the same verdict in {same.sum()} of {count_text(len(same), 'pair')}")
    if has_ranks:
        ranks = both.rank().corr().to_numpy()[0, 1]
        parts.append(f"orders the pairs with a rank correlation of {ranks:.2f} to sigma's distance")
    if parts:
        yield Caveat(
            "control",
            "The P profile knows nothing but how many weights survive in each block. It "
            f"{' and '.join(parts)}. Where it agrees, magnitudes have explained nothing that "
            "counts do not.",
        )


def _excess(tables: ComparisonTables) -> Iterator[Caveat]:
    sigma = tables.of("sigma").set_index(["run_a", "run_b"])["verdict"]
    for measure in tables.measures:
        if measure.startswith("excess_"):
            excess = tables.of(measure).set_index(["run_a", "run_b"])["verdict"]
            gone = sigma.index[(sigma == "different") & (excess == "not told apart")]
            if len(gone):
                null = measure.removeprefix("excess_")
                yield Caveat(
                    f"excess {null}",
                    f"Different in sigma, but not in what exceeds the {null} null: "
                    f"{_pair_list(gone)}. There the difference may lie in shapes and initial "
                    "weights rather than in what was learned.",
                )


def _loose(tables: ComparisonTables) -> Iterator[Caveat]:
    pairs = tables.of("sigma")
    loose = pairs[
        (pairs["class_a"] != pairs["class_b"])
        & pairs[["class_a", "class_b"]].notna().all(axis=1)
        & (pairs["verdict"] == "not told apart")
    ]
    if len(loose):
        yield Caveat(
            "loose",
            "In different classes, though not told apart themselves: "
            f"{_pair_list(loose[['run_a', 'run_b']].itertuples(index=False))}. Each stands with "
            "the runs it is closest to.",
        )


def _profiles(tables: ComparisonTables) -> Iterator[Caveat]:
    pairs = tables.of("sigma")
    profiled = pairs[pairs["matched_by"] == "profile"]
    if len(profiled):
        yield Caveat(
            "profile",
            f"Compared by profile, because their blocks differ: "
            f"{_pair_list(profiled[['run_a', 'run_b']].itertuples(index=False))}. Exponents are "
            "interpolated on relative depth inside each stage, which is itself an assumption.",
        )


def _densities(tables: ComparisonTables) -> Iterator[Caveat]:
    last = {run["name"]: run["density"][-1] for run in tables.runs}
    if max(last.values()) > 1.05 * min(last.values()):
        texts = [f"{name} {percent_text(density)}" for name, density in last.items()]
        yield Caveat(
            "densities",
            f"The runs end at different densities ({', '.join(texts)}). Sigma is a mean over all "
            "levels of a run, so unless the flow is a pure exponential, part of a difference comes "
            "from that.",
        )


def _notes(tables: ComparisonTables) -> Iterator[Caveat]:
    for run in tables.runs:
        for note in run["notes"]:
            yield Caveat("run", f"{run['name']}: {note}")


def _pair_list(pairs) -> str:
    return "; ".join(f"{a} and {b}" for a, b in pairs)
