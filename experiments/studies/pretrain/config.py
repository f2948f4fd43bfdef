"""Settings of `experiments.pretrain`: every flag with its default, and the presets.

What does not change the weights, such as everything about the levels, is declared aside.
"""

from pathlib import Path
from typing import Any, Literal

import tyro

from experiments.shell.settings import Flag, RunSettings, aside, narrowed, settings
from experiments.trunk.config import Config as TrunkConfig
from experiments.trunk.config import Preset
from imp_rg.config import PruneConfig, TrainConfig, require, require_choice
from imp_rg.data.image_folder import PREFIX
from imp_rg.data.views import ViewConfig, moco_views, simclr_views
from imp_rg.imp.contrastive import ContrastiveConfig, Reduction
from imp_rg.imp.drivers import Driver
from imp_rg.models.resnet_imagenet import Stem

Method = Literal["supervised", "simclr", "moco"]

TEMPERATURES = {"simclr": 0.5, "moco": 0.2}
RATES = {"supervised": 0.1, "simclr": 0.1, "moco": 0.03}
LEVEL_RATES = {"supervised": 1e-4, "simclr": 1e-4, "moco": 3e-4}
"""Published values; but for SimCLR from scratch by plain SGD, which has none."""

MAX_QUEUE = 65536
"""Keys in the queue of MoCo, if there are as many images."""


@settings
class Config(RunSettings):
    """Trains a network that others start from, and prunes it on the task it was trained for.

    Attributes:
      preset: Defaults to start from: a minute's try, parts of CIFAR-10 on two cores, or the recipe
        of the study of pre-trained tickets.
      method: supervised, simclr or moco.
      dataset: digits, npz:PATH (x_train, y_train, x_test, y_test), a TensorFlow Datasets name, or
        folder:PATH, which is streamed.
      data_dir: Where prepared TensorFlow Datasets lie.
      augment: Of supervised training; by default flips and crops for CIFAR, none otherwise.
      normalize: Channel statistics; range only divides pixels by the largest one, as the study does
        for SimCLR, and is the default there, train elsewhere.
      model: resnet18/34/50, resnet14/20/32/44/56, or lenet with hidden widths.
      width: Multiplies the channels or units of all layers.
      stem: For small images (3x3, full resolution), or that of ImageNet; resnet18/34/50 only.
      epochs: Passes over the data of the pre-training.
      batch_size: Images a step; an incomplete last batch is dropped.
      learning_rate: Peak value; by default 0.1, for moco 0.03. Supervised training divides it by 10
        at 1/2 and 3/4 of its steps, the others follow a cosine to 0; all warm up over an epoch, but
        at most a twentieth of the steps.
      weight_decay: L2 coefficient on all parameters.
      temperature: Divides similarities; by default 0.5 for simclr, 0.2 for moco.
      reduction: NT-Xent as published (mean_log), or as in the study's code (log_mean).
      queue_size: Keys in the queue of moco; by default 65536, but no more than there are images,
        in whole batches.
      key_momentum: What the key encoder of moco keeps of itself at a step.
      num_outputs: Dimensions of the embedding.
      strength: Of the colour jitter, relative to the published one.
      min_scale: Smallest share of the area that a view keeps; by default 0.08 for simclr, 0.2 for
        moco.
      flip: Probability that a view is mirrored.
      blur: Probability of a Gaussian blur; by default 0 for simclr, as in the study, 0.5 for moco.
      seed: Of the network and its training.
      save_every: Epochs from one saved state and test metric to the next.
      levels: Last level of pruning on the same task; 0 prunes nothing.
      init_from: File of weights to prune, instead of training some.
      level_epochs: Passes over the data of a level.
      level_learning_rate: Constant; by default 1e-4, for moco 3e-4.
      seeds: Replicates of the levels; they start from the same weights.
      blocks: stage, block, layer, or own patterns as NAME=PATTERN[+PATTERN],NAME=...
      prune: How masks are made.
      dtype: Of the computation; auto is bfloat16 on accelerators, float32 on a CPU. Weights and
        statistics are float32 in any case.
      driver: Of the training loop; auto takes the fastest by measurement.
      save_levels: Also keep the trained weights of every level, in levels/.
      no_tickets: Keep no tickets of the levels.
    """

    preset: Preset = aside("default")
    method: Method = "supervised"
    dataset: str = "cifar10+balanced=5000"
    data_dir: Path | None = aside(None)
    augment: Literal["default", "none", "flip_crop"] = "default"
    normalize: Literal["default", "train", "imagenet", "study", "range"] = "default"
    model: str = "resnet18"
    width: float = 0.25
    stem: Stem = "cifar"
    epochs: int = 30
    batch_size: int = 256
    learning_rate: float | None = None
    weight_decay: float = 1e-4
    temperature: float | None = None
    reduction: Reduction = "mean_log"
    queue_size: int | None = None
    key_momentum: float = 0.999
    num_outputs: int = 128
    strength: float = 1.0
    min_scale: float | None = None
    flip: float = 0.5
    blur: float | None = None
    seed: int = 0
    save_every: int = aside(1)
    levels: int = aside(0)
    init_from: Path | None = aside(None)
    level_epochs: int = aside(10)
    level_learning_rate: float | None = aside(None)
    seeds: int = aside(1)
    blocks: str = aside("stage")
    prune: tyro.conf.OmitArgPrefixes[PruneConfig] = aside(PruneConfig())
    ci_level: float = aside(0.95)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    driver: Driver | Literal["auto"] = "auto"
    save_levels: Flag = aside(False)
    no_tickets: Flag = aside(False)

    def __post_init__(self):
        super().__post_init__()
        require_choice("method", self.method, Method)
        for name in ("epochs", "save_every", "level_epochs"):
            value = getattr(self, name)
            require(value >= 1, name, "must be at least 1", value)
        require(0 <= self.seed < 2**31, "seed", "must lie in [0, 2^31)", self.seed)
        require(self.levels >= 0, "levels", "must not be negative", self.levels)
        is_used = self.init_from is None or self.levels > 0
        require(is_used, "init_from", "needs --levels, since it is pruned, not trained", "no level")
        require(self.strength >= 0, "strength", "must not be negative", self.strength)
        self._check_streaming()
        self.train_config(epoch_steps=1)
        self.level_config(epoch_steps=1)  # checks what both configs hold
        if self.method != "supervised":
            rule = "must be at least 2 to tell images apart"
            require(self.batch_size >= 2, "batch_size", rule, self.batch_size)
            rule = "must be at least 2 dimensions"
            require(self.num_outputs >= 2, "num_outputs", rule, self.num_outputs)
            _ = self.views, self.contrastive_config(num_images=MAX_QUEUE)

    def _check_streaming(self) -> None:
        if not self.is_streamed:
            return
        allowed = {
            "driver": ("auto", "dispatch"),
            "augment": ("default",),  # pictures are cut at random while they are read
            "normalize": ("default", "imagenet", "range"),
        }
        for name, values in allowed.items():
            rule = f"must be {' or '.join(values)} for a streamed set"
            require(getattr(self, name) in values, name, rule, getattr(self, name))

    def train_config(self, *, epoch_steps: int) -> TrainConfig:
        """F of the pre-training."""
        num_steps, rate = self.epochs * epoch_steps, self.learning_rate
        return TrainConfig(
            num_steps=num_steps,
            rewind_step=0,
            batch_size=self.batch_size,
            learning_rate=RATES[self.method] if rate is None else rate,
            weight_decay=self.weight_decay,
            schedule="step" if self.method == "supervised" else "cosine",
            warmup_steps=min(epoch_steps, num_steps // 20),
        )

    def level_train_config(self, *, epoch_steps: int) -> TrainConfig:
        """F of the levels: short and at a constant rate, from the pre-trained weights."""
        rate = self.level_learning_rate
        return TrainConfig(
            num_steps=self.level_epochs * epoch_steps,
            rewind_step=0,
            batch_size=self.batch_size,
            learning_rate=LEVEL_RATES[self.method] if rate is None else rate,
            weight_decay=self.weight_decay,
            schedule="constant",
        )

    def level_config(self, *, epoch_steps: int) -> TrunkConfig:
        """What the run of the levels reads of the settings."""
        # What the network sees of the images is decided here; the levels lie below our folder.
        own = {"augment": "default", "normalize": "train", "out": None, "fresh": False}
        train = self.level_train_config(epoch_steps=epoch_steps)
        return narrowed(
            self,
            TrunkConfig,
            first_seed=self.seed,
            levels=max(self.levels, 1),
            train=train,
            **own,
        )

    def contrastive_config(self, *, num_images: int) -> ContrastiveConfig:
        """Loss, queue and key encoder."""
        temperature, queue = self.temperature, self.queue_size
        if queue is None:
            queue = max(1, min(MAX_QUEUE, num_images) // self.batch_size) * self.batch_size
        config = ContrastiveConfig(
            temperature=TEMPERATURES[self.method] if temperature is None else temperature,
            reduction=self.reduction,
            queue_size=queue,
            key_momentum=self.key_momentum,
        )
        if self.method == "moco":
            config.check_queue(self.batch_size)
        return config

    @property
    def is_streamed(self) -> bool:
        """Whether pictures are read from disk while they are trained on."""
        return self.dataset.startswith(PREFIX)

    @property
    def scales_to_range(self) -> bool:
        """Whether pixels are only divided by the largest one."""
        is_default = self.normalize == "default" and self.method == "simclr"
        return is_default or self.normalize == "range"

    @property
    def statistics(self) -> str:
        """Channel statistics that the data are loaded with."""
        return "train" if self.normalize in ("default", "range") else self.normalize

    @property
    def views(self) -> ViewConfig:
        """What happens to an image before the network sees it."""
        make = simclr_views if self.method == "simclr" else moco_views
        changes: dict[str, Any] = {"flip": self.flip}
        if self.min_scale is not None:
            changes["scale"] = (self.min_scale, 1.0)
        if self.blur is not None:
            changes["blur"] = self.blur
        return make(self.strength, **changes)


PRESETS: dict[str, Config] = {
    "smoke": Config(
        preset="smoke",
        dataset="digits",
        model="resnet18",
        width=0.125,
        epochs=3,
        batch_size=64,
        key_momentum=0.97,
        strength=0.5,
        min_scale=0.6,
        flip=0.0,
        level_epochs=1,
    ),
    "default": Config(),
    # Chen et al., arXiv:2012.06908, whose pre-trained weights were published ones: --init-from.
    "paper": Config(
        preset="paper",
        dataset="folder:imagenet",
        model="resnet50",
        width=1.0,
        stem="imagenet",
        epochs=100,
        levels=18,
    ),
}
