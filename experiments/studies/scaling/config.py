"""Settings of `experiments.scaling`: every flag with its default, and the presets."""

from itertools import product
from pathlib import Path
from typing import Literal

import tyro

from experiments.shell.settings import RunSettings, aside, narrowed, settings
from experiments.trunk.config import Config as RunConfig
from experiments.trunk.config import Preset
from imp_rg.config import TrainConfig, require

UNITS = 32
"""Units of each hidden layer of a LeNet at width 1."""


@settings
class Config(RunSettings):
    """Fits one error law to pruned networks of several widths and depths.

    Attributes:
      preset: Defaults to start from: a minute's try, or hours.
      check: Instead: collapse a model whose critical point and exponents are known.
      dataset: As of experiments.imp_flow.
      family: ResNets of these depths, or LeNets with as many layers.
      widths: Multiples of the channels or units.
      depths: ResNet: 14, 20, 32, 44 or 56; LeNet: 2 layers or more.
      train: How weights are trained and rewound.
    """

    preset: Preset = aside("default")
    check: Literal["none", "percolation", "ising"] = aside("none")
    dataset: str = "digits"
    family: Literal["resnet", "lenet"] = "resnet"
    widths: tuple[float, ...] = (0.5, 1.0, 2.0)
    depths: tuple[int, ...] = (14, 20, 32)
    levels: int = 26
    train: tyro.conf.OmitArgPrefixes[TrainConfig] = TrainConfig()

    def __post_init__(self):
        super().__post_init__()
        for name, sizes in (("widths", self.widths), ("depths", self.depths)):
            is_good = len(set(sizes)) == len(sizes) > 0 and min(sizes) > 0
            require(is_good, name, "must be different positive numbers", sizes)
        several = len(self.widths) * len(self.depths) > 1
        require(several, "depths", "must give at least 2 networks with widths", self.depths)
        is_deep = self.family == "resnet" or min(self.depths) >= 2
        require(is_deep, "depths", "of a LeNet must be at least 2", self.depths)

    def runs(self, folder: Path) -> dict[tuple[float, int], RunConfig]:
        """The run of every network, by width and depth; their intervals keep the default level."""
        return {
            (width, depth): narrowed(
                self,
                RunConfig,
                model=self._model(depth),
                width=width,
                ci_level=RunConfig.ci_level,
                out=folder / f"{self.family}-depth{depth}-width{width:g}",
            )
            for width, depth in product(self.widths, self.depths)
        }

    def _model(self, depth: int) -> str:
        hidden = "-".join([str(UNITS)] * (depth - 1))
        return f"resnet{depth}" if self.family == "resnet" else f"lenet{hidden}"


PRESETS = {
    "smoke": Config(
        preset="smoke",
        family="lenet",
        widths=(0.5, 1.0),
        depths=(2, 3),
        seeds=2,
        levels=18,
        train=TrainConfig(num_steps=60, rewind_step=3),
    ),
    "default": Config(),
}
