"""Settings of `experiments.rg_axioms`: every flag with its default, and the presets."""

from pathlib import Path

import tyro

from experiments.shell.settings import RunSettings, aside, narrowed, settings
from experiments.trunk.config import Config as RunConfig
from experiments.trunk.config import Preset
from imp_rg.config import PruneConfig, TrainConfig, require


@settings
class Config(RunSettings):
    """Checks the paper's claim that IMP is an RG scheme.

    Attributes:
      preset: Defaults to start from: a minute's try, or minutes.
      dataset: As of experiments.imp_flow.
      model: Network.
      width: Multiplies its channels or units.
      blocks: Partition.
      levels: Last level at the largest step; smaller steps take as many more.
      prune_fraction: The largest step x.
      divisions: Into how many equal steps each of those is divided, run by run.
      repeats: How often T is applied to one state.
      train: How weights are trained and rewound.
    """

    preset: Preset = aside("default")
    dataset: str = "digits"
    model: str = "lenet300-100"
    width: float = 1.0
    blocks: str = "block"
    seeds: int = 5
    levels: int = 8
    prune_fraction: float = 0.36
    divisions: tuple[int, ...] = (1, 2, 4)
    repeats: int = 3
    train: tyro.conf.OmitArgPrefixes[TrainConfig] = TrainConfig()

    def __post_init__(self):
        super().__post_init__()
        divisions = self.divisions
        is_good = len(set(divisions)) == len(divisions) >= 2 and min(divisions) >= 1
        require(is_good, "divisions", "must be at least 2 different positive numbers", divisions)
        require(self.repeats >= 2, "repeats", "must be at least 2", self.repeats)
        require(self.levels >= 1, "levels", "must be at least 1", self.levels)
        PruneConfig(prune_fraction=self.prune_fraction)

    def fraction(self, division: int) -> float:
        """Step x whose `division`-fold application keeps what one of the largest keeps."""
        return round(1 - (1 - self.prune_fraction) ** (1 / division), 12)

    def run_config(self, division: int, folder: Path) -> RunConfig:
        """The run with that step."""
        x = self.fraction(division)
        return narrowed(
            self,
            RunConfig,
            levels=self.levels * division,
            prune=PruneConfig(prune_fraction=x),
            out=folder / f"x{x:.4f}",
        )

    def runs(self, folder: Path) -> dict[float, RunConfig]:
        """The runs by their step x, in the order of `divisions`."""
        return {self.fraction(n): self.run_config(n, folder) for n in self.divisions}


PRESETS = {
    "smoke": Config(
        preset="smoke",
        model="lenet32-16",
        seeds=2,
        levels=3,
        divisions=(1, 2),
        repeats=2,
        train=TrainConfig(num_steps=40, rewind_step=3),
    ),
    "default": Config(),
}
