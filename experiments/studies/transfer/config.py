"""Settings of `experiments.transfer`: every flag with its default, and the presets."""

import json
import re
from pathlib import Path
from typing import Any, Literal

import jax
import tyro

from experiments.shell.settings import RunSettings, aside, identity, narrowed, settings
from experiments.studies.language.config import Config as TextRunConfig
from experiments.trunk.config import Config as RunConfig
from imp_rg.config import PruneConfig, TrainConfig, require, require_choice
from imp_rg.imp.finetune import FinetuneConfig
from imp_rg.models.resnet_cifar import Shortcut
from imp_rg.tickets.transfer import HEAD

Preset = Literal["smoke", "default", "cifar", "text"]
MinimalDensity = Literal["grid", "search", "none"]

DIGITS = (
    "digits",
    "digits+group=odd-even",
    "digits+group=loops",
    "digits+group=0-2_3-5_6-9",
    "digits+classes=0-4",
    "digits+classes=5-9",
    "digits+invert",
    "digits+permute",
    "digits+noise=0.5",
    "digits+shuffle",
)
"""Ways to see ten digits; the last two are controls with labels wrong in part or throughout."""

FEW_DIGITS = DIGITS[:2] + DIGITS[4:6] + DIGITS[8:9]

CIFAR = (
    "cifar10",
    "cifar10+group=animal-vehicle",
    "cifar100",
    "cifar100+group=coarse",
    "svhn_cropped",
)

TEXT = "text:"
"""How the names of text tasks begin: text:rte."""


EXTENDABLE = ("tasks", "levels_compared", "minimal_density")
"""Settings that may differ from those an experiment was begun with."""


@settings
class TextConfig:
    """What only tasks of text have.

    Attributes:
      source: jsonl:PATH (one folder a task), or tfds.
      checkpoint: As of experiments.language_flow.
      max_length: Tokens to which inputs are cut.
      train: How encoders are fine-tuned, sources and targets alike.
    """

    source: str = "tfds"
    checkpoint: str = "minilm"
    max_length: int = 64
    train: FinetuneConfig = FinetuneConfig()


@settings
class Config(RunSettings):
    """Trains the tickets of every task on every other one.

    Attributes:
      preset: Defaults to start from: a minute's try, minutes, or hours on an accelerator for CIFAR
        and SVHN or for texts.
      tasks: Data sets and what is derived from them (imp_rg.data.derived), or tasks of GLUE as
        text:NAME; by default ten of the digits, five for networks with convolutions. Tasks can be
        added to a finished experiment.
      resize: Height and width to which the images of all tasks are brought; by default as they are.
      data_dir: Where prepared TensorFlow Datasets lie.
      model: As of experiments.imp_flow.
      width: Multiplies the channels or units of all layers.
      shortcut: Where a residual block changes shape: 1x1 convolution or zero padding.
      blocks: Partition.
      redrawn: Leaves drawn afresh on the target, as patterns.
      levels_compared: Levels at which tickets are compared with all controls.
      minimal_density: How the lowest density that transfers is found: from the tickets of all
        levels, by halving those in between, or not at all.
      train: How weights are trained and rewound, sources and targets alike.
      text: What is different for texts.
    """

    preset: Preset = aside("default")
    tasks: tuple[str, ...] = ()
    resize: int | None = None
    data_dir: Path | None = None
    model: str = "lenet64-64-64-64-64-64"
    width: float = 1.0
    shortcut: Shortcut = "projection"
    blocks: str = "block"
    redrawn: tuple[str, ...] = HEAD
    seeds: int = 5
    levels: int = 26
    levels_compared: tuple[int, ...] = (6, 8, 11, 14)
    minimal_density: MinimalDensity = "grid"
    train: tyro.conf.OmitArgPrefixes[TrainConfig] = TrainConfig(learning_rate=0.03)
    text: TextConfig = TextConfig()

    def __post_init__(self):
        super().__post_init__()
        num = len(self.task_names)
        require(num >= 2, "tasks", "must be at least 2", self.tasks)
        folders = {task_folder(task) for task in self.task_names}
        require(len(folders) == num, "tasks", "must be different", self.tasks)
        require_choice("minimal_density", self.minimal_density, MinimalDensity)
        compared = self.levels_compared
        is_set = len(set(compared)) == len(compared) > 0
        require(is_set, "levels_compared", "must be different levels", compared)
        num_text = sum(task.startswith(TEXT) for task in self.task_names)
        rule = f"must be all images or all {TEXT}NAME"
        require(num_text in (0, num), "tasks", rule, self.task_names)
        require(self.levels >= 1, "levels", "must be at least 1", self.levels)
        density = (1 - PruneConfig().prune_fraction) ** self.levels
        reach = "" if num_text else f", down to a density of {density:.2g}"
        rule = f"must lie in 1 to {self.levels}, the levels of the sources' tickets{reach}"
        is_there = 1 <= min(compared) <= max(compared) <= self.levels
        require(is_there, "levels_compared", rule, compared)
        is_size = self.resize is None or self.resize >= 1
        require(is_size, "resize", "must be at least 1", self.resize)
        self.run_config(self.task_names[0])

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks, or those that fit the network."""
        return self.tasks or (DIGITS if self.model.startswith("lenet") else FEW_DIGITS)

    @property
    def seed_list(self) -> list[int]:
        """The seeds themselves."""
        return list(range(self.seeds))

    @property
    def ticket_levels(self) -> tuple[int, ...]:
        """Levels whose tickets are trained on every target, before any search."""
        compared = tuple(sorted(self.levels_compared))
        return tuple(range(1, self.levels + 1)) if self.minimal_density == "grid" else compared

    def run_config(self, task: str) -> RunConfig:
        """The run that finds the tickets of a task of images, by whose recipe it is a target."""
        # One program of all seeds; networks with convolutions lose by it (imp_rg.imp.levels).
        fastest: dict[str, Any] = (
            {"driver": "scan", "replicates": "vmap"} if self.model.startswith("lenet") else {}
        )
        return narrowed(
            self,
            RunConfig,
            preset="default",
            dataset=task if self.resize is None else f"{task}+resize={self.resize}",
            head="dense",
            out=None,
            fresh=False,
            **fastest,
        )

    def text_config(self, task: str) -> TextRunConfig:
        """The run that fine-tunes the tickets of a task of texts."""
        return narrowed(
            self,
            TextRunConfig,
            preset="default",
            tasks=(task.removeprefix(TEXT),),
            source=self.text.source,
            checkpoint=self.text.checkpoint,
            max_length=self.text.max_length,
            train=self.text.train,
            out=None,
            fresh=False,
        )

    def resolved(self) -> dict[str, Any]:
        """What makes the experiment what it is, in JSON types."""
        resolved = {
            "experiment": "transfer",
            "device": jax.default_backend(),
            "tasks": self.task_names,
            "levels_compared": sorted(self.levels_compared),
        }
        return json.loads(json.dumps(identity(self) | resolved))


def task_folder(task: str) -> str:
    """Name of the folder with the run of a task: its name, without what paths cannot have."""
    return re.sub(r"[^\w+=,.-]", "_", task)


PRESETS = {
    "smoke": Config(
        preset="smoke",
        tasks=("digits", "digits+group=odd-even", "digits+classes=0-4"),
        model="lenet32-32-32",
        seeds=2,
        levels=12,
        levels_compared=(4, 6, 8),
        train=TrainConfig(num_steps=100, rewind_step=5, learning_rate=0.03),
    ),
    "default": Config(),
    "cifar": Config(
        preset="cifar",
        tasks=CIFAR,
        model="resnet20",
        seeds=3,
        levels=18,
        levels_compared=(9, 12, 15, 18),
        minimal_density="search",
        train=TrainConfig(num_steps=40 * 390, rewind_step=390, batch_size=128),
    ),
    # Fine-tuning and transfer as in the study of BERT tickets (Chen et al., arXiv:2007.12223).
    "text": Config(
        preset="text",
        tasks=("text:rte", "text:mrpc", "text:wnli", "text:cola", "text:stsb"),
        blocks="layer",
        seeds=3,
        levels=9,
        levels_compared=(3, 5, 7),
        minimal_density="search",
        text=TextConfig(train=FinetuneConfig(epochs=3)),
    ),
}
