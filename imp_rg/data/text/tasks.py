"""Tasks by name: which columns a row has, what its label means, and how answers are scored."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

Kind = Literal["classification", "regression", "span", "masked"]
"""What a task asks for: one of some classes, a number, a passage of the context, or the words that
were masked."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task on texts.

    Attributes:
      name: As in file names: lower case, without hyphens.
      kind: What is asked for.
      columns: Of the one text or the two texts; question and context for spans. Rows of masked
        texts may have those of any other task instead.
      metrics: Names in `imp_rg.data.metrics`; the first one is the headline.
      label_names: Classes in the order of their labels; empty unless `kind` is classification.
      label_range: Smallest and largest score; only if `kind` is regression.
      prepared: Name in TensorFlow Datasets.
      validation: Name of the validation split in TensorFlow Datasets.
      borrowed: Task from which JSON lines are taken where there are none of its own.
    """

    name: str
    kind: Kind = "classification"
    columns: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    label_names: tuple[str, ...] = ()
    label_range: tuple[float, float] | None = None
    prepared: str
    validation: str = "validation"
    borrowed: str | None = None

    @property
    def num_outputs(self) -> int:
        """Numbers that a head gives: one a class, one score, or one start and one end a token.

        0 for masked words, where it is the vocabulary that decides.
        """
        given = {"regression": 1, "span": 2, "masked": 0}
        return given.get(self.kind, len(self.label_names))


_SENTENCES = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")

_ALL = (
    Task(
        name="mnli",
        columns=("premise", "hypothesis"),
        label_names=("entailment", "neutral", "contradiction"),
        prepared="glue/mnli",
        validation="validation_matched",
    ),
    Task(
        name="qqp",
        columns=("question1", "question2"),
        metrics=("accuracy", "f1"),
        label_names=("not_duplicate", "duplicate"),
        prepared="glue/qqp",
    ),
    Task(
        name="stsb",
        kind="regression",
        columns=_SENTENCES,
        metrics=("pearson", "spearman"),
        label_range=(0.0, 5.0),
        prepared="glue/stsb",
    ),
    Task(
        name="wnli",
        columns=_SENTENCES,
        label_names=("not_entailment", "entailment"),
        prepared="glue/wnli",
    ),
    Task(
        name="qnli",
        columns=("question", "sentence"),
        label_names=_ENTAILMENT,
        prepared="glue/qnli",
    ),
    Task(
        name="mrpc",
        columns=_SENTENCES,
        metrics=("accuracy", "f1"),
        label_names=("not_equivalent", "equivalent"),
        prepared="glue/mrpc",
    ),
    Task(name="rte", columns=_SENTENCES, label_names=_ENTAILMENT, prepared="glue/rte"),
    Task(
        name="sst2",
        columns=("sentence",),
        label_names=("negative", "positive"),
        prepared="glue/sst2",
    ),
    Task(
        name="cola",
        columns=("sentence",),
        metrics=("matthews",),
        label_names=("unacceptable", "acceptable"),
        prepared="glue/cola",
    ),
    Task(
        name="squad",
        kind="span",
        columns=("question", "context"),
        metrics=("squad_f1", "exact_match"),
        prepared="squad/v1.1",
    ),
)

TASKS = {task.name: task for task in _ALL}
"""Nine tasks of GLUE and SQuAD v1.1, in the order of the paper's Table 3.

References:
  Wang et al., arXiv:1804.07461; Rajpurkar et al., arXiv:1606.05250. Metrics as in the study of
  BERT tickets (Chen et al., arXiv:2007.12223).
"""

MLM = Task(
    name="mlm",
    kind="masked",
    columns=("text",),
    prepared="glue/mnli",
    validation="validation_matched",
    borrowed="mnli",
)
"""Masked language modelling, on any texts; by default on those of MNLI.

References:
  Devlin et al., arXiv:1810.04805, Sec. 3.1. Chen et al., arXiv:2007.12223, take WikiText-103.
"""


def find_task(name: str) -> Task:
    """One of `TASKS` or `MLM` by name; case, hyphens and underscores do not matter (``STS-B``).

    Raises:
      ValueError: If the name is unknown; the nearest are given.

    References:
      House definition.
    """
    plain = re.sub(r"[-_ ]", "", name.lower())
    known = TASKS | {MLM.name: MLM}
    if plain not in known:
        near = ", ".join(get_close_matches(plain, known, n=3, cutoff=0.0))
        raise ValueError(f"task: must be a known task (nearest: {near}), got {name!r}")
    return known[plain]
