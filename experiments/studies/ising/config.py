"""Settings of `experiments.ising`: every flag with its default, and the presets."""

from pathlib import Path
from typing import Literal

from experiments.shell.settings import FolderSettings, aside, settings
from imp_rg.config import require, require_choice

Preset = Literal["smoke", "default"]


@settings
class Config(FolderSettings):
    """Measures the exponents of the two-dimensional Ising model.

    Attributes:
      preset: Real lengths, or tiny ones to see whether it runs.
      size: Spins along each side; 16 times a power of two.
      bins: Bins for the exponents, on each of two replicas of 16 chains; the other measurements
        take a quarter.
      samples: Observations in a bin, two cluster sweeps apart.
      temperatures: Below, at and above the critical temperature, relative to it.
      picture_size: Spins along each side of the lattices that are drawn.
      seed: Of all random numbers.
      run: Run folder of an IMP flow for the right column of the paper's Fig. 1.
    """

    preset: Preset = aside("default")
    size: int = 64
    bins: int = 32
    samples: int = 200
    temperatures: tuple[float, float, float] = (0.95, 1.0, 1.05)
    picture_size: int = 256
    seed: int = 0
    run: Path | None = aside(None)

    def __post_init__(self):
        require_choice("preset", self.preset, Preset)
        for name in ("size", "picture_size"):
            size = getattr(self, name)
            is_valid = size >= 16 and size.bit_count() == 1
            require(is_valid, name, "must be 16 times a power of two", size)
        require(self.bins >= 2, "bins", "must be at least 2", self.bins)
        require(self.samples >= 10, "samples", "must be at least 10", self.samples)
        below, _, above = self.temperatures
        is_valid = sorted(self.temperatures) == [*self.temperatures] and 0 < below <= 0.99
        rule = "must rise from at most 0.99 to at least 1.01"
        require(is_valid and above >= 1.01, "temperatures", rule, self.temperatures)


PRESETS = {
    "smoke": Config(preset="smoke", size=16, bins=4, samples=20, picture_size=32),
    "default": Config(),
}
