"""The page of `experiments.language_flow`: the paper's Table 3 beside pruning without training.

In: the folder of the experiment with its tables. Out: figures and a `Page`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.studies.language.findings import (
    INIT,
    LEVEL,
    MASKS,
    NULLS,
    ONESHOT,
    contrast_frame,
    finished_tasks,
    published_frame,
    read_names,
    verdict,
)
from imp_rg.foreign.bert_variables import EMBEDDED
from imp_rg.plots import language as plots
from imp_rg.plots.style import save_figure
from imp_rg.report.columns import Column, number, signed, tabulate
from imp_rg.report.page import Page, Section
from imp_rg.report.words import count_text, percent_text
from imp_rg.rg.estimate import decimal_text, number_text
from imp_rg.runs.agreement import agreement
from imp_rg.runs.files import read_csv, read_json

MEASURE_NAMES = {
    "cka": "CKA, all tokens",
    "cka_first": "CKA, first token",
    "attention": "cosine of attention maps",
}

CAPTIONS = {
    "sigma": "Filled: each task with its interval over seeds. Open: nulls, mean over tasks.",
    "differences": "Differences within each seed. Of many intervals some exclude 0 by chance; the "
    "stars of the table stand after Holm's correction.",
    "kinds": "Means over seeds; last row: the pre-trained weights, never trained.",
    "likeness": "Each layer (by number) and what comes before it, pre-trained weights. The paper "
    "expects small exponents where layers are alike.",
}

VERDICTS = {
    "unknown": "One seed gives no interval: whether IMP differs from the init null cannot be said",
    "not shown": "Not shown: by no interval does IMP differ from pruning the pre-trained weights "
    "without training",
    "by chance": "Not shown: some intervals leave 0 out, but no difference between IMP and pruning "
    "the pre-trained weights without training stands after Holm's correction",
    "differs": "Yes: IMP differs from pruning the pre-trained weights without training",
}


def make_page(folder: Path) -> Page:
    """Draws the figures and makes the page of all finished tasks."""
    names = ("table3", "kinds", "differences", "tasks", "spread", "similarity", "likeness")
    files = {name: folder / f"{name}.csv" for name in names}
    tables = {name: read_csv(path) for name, path in files.items() if path.exists()}
    of_layers = tables["differences"].query("partition == 'layer'")
    published = published_frame(tables["table3"])
    figures = _figures(folder, tables, of_layers, published)
    sections = [
        Section(
            title="Sigma by task and layer (the paper's Table 3)",
            figures=[figures["sigma"]],
            table=table3(tables["table3"], published),
            note="The paper's estimator, trained weights, over all prunable weights; ± half the "
            "t-interval over seeds. Nulls are means over tasks and seeds.",
        ),
        *_difference_sections(tables["tasks"], of_layers, figures["differences"]),
        Section(
            title="Do tasks share their exponents?",
            table=tabulate(
                tables["spread"],
                {
                    "layer": "block",
                    "mean of tasks": signed("mean"),
                    "largest − smallest": _size("spread"),
                    "sd of tasks": _size("task_sd"),
                    "sd of seeds": _size("seed_sd"),
                    "p, Holm": number("p_holm"),
                },
            ),
            note="p: one-way analysis of variance, do tasks differ more than the seeds of one.",
        ),
    ]
    if "kinds" in tables:
        sections.append(
            Section(
                title="By kind of matrix",
                text=[kind_sentence(tables["kinds"], tables["table3"])],
                figures=[figures["kinds"]],
                table=_init_differences(tables["differences"].query("partition == 'kind'")),
                note="* As above, over all tasks and kinds.",
            )
        )
    if "likeness" in tables:
        sections.append(_likeness_section(tables["likeness"], figures["likeness"]))
    finished = finished_tasks(folder)
    left_out = [task for task in read_names(folder) if task not in finished]
    num_seeds = int(tables["table3"]["num_seeds"].min())
    settings = read_json(folder / finished[0] / "config.json")
    answers = [
        verdict_sentence(of_layers, tables["table3"]),
        moved_sentence(tables["tasks"]),
        spread_sentence(tables["spread"]),
    ]
    if published is not None:
        answers.append(published_sentence(tables["table3"], published))
    return Page(
        title="The flow of encoder tickets",
        question="Does the flow of iterative magnitude pruning on a pre-trained encoder differ "
        "from what pruning its weights without any training gives, and is it the same on all "
        "tasks?",
        answers=answers,
        sections=[
            *sections,
            Section(
                title="Was anything learned?",
                table=tabulate(
                    tables["tasks"],
                    {
                        "task": "task",
                        "test metric, dense (%)": number("metric_dense", 1),
                        "at the last level (%)": number("metric_last", 1),
                        "moved (% of norm)": lambda row: decimal_text(100 * row["moved"], 2),
                    },
                ),
                note="Means over seeds. Moved: distance of the surviving weights from their "
                "pre-trained values, mean over levels. Where the dense metric is that of always "
                "giving the same answer, nothing was learned.",
            ),
            Section(
                title="What limits this",
                text=[*limits(settings, num_seeds=num_seeds, unfinished=left_out)],
            ),
        ],
    )


def _figures(
    folder: Path,
    tables: Mapping[str, pd.DataFrame],
    of_layers: pd.DataFrame,
    published: pd.DataFrame | None,
) -> dict[str, tuple[Path, str]]:
    """All figures by name, with their captions."""
    drawn = {
        "sigma": plots.sigma_by_layer(tables["table3"], published),
        "differences": plots.differences_by_block(of_layers, (INIT, ONESHOT, MASKS)),
    }
    if "kinds" in tables:
        drawn["kinds"] = plots.kinds_map(tables["kinds"])
    if "similarity" in tables:
        drawn["likeness"] = plots.likeness_beside_sigma(
            tables["similarity"], tables["table3"], MEASURE_NAMES
        )
    return {
        name: (save_figure(figure, folder / "figures", name), CAPTIONS[name])
        for name, figure in drawn.items()
    }


def table3(table: pd.DataFrame, published: pd.DataFrame | None = None) -> pd.DataFrame:
    """Tasks with half-widths of their intervals, nulls, the paper's tasks."""
    shown = by_task(table, "sigma", head="task")
    blocks = list(shown.columns[1:])
    beside = {f"{null} null": table.groupby("block")[null].mean() for null in NULLS}
    if published is not None:
        for task, of_task in published.groupby("task", sort=False):
            beside[f"paper: {task}"] = of_task.set_index("block")["sigma"]
    rows = [[name, *(number_text(sigma[b]) for b in blocks)] for name, sigma in beside.items()]
    return pd.concat([shown, pd.DataFrame(rows, columns=shown.columns)], ignore_index=True)


def by_task(frame: pd.DataFrame, value: str, *, head: str) -> pd.DataFrame:
    """One row per task, one cell per block; a star where p stands after Holm's correction."""
    digits = decimals(frame[value])

    def text(row: Mapping[Any, Any]) -> str:
        half_width = row["high"] - row[value]
        half_text = decimal_text(half_width, max(digits, decimals([half_width])))
        star = "*" if row.get("p_holm", 1) < LEVEL else ""
        return f"{row[value]:+.{digits}f} ± {half_text}{star}"

    records = [
        {head: task} | {row["block"]: text(row) for row in of_task.to_dict("records")}
        for task, of_task in frame.groupby("task", sort=False)
    ]
    return pd.DataFrame(records)


def _init_differences(differences: pd.DataFrame) -> pd.DataFrame:
    return by_task(differences[differences["contrast"] == INIT], "mean", head=INIT)


def _difference_sections(
    tasks: pd.DataFrame, differences: pd.DataFrame, figure: tuple[Path, str]
) -> Iterator[Section]:
    """What learning adds: by task and layer, by task, and by contrast."""
    yield Section(
        title="What learning adds: differences within each seed",
        figures=[figure],
        table=_init_differences(differences),
        note="* p below 0.05 after Holm's correction over all tasks and layers.",
    )
    yield Section(
        title="",
        table=tabulate(
            tasks,
            {
                "task": "task",
                "layers": "num_blocks",
                "intervals without 0": "num_beyond",
                "after Holm": "num_holm",
                "rms difference": _size("rms_difference"),
                "rms sigma": number("rms_sigma"),
                "largest": lambda row: f"{_signed_text(row['largest'])} ({row['largest_block']})",
            },
        ),
        note=f"{INIT}, by task.",
    )
    yield Section(
        title="",
        table=tabulate(
            contrast_frame(differences),
            {
                "difference": "contrast",
                "pairs of task and layer": "num",
                "intervals without 0": "num_beyond",
                "after Holm": "num_holm",
                "largest": _size("largest"),
            },
        ),
        note="Init: pre-trained weights, never trained. Oneshot: dense fine-tuned ones, not "
        "retrained.",
    )


def _likeness_section(ranks: pd.DataFrame, figure: tuple[Path, str]) -> Section:
    records = [
        {"task": task, "weights": weights}
        | {
            f"rho, {MEASURE_NAMES[measure]} (p)": f"{number_text(rho)} ({decimal_text(p, 2)})"
            for measure, rho, p in of_task[["measure", "rho", "p"]].itertuples(index=False)
        }
        for (task, weights), of_task in ranks.groupby(["task", "weights"], sort=False)
    ]
    return Section(
        title="Are layers with small exponents like their neighbours?",
        figures=[figure],
        table=pd.DataFrame(records),
        note="Spearman's rank correlation with |sigma|, which the paper's explanation wants "
        "negative; p over orders of the layers. Tasks share one encoder: they are no replicates.",
    )


def verdict_sentence(differences: pd.DataFrame, table: pd.DataFrame) -> str:
    """The verdict with its counts, and how much of sigma is there without training."""
    found = verdict(differences)
    if found == "unknown":
        return f"{VERDICTS[found]}."
    rows = differences[differences["contrast"] == INIT].dropna(subset=["low"])
    (count,) = contrast_frame(rows).to_dict("records")
    largest = rows.iloc[np.nanargmax(rows["mean"].abs())]
    left_over = np.sum(np.square(rows["mean"])) / np.sum(np.square(table["sigma"]))
    share = "less than 0.01 %" if left_over < 1e-4 else percent_text(left_over)
    return (
        f"{VERDICTS[found]} ({count['num_beyond']} of {count_text(count['num'], 'pair')} of task "
        f"and layer by their interval, {count['num_holm']} after Holm's correction). The largest "
        f"difference is {_signed_text(largest['mean'])} ({largest['task']}, {largest['block']}) "
        f"where sigma runs from {table['sigma'].min():+.3f} to {table['sigma'].max():+.3f}; all "
        f"intervals lie within ±{size_text(count['bound'])}. The sum of squares of the differences "
        f"is {share} of that of sigma, the scatter of seeds included."
    )


def moved_sentence(tasks: pd.DataFrame) -> str:
    """How far fine-tuning goes from the pre-trained weights within a level."""
    moved = tasks.dropna(subset=["moved"]).to_dict("records")
    if not moved:
        return "How far the weights move was not recorded."
    texts = ", ".join(f"{percent_text(row['moved'])} ({row['task']})" for row in moved)
    return f"Training moves the surviving weights by {texts} of their norm, mean over levels."


def spread_sentence(spread: pd.DataFrame) -> str:
    """By how much tasks differ, beside their seeds."""
    if spread["p"].isna().all():
        return "One task, or one seed: whether tasks share their exponents cannot be said."
    widest = spread.iloc[np.nanargmax(spread["spread"])]
    seed_sd = np.sqrt(np.mean(np.square(spread["seed_sd"])))
    return (
        f"Tasks differ in sigma by at most {size_text(widest['spread'])} ({widest['block']}), in "
        f"{(spread['p_holm'] < LEVEL).sum()} of {len(spread)} layers more than their seeds do "
        "(analysis of variance, after Holm's correction); seeds of one task scatter by "
        f"{size_text(seed_sd)}."
    )


def kind_sentence(kinds: pd.DataFrame, table: pd.DataFrame) -> str:
    """Are the kinds of matrices as near a fixed point as the layers?"""
    of_kind, of_layer = (frame.groupby("block")["sigma"].mean() for frame in (kinds, table))
    return (
        f"By kind of matrix sigma runs from {of_kind.min():+.3f} ({of_kind.idxmin()}) to "
        f"{of_kind.max():+.3f} ({of_kind.idxmax()}), {np.ptp(of_kind) / np.ptp(of_layer):.1f} "
        "times the range over layers."
    )


def published_sentence(table: pd.DataFrame, published: pd.DataFrame) -> str:
    """Mean sigma over tasks beside that of the paper's Table 3."""
    ours, theirs = (frame.groupby("block")["sigma"].mean() for frame in (table, published))
    return f"Beside the paper's Table 3, means over tasks: {agreement(ours, theirs).text()}."


def limits(
    settings: Mapping[str, Any], *, num_seeds: int, unfinished: Sequence[str]
) -> Iterator[str]:
    """What a reader must know before believing the tables."""
    if unfinished:
        yield f"Not finished and left out: {', '.join(unfinished)}."
    yield (
        f"{count_text(num_seeds, 'seed')} a task, all from the same pre-trained weights: intervals "
        "say nothing of other checkpoints."
    )
    if 1 < num_seeds < 5:
        yield "With few seeds a difference that does not stand is not shown to be absent."
    yield (
        f"{count_text(settings['epochs'], 'epoch')} a level, inputs of up to "
        f"{settings['max_length']} tokens, {count_text(settings['levels'], 'pruning')}."
    )
    if settings["checkpoint"] == EMBEDDED:
        yield (
            "The embedded encoder is distilled, then trained on sentence pairs, and has 6 layers "
            "of 384 units: the paper's Table 3 does not apply to it."
        )
    yield (
        "The layers of a task are not independent: shares sum to one, with those of the pooler, "
        "which is in no layer."
    )


def decimals(values: Iterable[float]) -> int:
    """Decimals that show two digits of the largest value, at least the paper's three."""
    sizes = np.abs(np.array([*values], float))
    largest = sizes.max(initial=0, where=np.isfinite(sizes))
    return 3 if largest == 0 else max(3, 1 - math.floor(math.log10(largest)))


def size_text(value: float) -> str:
    """A size with the decimals it needs."""
    return decimal_text(abs(value), decimals([value]))


def _signed_text(value: float) -> str:
    return number_text(value, decimals([value]))


def _size(name: str) -> Column:
    """A column of sizes."""
    return lambda row: size_text(row[name])
