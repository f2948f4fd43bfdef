"""Settings of `experiments.imp_flow`: every flag with its default, and the presets."""

from pathlib import Path
from typing import Literal

import tyro

from experiments.shell.settings import Flag, RunSettings, aside, settings
from imp_rg.config import PruneConfig, TrainConfig, require
from imp_rg.imp.drivers import Driver
from imp_rg.imp.replicates import Strategy
from imp_rg.imp.saliency import SCORES
from imp_rg.models.resnet_cifar import GammaInit, Shortcut

Preset = Literal["smoke", "default", "paper"]


@settings
class Config(RunSettings):
    """Measures the IMP flow of a network on real data.

    Attributes:
      preset: Defaults to start from: a minute's try, the coffee break, or the paper's recipe.
      dataset: digits, npz:PATH (x_train, y_train, x_test, y_test), or a TensorFlow Datasets name.
      data_dir: Where prepared TensorFlow Datasets lie.
      augment: Augmentation; by default flips and crops for CIFAR, none otherwise.
      normalize: Channel statistics, measured on the training images or those of ImageNet.
      model: resnet14/20/32/44/56, or lenet with hidden widths such as lenet300-100.
      width: Multiplies the channels or units of all layers.
      shortcut: Where a residual block changes shape: 1x1 convolution or zero padding.
      head: Whether the kernel of the classifier can be pruned, as in LeNet and open_lth's ResNets,
        or stays dense, as transfer to other classes needs.
      gamma_init: Initial batch-norm scales: one, or uniform on (0, 1).
      blocks: block, stage, layer, or own patterns as NAME=PATTERN[+PATTERN],NAME=...
      first_seed: Seed of the first replicate; the others count up.
      prune: How masks are made.
      score: What ranks the weights.
      train: How weights are trained and rewound.
      null: Further null models that train: shuffled.
      driver: Of the training loop; auto takes the fastest by measurement.
      replicates: How seeds run side by side; auto takes the fastest by measurement.
      save_levels: Also keep the trained weights of every level, in levels/.
      no_tickets: Keep no tickets: rewind weights and masks of every level, 5 bytes a weight.
    """

    preset: Preset = aside("default")
    dataset: str = "digits"
    data_dir: Path | None = None
    augment: Literal["default", "none", "flip_crop"] = "default"
    normalize: Literal["train", "imagenet"] = "train"
    model: str = "resnet14"
    width: float = 1.0
    shortcut: Shortcut = "projection"
    head: Literal["pruned", "dense"] = "pruned"
    gamma_init: GammaInit = "one"
    blocks: str = "block"
    first_seed: int = 0
    prune: tyro.conf.OmitArgPrefixes[PruneConfig] = PruneConfig()
    score: Literal["magnitude", "random"] = "magnitude"
    train: tyro.conf.OmitArgPrefixes[TrainConfig] = TrainConfig()
    null: tuple[Literal["shuffled"], ...] = ()
    driver: Driver | Literal["auto"] = "auto"
    replicates: Strategy | Literal["auto"] = "auto"
    save_levels: Flag = aside(False)
    no_tickets: Flag = aside(False)

    def __post_init__(self):
        super().__post_init__()
        fits = 0 <= self.first_seed < 2**31 - self.seeds
        require(fits, "first_seed", "must lie in [0, 2^31)", self.first_seed)
        require(self.levels >= 1, "levels", "must be at least 1", self.levels)
        require(self.score in SCORES, "score", f"must be one of {', '.join(SCORES)}", self.score)
        is_pair = (self.driver, self.replicates)
        require(is_pair != ("dispatch", "vmap"), "replicates", "vmap needs --driver scan", "vmap")

    @property
    def seed_list(self) -> list[int]:
        """The seeds themselves."""
        return list(range(self.first_seed, self.first_seed + self.seeds))


PRESETS: dict[str, Config] = {
    "smoke": Config(
        preset="smoke",
        model="lenet300-100",
        seeds=2,
        levels=5,
        train=TrainConfig(num_steps=60, rewind_step=3),
    ),
    "default": Config(),
    # open_lth's recipe, which the paper's Tables 4 to 6 come from (Chen et al. 2021, App. A).
    "paper": Config(
        preset="paper",
        dataset="cifar10",
        augment="flip_crop",
        normalize="imagenet",
        model="resnet20",
        gamma_init="uniform",
        levels=15,
        prune=PruneConfig(count_rule="ceil+1"),
        train=TrainConfig(num_steps=160 * 391, rewind_step=1000, batch_size=128, last_batch="keep"),
    ),
}
