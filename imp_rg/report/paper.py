"""What a page says of the paper's Tables 2 to 6 beside the exponents of its runs.

In: a `PaperComparison`. Out: sections of a page.
"""

from collections.abc import Sequence

import pandas as pd

from imp_rg.report.columns import Column, estimate, number, signed, tabulate
from imp_rg.report.page import Section
from imp_rg.report.words import percent_text
from imp_rg.runs.paper_tables import HERE, NULL_SUFFIX, PaperComparison
from imp_rg.runs.run_tables import lead_nulls, select

KEY = ["run", "source", "row"]

CONVENTIONS = (
    "Point: unsaid there whether weights are read after training or after the rewind; here after "
    "training.",
    "Denominator: all parameters there, but Table 3 sums to zero only over the prunable ones; here "
    "all prunable weights.",
    "Scale factor: c below 1 in its text would flip every sign; its Appendix A and we take c = "
    "1/(1 - x).",
    "Intervals: none there, so no difference from it can be tested.",
    "Table 2: stem and head are not pruned, projections are; four stages are called residual "
    "blocks; 17 prunings and a density of 1.44 % do not fit (0.8^17 = 2.25 %).",
    "Table 3: 10 % of the original weights go at each level, so that c grows from 1.11 to 2; "
    "embeddings are not pruned, whether the pooler is counted is unsaid.",
    "Tables 4 to 6: stem, head and projections are pruned; the first block of each stage is left "
    "out, here too, and holds a share of the denominator.",
)
"""What stands between the paper's numbers and ours; those on tables for runs beside them. Redman et
al., arXiv:2110.03210, Secs. 4 and 5, Apps. A and B."""


def paper_sections(found: PaperComparison, *, notes: Sequence[str] = ()) -> list[Section]:
    """Published numbers beside those of the runs, what stands between them, and every route.

    Args:
      found: Of one run or several.
      notes: What else stands between them.
    """
    here = select(found.rows, **HERE)
    nearest = here.sort_values("rms", kind="stable").groupby(["run", "source"], sort=False).head(1)
    is_null = found.rows["point"].str.endswith(NULL_SUFFIX)
    lead = pd.concat([nearest, found.rows[is_null]])
    lead = lead[lead.set_index(KEY).index.isin(nearest.set_index(KEY).index)]
    spans = {
        f"0 to {row['levels']} (down to {percent_text(row['last_density'])}) in {row['run']}"
        for row in here.drop_duplicates("run").to_dict("records")
    }
    levels = f"Levels: unsaid there; here {'; '.join(sorted(spans))}."
    others = {"Table 2", "Table 3", "Tables 4 to 6"} - set(here["source"])
    conventions = [text for text in CONVENTIONS if text.partition(":")[0] not in others]
    own = [note for note in here["note"].dropna().unique() if note]
    sections = [
        Section(
            title="Published numbers beside ours",
            text=["Redman, Chen, Wang, Dogra, arXiv:2110.03210, Tables 2 to 6: the nearest row."],
            table=tabulate(lead.sort_values(KEY, kind="stable"), AGREEMENT),
            note="Distance: root mean square over blocks. A null: how well pruning without "
            "training agrees with the same row.",
            name="paper",
        )
    ]
    for (run, source), of_run in found.blocks.groupby(["run", "source"], sort=False):
        sections.append(Section(title="", text=[f"{run} beside {source}"], table=_beside(of_run)))
    between = [levels, *conventions, *own, *notes]
    every = tabulate(found.rows, AGREEMENT | {"of": "denominator"})
    return [
        *sections,
        Section(title="", text=["Between the two:"], items=between, name="conventions"),
        Section(title="Every published row, measured every way", table=every, is_folded=True),
    ]


def _sign_text(row) -> str:
    return f"{row['num_same_sign']} of {row['num_blocks']}"


AGREEMENT: dict[str, Column] = {
    "run": "run",
    "paper": lambda row: f"{row['source']}, {row['row']}",
    "measured": "point",
    "same sign": _sign_text,
    "rank correlation": number("rank_correlation", 2),
    "distance": number("rms"),
}


def _beside(rows: pd.DataFrame) -> pd.DataFrame:
    """Block by block: ours, its nulls, and every published row of one source."""
    columns: dict[str, Column] = {"block": "block", "sigma, here": estimate("sigma")}
    for null in lead_nulls(rows.dropna(axis="columns", how="all")):
        columns[f"{null} null, here"] = signed(f"sigma_{null}")
    printed = rows.pivot(index="block", columns="row", values="sigma_paper")
    for row in rows["row"].unique():
        columns[f"paper, {row}"] = signed(row, 2)
    ours = rows.drop_duplicates("block").rename(
        columns={"ci_low": "sigma_low", "ci_high": "sigma_high"}
    )
    return tabulate(ours.drop(columns="row").join(printed, on="block"), columns)
