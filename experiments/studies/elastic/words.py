"""What the tables of `experiments.elastic` say, in sentences.

In: its tables. Out: the verdict and one sentence a question.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from experiments.studies.elastic.config import DEFAULT_MAPS
from experiments.studies.elastic.tables import ALL_STAGES
from imp_rg.plots.style import Frame
from imp_rg.report.words import MISSING, count_text

PREDICTORS = {
    "sigma": "mismatch of σ",
    "excess_init": "mismatch of σ beyond the init null",
    "excess_oneshot": "mismatch of σ beyond the oneshot null",
    "param_share": "mismatch of the exponents of surviving counts",
    "sigma_init": "mismatch of the init null's σ, which has learned nothing",
    "sigma_all_levels": "mismatch of σ over all levels",
    "depth_ratio": "control: |ln of the ratio of depths|",
    "depth_difference": "control: |difference of depths|",
}

NEEDED = {
    "unique blocks": ((32, 56), "32 to 56, four against two and one unique block"),
    "earlier blocks copied": ((32, 44), "32 to 44, the last two blocks copied"),
    "first blocks dropped": ((56, 32), "56 to 32, the first four blocks dropped"),
}
"""Depths that the study's own test of a statement needs, and that test."""


def points_text(value: float, low: float, high: float) -> str:
    """Points with their interval; dashes where there is none."""
    if np.isnan(value):
        return MISSING
    return f"{value:+.1f}" + ("" if np.isnan(low) else f" [{low:+.1f}, {high:+.1f}]")


def verdict(tables: Any) -> str:
    """The whole page in one paragraph; `tables` as of `experiments.studies.elastic.page`."""
    warnings = [
        verdict_of(row)
        for statement in NEEDED
        for row in of_statement(tables.comparisons, statement)
    ]
    sigma = tables.score.set_index("predictor").loc["sigma"]
    found = {
        "no power": "cannot be told apart from the ratio of depths as a predictor of what is lost "
        "(no power)",
        "beats the ratio of depths": "foretells what is lost better than the ratio of depths",
        "loses to the ratio of depths": "foretells what is lost worse than the ratio of depths",
    }[sigma["verdict"]]
    return (
        f"Verdict: of the tickets moved to another depth by the default maps, "
        f"{margin_tally(tables.transfer)}. Of {count_text(len(warnings), 'comparison')} with a map "
        f"that the elastic study found worse, {warnings.count('worse')} came out worse, "
        f"{warnings.count('better')} better, the others were not told apart. The mismatch of σ "
        f"{found}."
    )


def margin_tally(transfer: Frame) -> str:
    """How many tickets do as well as the target's own, and how many better than chance."""
    cells = transfer[transfer["counted"] & transfer["map"].isin(DEFAULT_MAPS)]
    above = int((cells["minus_random_low"] > 0).sum())
    return (
        f"{cells['transfers'].sum()} of {len(cells)} that count come within the margin of the "
        f"target's own ticket and {above} do clearly better than a random mask"
    )


def transfer_sentence(transfer: Frame) -> str:
    """Do tickets work at other depths, by the default maps?"""
    is_default = transfer["map"].isin(DEFAULT_MAPS)
    cells = transfer[transfer["counted"] & is_default]
    moved = transfer[is_default]
    if cells.empty:
        return (
            "Whether tickets work at other depths cannot be said: in all "
            f"{count_text(len(moved), 'cell')} a random mask does as well, or nothing is known."
        )
    num, above = int(cells["transfers"].sum()), int((cells["minus_random_low"] > 0).sum())
    above_reinit = int((cells["minus_reinit_low"] > 0).sum())
    return (
        f"Moved between depths by the default maps, {num} of {len(cells)} tickets come within the "
        f"margin (1 point, or 2 standard errors) of the target's own ticket at the same density; "
        f"they lose {cells['loss'].median():+.1f} points in the median, {cells['loss'].min():+.1f} "
        f"to {cells['loss'].max():+.1f}. {above} of {len(cells)} do better than a random mask of "
        f"the same densities and {above_reinit} better than their own masks on fresh weights, with "
        f"intervals clear of 0; {count_text(len(moved) - len(cells), 'cell')} did not count "
        "(saturated, or beyond the densities of the target's own tickets)."
    )


def comparison_sentence(comparisons: Frame, statement: str) -> str:
    """What one statement about maps gave, comparison by comparison."""
    rows = of_statement(comparisons, statement)
    if not rows:
        return "not tested: no pair of depths here has both maps at a density that counts"
    return "; ".join(
        f"{row['source_depth']} to {row['target_depth']}, {row['worse']} against {row['better']}: "
        f"{points_text(row['mean'], row['mean_low'], row['mean_high'])} points, {verdict_of(row)}"
        for row in rows
    )


def verdict_of(row: dict[str, Any]) -> str:
    """Whether the map called worse was worse."""
    if np.isnan(row["mean_low"]):
        return "no interval"
    if row["mean_low"] > 0:
        return "worse"
    return "better" if row["mean_high"] < 0 else "not told apart"


def of_statement(comparisons: Frame, statement: str) -> list[dict[str, Any]]:
    """Rows of one statement."""
    if comparisons.empty:
        return []
    return comparisons[comparisons["statement"] == statement].to_dict("records")


def tally(comparisons: Frame, statement: str) -> str:
    """How many comparisons came out which way."""
    found = [verdict_of(row) for row in of_statement(comparisons, statement)]
    if not found:
        return "not tested"
    return ", ".join(f"{found.count(what)} {what}" for what in dict.fromkeys(found))


def untested(statement: str, depths: Sequence[int], dataset: str) -> str:
    """What of the study's own test was not run."""
    needed, test = NEEDED[statement]
    missing = [] if set(needed) <= set(depths) else [f"the study's own test ({test})"]
    if not dataset.startswith("cifar10"):
        missing.append("CIFAR-10")
    return ", ".join(missing) or "nothing"


def score_sentence(score: Frame) -> str:
    """Does the mismatch of sigma foretell the loss, beyond the depths?"""
    by_name = score.set_index("predictor")
    sigma, control = by_name.loc["sigma"], by_name.loc["depth_ratio"]
    if np.isnan(sigma["spearman"]):
        return "Whether the mismatch of σ foretells the loss cannot be said: too few cells count."
    text = (
        f"The mismatch of σ orders the losses of {sigma['num_routes']:.0f} ways between depths "
        f"with a rank correlation of {signed(sigma['spearman'])} (p = {sigma['p_value']:.2g}), the "
        f"ratio of depths alone with {signed(control['spearman'])} (p = {control['p_value']:.2g}); "
        f"difference {signed(sigma['difference'])} "
        f"{bracket(sigma['low'], sigma['high'])}: {sigma['verdict']}."
    )
    best = by_name.drop(["depth_ratio", "depth_difference"])
    winners = [PREDICTORS[str(name)] for name in best.index[best["low"] > 0]]
    text += f" Beating the ratio of depths: {', '.join(winners) or 'none of the mismatches'}."
    return text + (
        f" Between the same two depths, where the depths say nothing, the map with the larger "
        f"mismatch of σ lost more in {sigma['agree']:.0f} of {sigma['pairs']:.0f} comparisons."
    )


def sigma_sentence(sigma: Frame, last_level: int) -> str:
    """Do the exponents look like the paper's, and like those of untrained weights?"""
    rows = sigma[(sigma["last_level"] == last_level) & sigma["sigma"].notna()]
    same = int((np.sign(rows["sigma"]) == np.sign(rows["paper"])).sum())
    clear = {
        null: int(((rows[f"excess_{null}_low"] > 0) | (rows[f"excess_{null}_high"] < 0)).sum())
        for null in ("init", "oneshot")
    }
    null = int((np.sign(rows["sigma_init"]) == np.sign(rows["sigma"])).sum())
    return (
        f"Of {count_text(len(rows), 'normal block')}, σ has the sign of the paper's Tables 4 to 6 "
        f"in {same}, and the sign that untrained weights give (init null) in {null}. The excess is "
        f"clear of 0 over the init null in {clear['init']}, over the oneshot null in "
        f"{clear['oneshot']}."
    )


def spread_sentence(differences: Frame, last_level: int) -> str:
    """Are smaller models more uniform?"""
    if differences.empty:
        return "Only one depth has several normal blocks a stage: no spread to compare."
    rows = differences[
        (differences["last_level"] == last_level) & (differences["stage"] == ALL_STAGES)
    ]
    parts = []
    for quantity, name in (("sigma", "σ"), ("excess_init", "σ beyond the init null"),
                           ("excess_oneshot", "σ beyond the oneshot null")):  # fmt: skip
        part = rows[rows["quantity"] == quantity].to_dict("records")
        parts.append(f"{name}: " + ", ".join(
            f"ResNet-{row['depth_b']} minus {row['depth_a']} {signed(row['mean'], 3)} "
            f"{bracket(row['low'], row['high'], 3)}" for row in part
        ))  # fmt: skip
    sigma = rows[rows["quantity"] == "sigma"]
    num = int((sigma["low"] > 0).sum())
    return (
        f"That smaller models are more uniform: in {num} of {len(sigma)} pairs of depths the "
        "deeper network's σ spreads more over the blocks of a stage, with an interval clear of 0 "
        f"(mean of the three stages). {'; '.join(parts)}. The Gaussian null has no spread inside a "
        "stage beyond the scatter of its drawn scales, at any depth."
    )


def paper_sentence(paper: Frame) -> str:
    """Do the printed exponents support the paper's counter-examples?"""
    pairs = list(paper_pairs(paper))
    num = {
        where: sum(pair[f"worse_{where}"] > pair[f"better_{where}"] for pair in pairs)
        for where in ("rms", "stage1")
    }
    against = "; ".join(
        f"{pair['worse_map']} {pair['worse_rms']:.3f} against {pair['better_map']} "
        f"{pair['better_rms']:.3f}, in stage 1 {pair['worse_stage1']:.3f} against "
        f"{pair['better_stage1']:.3f}"
        for pair in pairs
        if pair["worse_rms"] < pair["better_rms"] or pair["worse_stage1"] < pair["better_stage1"]
    )
    return (
        "By the paper's own Tables 4 to 6, the map that the elastic study found worse has the "
        f"larger root mean square mismatch in {num['rms']} of {len(pairs)} comparisons over all "
        f"stages and in {num['stage1']} of {len(pairs)} in stage 1"
        + (f". Against the explanation of Sec. 5.3: {against}." if against else ".")
    )


def paper_pairs(paper: Frame) -> Iterable[dict[str, Any]]:
    """Every map found worse beside every one found better between the same depths."""
    for row in paper[paper["expected"] == "worse"].to_dict("records"):
        is_same = paper[["source_depth", "target_depth"]].eq(
            [row["source_depth"], row["target_depth"]]
        )
        others = paper[is_same.all(axis=1) & (paper["expected"] == "better")]
        for other in others.to_dict("records"):
            yield {
                "source_depth": row["source_depth"],
                "target_depth": row["target_depth"],
                **{f"worse_{name}": row[name] for name in ("map", "stage1", "rms")},
                **{f"better_{name}": other[name] for name in ("map", "stage1", "rms")},
            }


def signed(value: float, digits: int = 2) -> str:
    """With sign; a dash for NaN."""
    return MISSING if np.isnan(value) else f"{value:+.{digits}f}"


def bracket(low: float, high: float, digits: int = 2) -> str:
    """[low, high], or that there is none."""
    none = "(no interval)"
    return none if np.isnan(low) else f"[{low:+.{digits}f}, {high:+.{digits}f}]"
