"""The section of a page that puts the paper's Tables 2 to 6 beside its runs.

In: a folder with ``paper.csv`` and ``paper_blocks.csv``. Out: words and tables for the macros.
"""

from pathlib import Path
from typing import Any

from imp_rg.plots.style import Frame
from imp_rg.report.lead import lead_nulls
from imp_rg.report.paper import HERE, NULL_SUFFIX, convention_sentences, paper_sentence
from imp_rg.report.run_tables import select
from imp_rg.report.templates import Table
from imp_rg.report.words import decimal_text, interval_text, number_text
from imp_rg.runs.files import read_csv


def paper_section(folder: Path) -> dict[str, Any] | None:
    """What a page says of the published numbers; None if nothing was put beside them.

    Raises:
      ValueError: If a table is unreadable.

    References:
      Redman et al., arXiv:2110.03210, Tables 2-6.
    """
    if not (folder / "paper.csv").exists():
        return None
    paper: Frame = read_csv(folder / "paper.csv")
    blocks: Frame = read_csv(folder / "paper_blocks.csv")
    here = select(paper, **HERE)
    nearest = here.sort_values("rms", kind="stable").groupby(["run", "source"], sort=False).head(1)
    beside = {}
    for (run, source), rows in blocks.groupby(["run", "source"], sort=False):
        printed = rows.pivot(index="block", columns="row", values="sigma_paper")
        columns = list(rows["row"].unique())
        nulls = lead_nulls(rows.dropna(axis="columns", how="all"))
        ours = rows.drop_duplicates("block").to_dict("records")
        cells = [
            [
                r["block"],
                number_text(r["sigma"]),
                interval_text(r["ci_low"], r["ci_high"]),
                *(number_text(r[f"sigma_{null}"]) for null in nulls),
                *(number_text(printed.loc[r["block"], column]) for column in columns),
            ]
            for r in ours
        ]
        head = ["block", "sigma, here", "interval", *(f"{null} null, here" for null in nulls)]
        head += [f"paper, {column}" for column in columns]
        beside[f"{run} beside {source}"] = Table(head, cells)
    return {
        "sentences": [
            paper_sentence(row, _first_null(paper, row)) for row in nearest.to_dict("records")
        ],
        "notes": [note for note in here["note"].dropna().unique() if note],
        "conventions": convention_sentences(paper),
        "tables": beside,
        "ways": _ways(paper),
    }


def _first_null(paper: Frame, row: dict[str, Any]) -> dict[str, Any] | None:
    """The best null of a run beside the same published row."""
    same = select(paper, **{key: row[key] for key in ("run", "source", "row")})
    nulls = same[same["point"].str.endswith(NULL_SUFFIX)].to_dict("records")
    return nulls[0] if nulls else None


def _ways(paper: Frame) -> Table:
    """Agreement under every way to measure sigma that the runs have."""
    head = ["run", "paper", "point / denominator here", "same sign", "rank correlation", "distance"]
    rows = [
        [
            row["run"],
            f"{row['source']}, {row['row']}",
            f"{row['point']} / {row['denominator']}",
            f"{row['num_same_sign']} of {row['num_blocks']}",
            decimal_text(row["rank_correlation"], 2),
            decimal_text(row["rms"], 3),
        ]
        for row in paper.to_dict("records")
    ]
    return Table(head, rows)
