"""Checked rows of a task: texts and labels, wherever they come from."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imp_rg.config import require
from imp_rg.data.text.jsonl import Row, read_jsonl
from imp_rg.data.text.prepared import read_prepared
from imp_rg.data.text.squad import Question
from imp_rg.data.text.tasks import TASKS, Task

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a character, which JSON can write but no encoding holds."""


class Rows(NamedTuple):
    """Texts of one split.

    Attributes:
      texts: One list for each column of the task.
      labels: Classes int32, or scores float32, [example]; classes 0 where rows need no label.
    """

    texts: tuple[list[str], ...]
    labels: np.ndarray


def read_rows(task: Task, source: str, split: str, *, data_dir: str | Path | None = None) -> Rows:
    """Reads one split of a task with classes or scores.

    Args:
      task: Which columns and labels to expect.
      source: ``jsonl:PATH`` (see `imp_rg.data.text.jsonl`) or ``tfds``.
      split: ``train`` or ``validation``.
      data_dir: Of prepared sets, if the source is ``tfds``.

    Raises:
      ValueError: If the source is unknown or unreadable, a row lacks a column, or a label lies
        outside the task; names file and line.

    References:
      House definition.
    """
    columns, texts, labels = task.columns, [], []
    for place, row in _open_source(task, source, split, data_dir):
        columns = columns if labels else _columns(task, row)
        texts.append([_text(place, row, column) for column in columns])
        labels.append(0 if task.kind == "masked" else _label(task, place, row))
    dtype = np.float32 if task.kind == "regression" else np.int32
    by_column = tuple([row[i] for row in texts] for i in range(len(columns)))
    return Rows(by_column, np.asarray(labels, dtype))


def _columns(task: Task, row: Row) -> tuple[str, ...]:
    """Text columns of the task, or of masked texts their own or the first task's that fits."""
    others = [other.columns for other in TASKS.values()] if task.kind == "masked" else []
    fitting = (columns for columns in [task.columns, *others] if set(columns) <= set(row))
    return next(fitting, task.columns)


def read_questions(
    task: Task, source: str, split: str, *, data_dir: str | Path | None = None
) -> list[Question]:
    """Reads one split of a task that asks for spans; see `read_rows`.

    An answer that does not lie where its row says is looked for nearby, since some copies strip
    their contexts.

    Raises:
      ValueError: As `read_rows`, and if an answer is not in its context.

    References:
      House definition.
    """
    rows = _open_source(task, source, split, data_dir)
    return [_question(task, place, row) for place, row in rows]


def _open_source(
    task: Task, source: str, split: str, data_dir: str | Path | None
) -> Iterator[tuple[str, Row]]:
    name, _, path = source.partition(":")
    if name == "jsonl" and path:
        return read_jsonl(task, Path(path), split)
    require(source == "tfds", "source", "must be tfds or jsonl:PATH", source)
    return read_prepared(task, split, data_dir=data_dir)


def _value(place: str, row: Row, column: str) -> Any:
    rule = f"must have the column {column}"
    require(column in row, place, rule, ", ".join(map(str, row)) or "no column")
    return row[column]


def _text(place: str, row: Row, column: str) -> str:
    value = _value(place, row, column)
    require(isinstance(value, str), place, f"{column} must be a text", value)
    halves = _SURROGATE.findall(value)
    require(not halves, place, f"{column} must hold no half of a character", halves[:1])
    return value


def _label(task: Task, place: str, row: Row) -> float:
    value = _value(place, row, "label")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if task.label_range is not None:
        low, high = task.label_range
        rule = f"label must be a score from {low:g} to {high:g}"
        is_fit = is_number and low <= value <= high
    else:
        num_classes = len(task.label_names)
        rule = f"label must be an integer from 0 to {num_classes - 1}"
        is_fit = isinstance(value, int) and is_number and 0 <= value < num_classes
    require(is_fit, place, rule, value)
    return value


def _question(task: Task, place: str, row: Row) -> Question:
    question, context = (_text(place, row, column) for column in task.columns)
    answers = _value(place, row, "answers")
    rule = "answers must hold as many text as answer_start, at least one"
    is_fit = isinstance(answers, dict) and {"text", "answer_start"} <= set(answers)
    require(is_fit, place, rule, answers)
    texts, starts = answers["text"], answers["answer_start"]
    is_fit = isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts) > 0
    require(is_fit, place, rule, answers)
    pairs = zip(texts, starts, strict=True)
    is_fit = all(isinstance(t, str) and t.strip() and isinstance(s, int) for t, s in pairs)
    require(is_fit, place, "answers must be texts with places", answers)
    start = _locate(place, context, texts[0], starts[0])
    return Question(question, context, tuple(texts), start)


def _locate(place: str, context: str, answer: str, start: int) -> int:
    """Where the answer lies nearest to where it is said to."""
    if start >= 0 and context.startswith(answer, start):
        return start
    place_said = max(start, 0)
    before = context.rfind(answer, 0, place_said + len(answer))
    after = context.find(answer, place_said)
    found = [where for where in (before, after) if where >= 0]
    require(bool(found), place, "the answer must lie in the context", answer)
    return min(found, key=lambda where: abs(where - start))
