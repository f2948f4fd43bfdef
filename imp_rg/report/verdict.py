"""What a run comes to: how many blocks are of which class, and how many are more than a null.

In: `RunTables`. Out: a `Verdict`, and the sentences that lead the page.
"""

from collections import Counter
from dataclasses import dataclass

from imp_rg.report.lead import lead_frame, lead_nulls
from imp_rg.report.words import count_text
from imp_rg.rg.estimate import Estimate
from imp_rg.runs.agreement import agreement
from imp_rg.runs.run_tables import RunTables

MEANINGS = {
    "relevant": "their share grows",
    "irrelevant": "their share shrinks",
    "marginal": "the interval holds zero",
    "undetermined": "no interval",
    "no exponent": "the share vanishes",
}
"""Classes of blocks in the order in which they are told."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Counts over the listed blocks of a run.

    Attributes:
      num_blocks: Listed blocks.
      num_positive: Of them with a positive exponent.
      classes: How many of each class of `MEANINGS`, those that occur.
      num_same_sign: Blocks whose init null has the sign of sigma; None without that null.
      beyond: By null of the lead table, blocks whose excess is told from zero.
      has_intervals: Whether any block has an interval.
    """

    num_blocks: int
    num_positive: int
    classes: dict[str, int]
    num_same_sign: int | None
    beyond: dict[str, int]
    has_intervals: bool


def run_verdict(tables: RunTables) -> Verdict:
    """Counts what the lead table shows. House definition."""
    rows = tables.listed()
    lead = lead_frame(tables.spectrum, denominator=tables.denominator)
    lead = lead[lead["block"].isin(rows["block"])]
    classes = Counter(lead["relevance"].where(lead["sigma"].notna(), "no exponent"))
    by_block = rows.set_index("block")
    has_init = "sigma_init" in rows
    return Verdict(
        num_blocks=len(rows),
        num_positive=int((rows["sigma"].to_numpy(float) > 0).sum()),
        classes={name: classes[name] for name in MEANINGS if classes[name]},
        num_same_sign=agreement(by_block["sigma"], by_block["sigma_init"]).num_same_sign
        if has_init
        else None,
        beyond={
            null: int(_excess(lead, null).excludes().sum()) for null in lead_nulls(tables.spectrum)
        },
        has_intervals=bool(rows["ci_low"].notna().any()),
    )


def _excess(lead, null: str) -> Estimate:
    return Estimate(*(lead[f"excess_{null}{end}"].to_numpy(float) for end in ("", "_low", "_high")))


def answers(verdict: Verdict) -> list[str]:
    """The sentences that lead the page. House definition."""
    num = verdict.num_blocks
    if verdict.classes == {"no exponent": num}:
        return ["No block has an exponent: no seed reached the last level with weights in it."]
    if not verdict.has_intervals:
        return [
            "Without an interval no block is classified: sigma is positive in "
            f"{verdict.num_positive} of {count_text(num, 'block')}."
        ]
    parts = [f"{count} {name} ({MEANINGS[name]})" for name, count in verdict.classes.items()]
    sentences = [f"Of {count_text(num, 'block')}: {'; '.join(parts)}."]
    if verdict.num_same_sign is not None:
        sentences.append(
            "Signs alone are no evidence of learning: the rewind weights, pruned without any "
            f"training, have the same sign in {verdict.num_same_sign} of {num}."
        )
    if verdict.beyond:
        found = [f"in {count} of {num} over {null}" for null, count in verdict.beyond.items()]
        sentences.append(f"The excess over the nulls differs from zero {' and '.join(found)}.")
    return sentences
