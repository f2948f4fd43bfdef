"""The paper's Tables 2 to 6 beside the exponents of a run.

In: ``spectrum.csv`` as a frame. Out: a `PaperComparison`, its two tables ``paper.csv`` and
``paper_blocks.csv``, and sentences that say which conventions stand between the two.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from imp_rg import published
from imp_rg.plots.style import Frame
from imp_rg.report.lead import lead_nulls
from imp_rg.report.published_beside import agreement
from imp_rg.report.run_tables import select
from imp_rg.report.words import count_text, percent_text
from imp_rg.runs.files import write_csv

HERE = {"point": "trained", "denominator": "prunable"}
"""The conventions of this package's own tables."""

NULL_SUFFIX = " null"
"""Ends the `point` of a null in ``paper.csv``."""


class PaperComparison(NamedTuple):
    """Published exponents beside those of one run.

    Attributes:
      rows: ``paper.csv``: run, source, row, point (or null), denominator (how sigma was measured),
        num_blocks, num_same_sign, rank_correlation, rms (distance), largest, largest_block, levels
        (number of transitions here), last_density, note.
      blocks: ``paper_blocks.csv``: run, source, row, block, sigma_paper, sigma, ci_low, ci_high
        (trained weights over all prunable ones).
    """

    rows: Frame
    blocks: Frame


class _Printed(NamedTuple):
    source: str
    row: str
    sigma: dict[str, float]
    note: str = ""


def paper_comparison(
    spectrum: Frame, *, run: str, density: Float[np.ndarray, " level"]
) -> PaperComparison:
    """Puts every published row that names the blocks of a run beside it.

    Stages `stage1` to `stage4` match Table 2, `layer0` to `layer11` Table 3, and the blocks of a
    CIFAR ResNet Tables 4 to 6, the depth being told by their number.

    Args:
      spectrum: ``spectrum.csv``.
      run: Name of the run.
      density: Kept fraction at each level, in order.

    Returns:
      The comparison; without rows if the paper has no such blocks.

    References:
      Redman et al., arXiv:2110.03210, Tables 2-6. Its conventions are partly unstated, see
      `convention_sentences`; every way to measure that the spectrum holds is therefore listed.
    """
    measured = select(spectrum, quantity="magnitude_share", estimator="paper")
    here = select(measured, **HERE)
    nulls = [f"sigma_{null}" for null in lead_nulls(here)]
    here = here[["block", "sigma", "ci_low", "ci_high", *nulls]]
    rows, blocks = [], []
    for printed in _printed_for(list(here["block"])):
        key = {"run": run, "source": printed.source, "row": printed.row}
        ways = {
            way: of_way.set_index("block")["sigma"]
            for way, of_way in measured.groupby(["point", "denominator"], sort=False)
        }
        for null in nulls:
            name = null.removeprefix("sigma_") + NULL_SUFFIX
            ways[name, HERE["denominator"]] = here.set_index("block")[null]
        for (point, denominator), ours in ways.items():
            way = {"point": point, "denominator": denominator}
            rows.append({**key, **way, **_agreement(ours, printed.sigma)})
            rows[-1] |= {
                "levels": len(density) - 1,
                "last_density": float(density[-1]),
                "note": printed.note,
            }
        theirs = pd.Series(printed.sigma, name="sigma_paper").rename_axis("block").reset_index()
        blocks.append(theirs.merge(here, on="block").assign(**key))
    order = ["run", "source", "row", "block", "sigma_paper", "sigma", "ci_low", "ci_high", *nulls]
    beside = pd.concat(blocks, ignore_index=True)[order] if blocks else pd.DataFrame(columns=order)
    return PaperComparison(rows=pd.DataFrame(rows), blocks=beside)


def write_paper_comparison(folder: Path, comparisons: Sequence[PaperComparison]) -> None:
    """Writes ``paper.csv`` and ``paper_blocks.csv`` of all runs.

    Raises:
      ValueError: If no run has blocks that the paper lists.
    """
    found = [comparison for comparison in comparisons if len(comparison.rows)]
    if not found:
        raise ValueError(
            "against: the paper lists stages stage1 to stage4 (Table 2), layers layer0 to layer11 "
            "(Table 3) and blocks of CIFAR ResNets (Tables 4 to 6), got no run with such blocks"
        )
    for name, frames in (
        ("paper", [comparison.rows for comparison in found]),
        ("paper_blocks", [comparison.blocks for comparison in found]),
    ):
        write_csv(folder / f"{name}.csv", pd.concat(frames, ignore_index=True))


def convention_sentences(rows: Frame) -> list[str]:
    """What stands between the paper's numbers and ours, for the rows of one ``paper.csv``.

    References:
      Redman et al., arXiv:2110.03210, Secs. 4 and 5, Apps. A and B.
    """
    sources = set(rows["source"])
    spans = {
        f"0 to {row['levels']} (down to {percent_text(row['last_density'])}) in {row['run']}"
        for row in rows.drop_duplicates("run").to_dict("records")
    }
    sentences = [
        "Levels: the paper does not say which prunings its means cover. Here: "
        f"{'; '.join(sorted(spans))}.",
        "Point: the paper does not say whether weights are read after training or after the "
        "rewind. Here: after training; the others stand in paper.csv.",
        "Denominator: the paper writes all parameters of the network, but its Table 3 sums to zero "
        "only over the prunable ones. Here: all prunable weights.",
        "Scale factor: the text takes c below 1, which would flip every sign; Appendix A takes "
        "c = 1/(1 - x) above 1, and so do we.",
        "Intervals: the paper prints none, so no difference from it can be tested.",
    ]
    by_source = {
        "Table 2": "Table 2: stem and head are not pruned there, projections are. It calls the "
        "four stages residual blocks; its text says 17 prunings and a density of 1.44 %, which are "
        "not the same (0.8^17 = 2.25 %).",
        "Table 3": "Table 3: pruned by 10 % of the original weights a level, so that c grows from "
        "1.11 to 2; embeddings are not pruned, and whether the pooler is counted is not said.",
        "Tables 4 to 6": "Tables 4 to 6: stem, head and projections are pruned there. The first "
        "block of each stage is left out of the tables, in stage 1 too, and out of this "
        "comparison; it holds a share of the denominator.",
    }
    return sentences + [text for source, text in by_source.items() if source in sources]


def _agreement(ours: pd.Series, theirs: dict[str, float]) -> dict[str, float | int | str]:
    found = agreement(ours, pd.Series(theirs, dtype=float))
    difference = (ours - pd.Series(theirs, dtype=float)).dropna()
    return {
        "num_blocks": found.num_blocks,
        "num_same_sign": found.num_same_sign,
        "rank_correlation": found.rank_correlation,
        "rms": float(np.sqrt(np.mean(difference**2))) if len(difference) else np.nan,
        "largest": found.largest,
        "largest_block": found.largest_block,
    }


def _printed_for(blocks: list[str]) -> Iterator[_Printed]:
    """Published rows that name these blocks."""
    stages = [f"stage{i}" for i in range(1, 5)]
    layers = [f"layer{i}" for i in range(12)]
    for table, names in ((2, stages), (3, layers)):
        if set(names) <= set(blocks):
            for row in published.rows(table):
                sigma = dict(zip(names, row.values, strict=True))
                yield _Printed(f"Table {table}", row.row, sigma, row.note)
    depth = _cifar_depth(blocks)
    if depth in published.CIFAR_DEPTHS:
        yield _Printed("Tables 4 to 6", f"ResNet-{depth}", published.cifar_resnet_sigma(depth))


def _cifar_depth(blocks: list[str]) -> int:
    """Depth 6 D + 2 of a ResNet with three stages of D blocks; 0 for anything else."""
    found = [m for m in (re.fullmatch(r"stage(\d+)/block(\d+)", name) for name in blocks) if m]
    members = {(int(m[1]), int(m[2])) for m in found}
    per_stage = len(members) // 3
    is_whole = members == {(s, b) for s in (1, 2, 3) for b in range(per_stage)}
    return 6 * per_stage + 2 if is_whole and members else 0


def paper_sentence(row: dict, null: dict | None) -> str:
    """One row of ``paper.csv`` in words, and the same of a null beside the same published row."""
    sentence = f"{row['run']} beside {row['row']} ({row['source']}): {_agreement_text(row)}."
    if null is None:
        return sentence
    return f"{sentence} Its {null['point']}, beside the same row: {_agreement_text(null)}."


def _agreement_text(row: dict) -> str:
    ranks = row["rank_correlation"]
    rank_text = "not defined" if np.isnan(ranks) else f"{ranks:.2f}"
    return (
        f"same sign in {row['num_same_sign']} of {count_text(row['num_blocks'], 'block')}, rank "
        f"correlation {rank_text}, distance (root mean square) {row['rms']:.3f}"
    )
