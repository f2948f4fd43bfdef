"""Tasks on texts: a name and a vocabulary go in, arrays of tokens with labels come out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Num

from imp_rg.config import require
from imp_rg.data.metrics import METRICS
from imp_rg.data.text.masking import UNASKED, Masking, make_masking, mask_once
from imp_rg.data.text.rows import Rows, read_questions, read_rows
from imp_rg.data.text.squad import Question, Windows, find_answers, make_windows
from imp_rg.data.text.tasks import Task, find_task
from imp_rg.data.text.tokenize import Tokenizer, Tokens


class TextSplit(NamedTuple):
    """One split of a task.

    Attributes:
      tokens: Of every example; windows if the task asks for spans.
      labels: Classes int32 [example], scores float32 [example], or first and last token of the
        answer int32 [example 2]. Of masked words, which a step draws anew, 0 [example] to train on;
        ids int32 [example token], `imp_rg.data.text.masking.UNASKED` elsewhere, to score.
      num_truncated: Examples cut to the limit of tokens.
      num_empty: Examples with a text that has no token.
      questions: If the task asks for spans, else empty.
      windows: The inputs of `tokens`, with what reading answers needs; None without questions.
    """

    tokens: Tokens
    labels: np.ndarray
    num_truncated: int
    num_empty: int
    questions: Sequence[Question] = ()
    windows: Windows | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class TextData:
    """A task with its data.

    Attributes:
      task: What is asked for.
      source: As given to `load_text`.
      train: Examples to train on.
      validation: Examples to score; if words are masked, some are already hidden in it.
      masking: How a step masks words; None unless the task asks for them.
    """

    task: Task
    source: str
    train: TextSplit
    validation: TextSplit
    masking: Masking | None = None


def load_text(
    name: str,
    source: str,
    tokenizer: Tokenizer,
    *,
    max_length: int = 128,
    stride: int = 128,
    max_question: int = 64,
    data_dir: str | Path | None = None,
) -> TextData:
    """Loads and tokenises a task.

    Args:
      name: Of the task, see `imp_rg.data.text.tasks.TASKS`.
      source: ``jsonl:PATH`` or ``tfds``, see `imp_rg.data.text.rows.read_rows`. Masked texts (task
        ``mlm``) are the column ``text`` or the columns of any other task, from ``PATH/mlm``,
        ``PATH`` itself or ``PATH/mnli``, whichever comes first; ``tfds`` gives those of MNLI.
      tokenizer: See `imp_rg.data.text.tokenize.load_tokenizer`.
      max_length: Tokens to which inputs are cut, special tokens included.
      stride: Of windows over contexts, in tokens; only for spans.
      max_question: Tokens to which questions are cut; only for spans.
      data_dir: Of prepared sets, if the source is ``tfds``.

    Raises:
      ValueError: If the task is unknown, or its rows are unreadable or unfit.

    References:
      House definition; the recipe of Chen et al., arXiv:2007.12223, has `max_length` 128, and 384
      for SQuAD.
    """
    task = find_task(name)

    def load_split(split: str) -> TextSplit:
        if task.kind != "span":
            return _encode(tokenizer, read_rows(task, source, split, data_dir=data_dir), max_length)
        asked = read_questions(task, source, split, data_dir=data_dir)
        limits = {"max_length": max_length, "stride": stride, "max_question": max_question}
        windows = make_windows(tokenizer, asked, **limits)
        lost = windows.num_truncated, windows.num_empty
        return TextSplit(windows.tokens, windows.spans, *lost, questions=asked, windows=windows)

    masking = make_masking(tokenizer) if task.kind == "masked" else None
    train, validation = load_split("train"), load_split("validation")
    if masking is not None:
        tokens, labels = mask_once(validation.tokens, masking)
        validation = validation._replace(tokens=tokens, labels=labels)
    return TextData(task=task, source=source, train=train, validation=validation, masking=masking)


def _encode(tokenizer: Tokenizer, rows: Rows, max_length: int) -> TextSplit:
    encoded = tokenizer.encode(*rows.texts, max_length=max_length)
    lost = encoded.num_truncated, encoded.num_empty
    return TextSplit(encoded.tokens, rows.labels, *lost)


def score(task: Task, split: TextSplit, outputs: Num[np.ndarray, "example ..."]) -> dict:
    """Every metric of a task, as fractions by name; the first is the headline.

    Args:
      task: What is asked for.
      split: The examples.
      outputs: Of the head for each example: logits [example class], scores [example], logits of
        start and end [example token 2], or the likeliest words [example token], whose logits
        would be too many to keep.

    Raises:
      ValueError: If there is not one output for each example.

    References:
      See `imp_rg.data.metrics`.
    """
    rule = f"must be one for each of {len(split.labels)} examples"
    require(len(outputs) == len(split.labels), "outputs", rule, len(outputs))
    labels, predictions = split.labels, outputs
    if split.windows is not None:
        labels = [question.answers for question in split.questions]
        predictions = find_answers(split.windows, split.questions, outputs)
    elif task.kind == "masked":
        is_asked = labels != UNASKED
        labels, predictions = labels[is_asked], outputs[is_asked]
    elif task.kind == "classification":
        predictions = np.argmax(outputs, axis=-1)
    return {name: METRICS[name](labels, predictions) for name in task.metrics}
