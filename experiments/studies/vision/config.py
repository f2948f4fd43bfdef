"""Settings of `experiments.vision_flow`: every flag with its default, presets, and runs."""

import re
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

from experiments.shell.settings import Flag, RunSettings, aside, narrowed, settings
from experiments.trunk import config as trunk
from imp_rg.config import TrainConfig, require, require_choice
from imp_rg.imp.drivers import Driver
from imp_rg.imp.modes import STUDY_EPOCHS, Mode, scaled_config
from imp_rg.imp.replicates import Strategy
from imp_rg.models.resnet_imagenet import Stem

Preset = Literal["smoke", "default", "short", "paper"]
ScratchMode = Literal["lt", "rewind_lt", "pt"]
Method = Literal["supervised", "simclr", "moco"]

SCRATCH = "scratch"

STUDY_HOLDOUT = 5000
"""Training images that the study holds out of CIFAR and SVHN."""


class Source(NamedTuple):
    """A pre-training that the command runs itself.

    Attributes:
      method: Of `experiments.pretrain`.
      dataset: What it sees.
    """

    method: Method
    dataset: str

    def is_of(self, task: str) -> bool:
        """Whether it is the task itself, with its labels: that would be no other start."""
        return self == Source("supervised", task)


class RunSpec(NamedTuple):
    """A task from an init: one run folder.

    Attributes:
      task: Name of the data set.
      init: What its networks start from.
      mode: What their levels start from.
    """

    task: str
    init: str
    mode: Mode

    @property
    def folder(self) -> str:
        """Name of the run folder below the output."""
        return f"{slug(self.task)}--{slug(self.init)}"


def slug(name: str) -> str:
    """A name of a task or init as part of a path; of a file its own name stays.

    House definition.
    """
    prefix, _, path = name.rpartition("/")
    kept = f"{prefix.partition(':')[0]}:{path}" if ":" in prefix else path
    return re.sub(r"[^\w+=,.-]", "-", kept)


def parse_source(init: str) -> Source | None:
    """``METHOD:DATASET`` as a pre-training of our own; None for anything else."""
    method, colon, dataset = init.partition(":")
    return Source(cast(Method, method), dataset) if colon and method in get_args(Method) else None


@settings
class Config(RunSettings):
    """Measures the IMP flow of a ResNet on tasks of images, from scratch and pre-trained.

    Attributes:
      preset: Defaults to start from: a two-minute try, hours on a CPU, ten epochs a level on a GPU,
        or the paper's recipe.
      tasks: Data sets: digits, npz:PATH, folder:PATH, TensorFlow Datasets names, and what is
        derived from them (imp_rg.data.derived).
      inits: What networks start from: scratch, a file of pre-trained weights, or METHOD:DATASET,
        which is pre-trained first (supervised, simclr or moco). A task is not pre-trained on itself
        by supervision.
      mode: What levels of networks from scratch are rewound to; pre-trained ones are rewound to
        their pre-trained weights.
      model: resnet18, resnet34 or resnet50.
      width: Multiplies the channels of all layers.
      stem: For small images (3x3, full resolution), or that of ImageNet.
      epochs: Length of the schedule; warm-up, drops and rewind point keep their ratios to it.
      epochs_scale: Multiplies the epochs.
      batch_size: Images a step.
      learning_rate: Peak value.
      pretrain_epochs: Of the pre-training that the command runs itself.
      augment: Of the tasks; by default flips and crops for CIFAR, none otherwise.
      holdout: Training images held out for validation; by default 5000 of CIFAR and SVHN, a tenth
        of other sets.
      first_seed: Seed of the first replicate; the others count up.
      data_dir: Where prepared TensorFlow Datasets lie.
      blocks: stage (those of the paper), block, layer, or own patterns as
        NAME=PATTERN[+PATTERN],NAME=...
      null: Further null models that train: shuffled.
      dtype: Of the computation; auto is bfloat16 on accelerators, float32 on a CPU. Weights and
        statistics are float32 in any case.
      devices: Devices that share the work.
      distributed: Whether several processes, started by a scheduler, share it.
      driver: Of the training loop; auto takes the fastest by measurement.
      replicates: How seeds run side by side; auto takes what was fastest on such devices, measure
        tries all ways on the present one.
      save_levels: Also keep the trained weights of every level, in levels/.
      no_tickets: Keep no tickets: rewind weights and masks of every level, 5 bytes a weight.
    """

    preset: Preset = aside("default")
    tasks: tuple[str, ...] = aside(("cifar10", "cifar100"))
    inits: tuple[str, ...] = aside((SCRATCH, "supervised:cifar10", "supervised:cifar100"))
    mode: ScratchMode = "rewind_lt"
    model: str = "resnet50"
    width: float = 1.0
    stem: Stem = "cifar"
    epochs: float = STUDY_EPOCHS
    epochs_scale: float = 1.0
    batch_size: int = 256
    learning_rate: float = 0.1
    pretrain_epochs: int = aside(10)
    augment: Literal["default", "none", "flip_crop"] = "default"
    holdout: int | None = None
    first_seed: int = 0
    levels: int = 18
    data_dir: Path | None = aside(None)
    blocks: str = "stage"
    null: tuple[Literal["shuffled"], ...] = ()
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    devices: int = 1
    distributed: Flag = False
    driver: Driver | Literal["auto"] = "auto"
    replicates: Strategy | Literal["auto", "measure"] = "auto"
    save_levels: Flag = aside(False)
    no_tickets: Flag = aside(False)

    def __post_init__(self):
        super().__post_init__()
        require(len(self.tasks) > 0, "tasks", "must name at least one", self.tasks)
        require(len(self.inits) > 0, "inits", "must name at least one", self.inits)
        for name, values in (("tasks", self.tasks), ("inits", self.inits)):
            are_apart = len(set(map(slug, values))) == len(values)
            require(are_apart, name, "must differ in the names of their folders", values)
        require(len(self.runs) > 0, "inits", "must leave a task that is not its own", self.inits)
        require_choice("mode", self.mode, ScratchMode)
        require(self.devices >= 1, "devices", "must be at least 1", self.devices)
        rule = "must be at least 1"
        require(self.pretrain_epochs >= 1, "pretrain_epochs", rule, self.pretrain_epochs)
        # Each process would come to an end of its own.
        is_agreed = not (self.distributed and self.replicates == "measure")
        rule = "must not be measure with --distributed"
        require(is_agreed, "replicates", rule, self.replicates)
        self.level_config(self.runs[0], TrainConfig())  # checks what both configs hold

    @property
    def runs(self) -> list[RunSpec]:
        """Every task from every init, task by task; but none from supervision on itself."""
        return [
            RunSpec(task, init, self.mode if init == SCRATCH else "pt_trans")
            for task in self.tasks
            for init in self.inits
            if (source := parse_source(init)) is None or not source.is_of(task)
        ]

    @property
    def sources(self) -> dict[str, Source]:
        """The pre-trainings that runs start from, by init."""
        found = {spec.init: parse_source(spec.init) for spec in self.runs}
        return {init: source for init, source in found.items() if source is not None}

    def train_config(self, mode: Mode, *, steps_per_epoch: int) -> TrainConfig:
        """F of the runs of a mode.

        Raises:
          ValueError: If the schedule is too short for its ratios.
        """
        return scaled_config(
            mode,
            steps_per_epoch=steps_per_epoch,
            epochs=self.epochs,
            epochs_scale=self.epochs_scale,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
        )

    def level_config(self, spec: RunSpec, train: TrainConfig) -> trunk.Config:
        """What one run, level by level, reads of its settings."""
        changes = {"preset": "default", "augment": "default", "out": None, "fresh": False}
        return narrowed(self, trunk.Config, dataset=spec.task, train=train, **changes)


CIFAR_PARTS = ("cifar10+balanced=10000+resize=16", "cifar100+balanced=10000+resize=16")

PRESETS: dict[str, Config] = {
    "smoke": Config(
        preset="smoke",
        tasks=("digits", "digits+group=odd-even"),
        inits=(SCRATCH, "supervised:digits", "supervised:digits+group=odd-even"),
        model="resnet18",
        width=0.125,
        epochs=5,
        batch_size=64,
        pretrain_epochs=2,
        seeds=2,
        levels=2,
    ),
    # A small network on parts of CIFAR, for two cores: not what the paper measured. Crops by up to
    # 4 of 16 pixels would be more than eight epochs can make up for.
    "default": Config(
        tasks=CIFAR_PARTS,
        inits=(SCRATCH, *(f"supervised:{task}" for task in CIFAR_PARTS)),
        model="resnet18",
        width=0.125,
        augment="none",
        epochs=8,
        batch_size=128,
        levels=10,
    ),
    # Ten epochs a level for one accelerator: seeds are given up before epochs.
    "short": Config(preset="short", epochs=10, seeds=1, levels=10, no_tickets=True),
    # Chen et al., arXiv:2012.06908, which the paper's Table 2 comes from.
    "paper": Config(preset="paper", pretrain_epochs=STUDY_EPOCHS),
}
