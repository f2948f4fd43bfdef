"""What the tables of an encoder by task say, in sentences.

In: tables of `experiments.studies.language.tables`. Out: the answers and the limits of the page.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.studies.language.tables import INIT, LEVEL, ONESHOT, num_beyond, of_partition
from imp_rg.foreign.bert_variables import EMBEDDED
from imp_rg.plots.style import Frame
from imp_rg.report.published_beside import agreement, agreement_text
from imp_rg.report.words import count_text, decimal_text, percent_text
from imp_rg.rg.permutation import holm


def decimals(values: Iterable[float]) -> int:
    """Decimals that show two digits of the largest value, at least the paper's three."""
    sizes = np.abs(np.array([*values], float))
    largest = sizes.max(initial=0, where=np.isfinite(sizes))
    return 3 if largest == 0 else max(3, 1 - math.floor(math.log10(largest)))


def size_text(value: float) -> str:
    """A size with the decimals it needs."""
    return decimal_text(abs(value), decimals([value]))


def signed_text(value: float) -> str:
    """The same with its sign."""
    return ("-" if value < 0 else "+") + size_text(value)


def answers(tables: dict[str, Frame], *, ci_level: float) -> list[str]:
    """The verdict first, then what stands around it."""
    table3, differences = tables["table3"], of_partition(tables, "layer")
    sentences = [
        verdict(differences, table3, ci_level=ci_level),
        moved_sentence(tables["tasks"]),
        contrast_sentence(differences, ONESHOT, "Against pruning the fine-tuned dense weights"),
        spread_sentence(tables["spread"]),
    ]
    if "kinds" in tables:
        sentences.append(kind_sentence(tables["kinds"], table3))
    if "published" in tables:
        sentences.append(published_sentence(table3, tables["published"]))
    if "likeness" in tables:
        sentences.append(likeness_sentence(tables["likeness"]))
    return sentences


def verdict(differences: Frame, table: Frame, *, ci_level: float) -> str:
    """Does the IMP flow differ from the `init` flow beyond its interval? Over all tasks."""
    rows = differences[differences["contrast"] == INIT].dropna(subset=["low"])
    if rows.empty:
        return "One seed gives no interval: whether IMP differs from the init null cannot be said."
    beyond, real = num_beyond(rows), int((rows["p_holm"] < LEVEL).sum())
    ci, pairs = f"{100 * ci_level:g} %", count_text(len(rows), "pair")
    if not beyond:
        found = f"Not shown: on none of {pairs} of task and layer does the {ci} interval exclude 0"
    elif not real:
        found = (
            f"Not shown: the {ci} interval excludes 0 on {beyond} of {pairs} of task and layer, "
            f"but none of them stands after Holm's correction"
        )
    else:
        found = (
            f"Yes: IMP differs from pruning the pre-trained weights without training on {beyond} "
            f"of {pairs} of task and layer by its {ci} interval, on {real} after Holm's correction"
        )
    return f"{found}. {_size(rows, table)}"


def _size(rows: Frame, table: Frame) -> str:
    """How much of sigma is there without training."""
    largest = rows.loc[rows["mean"].abs().idxmax()]
    left_over = np.sum(np.square(rows["mean"])) / np.sum(np.square(table["sigma"]))
    share = "less than 0.01 %" if left_over < 1e-4 else percent_text(left_over)
    bound = float(np.nanmax([-rows["low"], rows["high"]]))
    return (
        f"The largest difference is {signed_text(largest['mean'])} ({largest['task']}, "
        f"{largest['block']}) where sigma runs from {table['sigma'].min():+.3f} to "
        f"{table['sigma'].max():+.3f}; all intervals lie within ±{size_text(bound)}. The sum of "
        f"squares of the differences is {share} of that of sigma: so much, the scatter of "
        "seeds included, comes with training."
    )


def task_sentences(tasks: Frame) -> list[str]:
    """The same for each task."""
    return [
        f"{row['task']}: {row['num_beyond']} of {row['num_blocks']} layers differ from the init "
        f"null by their interval, {row['num_holm']} after Holm's correction; root mean square "
        f"difference {size_text(row['rms_difference'])} beside {row['rms_sigma']:.3f} of sigma "
        f"itself, the largest {signed_text(row['largest'])} in {row['largest_block']}."
        for row in tasks.to_dict("records")
    ]


def moved_sentence(tasks: Frame) -> str:
    """How far fine-tuning goes from the pre-trained weights within a level."""
    moved = tasks.dropna(subset=["moved"])
    if moved.empty:
        return "How far the weights move was not recorded."
    found = ", ".join(
        f"{percent_text(row['moved'])} ({row['task']})" for row in moved.to_dict("records")
    )
    return f"Training moves the surviving weights by {found} of their norm, mean over levels."


def contrast_sentence(differences: Frame, contrast: str, meaning: str) -> str:
    """One of the other contrasts in a sentence that begins with what it means."""
    rows = differences[differences["contrast"] == contrast]
    real = int((rows["p_holm"] < LEVEL).sum())
    return (
        f"{meaning}: {num_beyond(rows)} of {len(rows)} intervals exclude 0, {real} of the "
        "differences stand after Holm's correction; the largest is "
        f"{size_text(rows['mean'].abs().max())}."
    )


def spread_sentence(spread: Frame) -> str:
    """Do tasks share their exponents?"""
    if spread["p"].isna().all():
        return "One task, or one seed: whether tasks share their exponents cannot be said."
    widest: Any = spread.loc[spread["spread"].idxmax()]
    real = int((spread["p_holm"] < LEVEL).sum())
    seed_sd = np.sqrt(np.mean(np.square(spread["seed_sd"])))
    verdict = (
        f"in {real} of {len(spread)} layers more than their seeds do (analysis of variance, after "
        "Holm's correction)"
        if real
        else "in no layer shown to be more than their seeds do (analysis of variance, after Holm's "
        "correction)"
    )
    return (
        f"Tasks differ in sigma by at most {size_text(widest['spread'])} ({widest['block']}), "
        f"{verdict}; seeds of one task scatter by {size_text(seed_sd)}."
    )


def kind_sentence(kinds: Frame, table: Frame) -> str:
    """Are the kinds of matrices as near a fixed point as the layers?"""
    ranges = [np.ptp(frame.groupby("block")["sigma"].mean()) for frame in (kinds, table)]
    of_kind = kinds.groupby("block")["sigma"].mean()
    return (
        f"By kind of matrix sigma runs from {of_kind.min():+.3f} ({of_kind.idxmin()}) to "
        f"{of_kind.max():+.3f} ({of_kind.idxmax()}), {ranges[0] / ranges[1]:.1f} times the range "
        "over layers."
    )


def published_sentence(table: Frame, published: Frame) -> str:
    """Mean sigma over tasks beside that of the paper's Table 3."""
    ours, theirs = (frame.groupby("block")["sigma"].mean() for frame in (table, published))
    return (
        f"Beside the paper's Table 3, means over tasks: {agreement_text(agreement(ours, theirs))}."
    )


def likeness_sentence(ranks: Frame) -> str:
    """Is sigma small where layers are alike?"""
    of_checkpoint = ranks[ranks["weights"] == "pretrained"].dropna(subset=["rho"])
    if of_checkpoint.empty:
        return "Likeness of layers and |sigma| could not be ranked."
    medians = of_checkpoint.groupby("measure", sort=False)["rho"].median()
    found = ", ".join(f"{value:+.2f} ({measure})" for measure, value in medians.items())
    few, many = of_checkpoint["num_layers"].min(), of_checkpoint["num_layers"].max()
    points = f"{few}" if few == many else f"{few} or {many}"
    real = int((holm(of_checkpoint["p"].to_numpy(float)) < LEVEL).sum())
    return (
        f"Likeness of consecutive layers ranks against |sigma| with a median Spearman correlation "
        f"over tasks of {found}; the paper's explanation asks for a negative one. {real} of "
        f"{len(of_checkpoint)} stand after Holm's correction. Each is over the same {points} "
        "layers of one encoder, of which tasks are no replicates."
    )


def limits(
    settings: Mapping[str, Any], *, num_seeds: int, num_levels: int, unfinished: Sequence[str]
) -> Iterator[str]:
    """What a reader must know before believing the tables."""
    if unfinished:
        yield f"Not finished and left out: {', '.join(unfinished)}."
    yield (
        f"{count_text(num_seeds, 'seed')} a task. All start from the same pre-trained weights: "
        "they differ in the head, the order of the data and dropout, so intervals say nothing of "
        "other checkpoints."
    )
    if 1 < num_seeds < 5:
        yield (
            f"With {num_seeds} seeds t-intervals are wide, and Holm's correction over all tasks "
            "and layers leaves little power: a difference that does not stand is not shown to be "
            "absent."
        )
    if "epochs" in settings:
        yield (
            f"{count_text(settings['epochs'], 'epoch')} a level, inputs of up to "
            f"{settings.get('max_length')} tokens, {num_levels - 1} prunings."
        )
    if settings.get("checkpoint") == EMBEDDED:
        yield (
            "The embedded encoder is a sentence encoder: distilled, then trained on sentence "
            "pairs. It is no plain pre-trained BERT, and has 6 layers of 384 units instead of 12 "
            "of 768; the paper's Table 3 does not apply to it."
        )
    yield (
        "Shares sum to one, so the layers of a task are not independent; sigma is over all "
        "prunable weights, the pooler included, which is in no layer."
    )
