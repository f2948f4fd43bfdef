"""The page of `experiments.language_flow`: the paper's Table 3 beside pruning without training.

In: one run folder a task. Out: tables, figures and ``report.html``.
"""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from experiments.shell.study import AS_IS
from experiments.studies.language.similarity import MEASURES
from experiments.studies.language.tables import (
    INIT,
    LEVEL,
    MASKS,
    NULLS,
    ONESHOT,
    Flows,
    of_partition,
    read_names,
    read_tasks,
    write_tables,
)
from experiments.studies.language.words import (
    answers,
    contrast_sentence,
    decimals,
    likeness_sentence,
    limits,
    size_text,
    spread_sentence,
    task_sentences,
)
from imp_rg.plots import language as plots
from imp_rg.plots.style import Frame, save_figure
from imp_rg.report.page import Section, write_page
from imp_rg.report.words import decimal_text, number_text

QUESTION = (
    "Does the flow of iterative magnitude pruning on a pre-trained encoder differ from what "
    "pruning its weights without any training gives, and is it the same on all tasks?"
)

MEASURE_NAMES = {
    "cka": "CKA, all tokens",
    "cka_first": "CKA, first token",
    "attention": "cosine of attention maps",
}

SIGMA_CAPTION = (
    "Markers: sigma of each task with its interval over seeds. Bars: its nulls, mean over tasks."
)
DIFFERENCE_CAPTION = (
    "Differences of sigma within each seed, with intervals. Of many intervals some exclude 0 "
    "by chance; the stars of the table stand after Holm's correction."
)
KINDS_CAPTION = "Sigma by kind of matrix, mean over seeds; last row: the pre-trained weights."
LIKENESS_CAPTION = (
    "Likeness of each layer (by number) to what comes before it, pre-trained weights, against the "
    "size of its exponent. The paper expects small exponents where layers are alike."
)


def report(folder: Path, console: Console) -> Path:
    """Writes tables, figures and page of all finished tasks; prints Table 3.

    Args:
      folder: With one run folder a task.
      console: To print on.

    Returns:
      Path of ``report.html``.

    Raises:
      ValueError: If no task is finished, or the run folders do not belong together.
    """
    flows = read_tasks(folder)
    ci_level = next(iter(flows.values())).settings.get("ci_level", 0.95)
    tables = write_tables(folder, flows, ci_level=ci_level)
    page = _write_page(folder, flows, tables, ci_level=ci_level)
    head, rows = table3_rows(tables["table3"])
    printed = Table(*head)
    for row in rows:
        printed.add_row(*row)
    console.print(printed)
    console.print(answers(tables, ci_level=ci_level)[0], **AS_IS)
    console.print(f"report: {page}", **AS_IS)
    return page


def _write_page(folder: Path, flows: Flows, tables: dict[str, Frame], *, ci_level: float) -> Path:
    figures = {
        name: save_figure(figure, folder / "figures", name)
        for name, figure in _figures(tables).items()
    }
    first = next(iter(flows.values()))
    sections = [
        _sigma_section(tables, figures["sigma"]),
        _difference_section(tables, figures["differences"]),
        _spread_section(tables["spread"]),
        *([_kind_section(tables, figures["kinds"])] if "kinds" in tables else []),
        *([_likeness_section(tables, figures["likeness"])] if "likeness" in tables else []),
        _metric_section(tables["tasks"]),
        Section(
            title="What limits this",
            text=list(
                limits(
                    first.settings,
                    num_seeds=min(len(flow.seeds) for flow in flows.values()),
                    num_levels=len(first.trajectory.num_kept),
                    unfinished=[task for task in read_names(folder) if task not in flows],
                )
            ),
        ),
    ]
    return write_page(
        folder / "report.html",
        title="The flow of encoder tickets",
        question=QUESTION,
        answers=answers(tables, ci_level=ci_level),
        sections=sections,
    )


def _figures(tables: dict[str, Frame]) -> dict[str, Figure]:
    drawn = {
        "sigma": plots.sigma_by_layer(tables["table3"], tables.get("published")),
        "differences": plots.differences_by_block(
            of_partition(tables, "layer"), (INIT, ONESHOT, MASKS)
        ),
    }
    if "kinds" in tables:
        drawn["kinds"] = plots.kinds_map(tables["kinds"])
    if "similarity" in tables:
        drawn["likeness"] = plots.likeness_beside_sigma(
            tables["similarity"], tables["table3"], MEASURE_NAMES
        )
    return drawn


def table3_rows(table: Frame, published: Frame | None = None) -> tuple[list[str], list[list[str]]]:
    """Head and rows: tasks with half-widths of their intervals, nulls, the paper's tasks."""
    blocks = list(dict.fromkeys(table["block"]))
    rows = _rows(table, blocks, value="sigma")
    for null in NULLS:
        means = table.groupby("block")[null].mean()
        rows.append([f"{null} null", *(number_text(means[block]) for block in blocks)])
    if published is not None:
        for task, of_task in published.groupby("task", sort=False):
            rows.append([f"paper: {task}", *map(number_text, of_task["sigma"])])
    return ["task", *blocks], rows


def _rows(frame: Frame, blocks: list[str], *, value: str) -> list[list[str]]:
    """One row a task, one cell a block; a star where p stands after Holm's correction."""
    digits = decimals(frame[value])
    rows = []
    for task, of_task in frame.groupby("task", sort=False):
        of_block: Any = of_task.set_index("block")
        rows.append([task, *(_cell(of_block.loc[block], value, digits) for block in blocks)])
    return rows


def _cell(row: Any, value: str, digits: int) -> str:
    half_width = row["high"] - row[value]
    half_text = decimal_text(half_width, max(digits, decimals([half_width])))
    star = "*" if row.get("p_holm", 1) < LEVEL else ""
    return f"{row[value]:+.{digits}f} ± {half_text}{star}"


def _sigma_section(tables: dict[str, Frame], figure: Path) -> Section:
    head, rows = table3_rows(tables["table3"], tables.get("published"))
    return Section(
        title="Sigma by task and layer (the paper's Table 3)",
        figures=[(figure, SIGMA_CAPTION)],
        head=head,
        rows=rows,
        note="The paper's estimator, trained weights, over all prunable weights; ± half the "
        "t-interval over seeds. Nulls are means over tasks and seeds.",
    )


def _difference_section(tables: dict[str, Frame], figure: Path) -> Section:
    differences = of_partition(tables, "layer")
    of_init = differences[differences["contrast"] == INIT]
    blocks = list(dict.fromkeys(of_init["block"]))
    masks = contrast_sentence(
        differences,
        MASKS,
        "The masks alone, applied to the pre-trained weights, against the init null",
    )
    return Section(
        title="What learning adds: differences within each seed",
        text=[*task_sentences(tables["tasks"]), masks],
        figures=[(figure, DIFFERENCE_CAPTION)],
        head=[INIT, *blocks],
        rows=_rows(of_init, blocks, value="mean"),
        note="* p below 0.05 after Holm's correction over all tasks and layers. The other two "
        "differences stand in differences.csv.",
    )


def _spread_section(spread: Frame) -> Section:
    return Section(
        title="Do tasks share their exponents?",
        text=[spread_sentence(spread)],
        head=[
            "layer",
            "mean of tasks",
            "largest − smallest",
            "sd of tasks",
            "sd of seeds",
            "p, Holm",
        ],
        rows=[
            [
                row["block"],
                number_text(row["mean"]),
                *(size_text(row[column]) for column in ("spread", "task_sd", "seed_sd")),
                decimal_text(row["p_holm"], 3),
            ]
            for row in spread.to_dict("records")
        ],
    )


def _kind_section(tables: dict[str, Frame], figure: Path) -> Section:
    differences = of_partition(tables, "kind")
    of_init = differences[differences["contrast"] == INIT]
    blocks = list(dict.fromkeys(of_init["block"]))
    return Section(
        title="By kind of matrix",
        text=[contrast_sentence(differences, INIT, "By kind, IMP against the init null")],
        figures=[(figure, KINDS_CAPTION)],
        head=[INIT, *blocks],
        rows=_rows(of_init, blocks, value="mean"),
        note="* p below 0.05 after Holm's correction over all tasks and kinds.",
    )


def _likeness_section(tables: dict[str, Frame], figure: Path) -> Section:
    ranks = tables["likeness"]
    return Section(
        title="Are layers with small exponents like their neighbours?",
        text=[likeness_sentence(ranks)],
        figures=[(figure, LIKENESS_CAPTION)],
        head=["task", "weights", *(f"rho, {MEASURE_NAMES[m]} (p)" for m in MEASURES)],
        rows=[
            [
                task,
                weights,
                *(
                    f"{number_text(row['rho'])} ({decimal_text(row['p'], 2)})"
                    for row in of_task.to_dict("records")
                ),
            ]
            for (task, weights), of_task in ranks.groupby(["task", "weights"], sort=False)
        ],
        note="Spearman's rank correlation over layers; p over all orders of the layers.",
    )


def _metric_section(tasks: Frame) -> Section:
    return Section(
        title="Was anything learned?",
        head=["task", "test metric, dense (%)", "at the last level (%)", "moved (% of norm)"],
        rows=[
            [
                row["task"],
                decimal_text(row["metric_dense"], 1),
                decimal_text(row["metric_last"], 1),
                decimal_text(100 * row["moved"], 2),
            ]
            for row in tasks.to_dict("records")
        ],
        note="Means over seeds. Moved: distance of the surviving weights from their pre-trained "
        "values over the norm of those, mean over levels. Where the dense metric is that of always "
        "giving the same answer, the flow is one of weights that learned nothing.",
    )
