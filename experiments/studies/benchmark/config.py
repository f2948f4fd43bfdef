"""Settings of `experiments.benchmark`: what is measured, in real sizes and in tiny ones."""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments.shell.settings import settings
from experiments.studies.benchmark.cases import LEAF_SHAPES, Shapes, StepSetup
from experiments.studies.benchmark.language import EncoderSetup
from experiments.studies.benchmark.roofline import TINY_PROBE
from experiments.studies.benchmark.vision import VisionSetup, networks
from imp_rg.config import require
from imp_rg.models.bert_config import BertConfig

Part = Literal["steps", "vision", "language", "pruning", "reduction"]
Preset = Literal["smoke", "default"]

RESNET_8 = StepSetup(
    model="resnet14", input_shape=(8, 8, 1), batch_size=64, policy="none", num_steps=20
)
RESNET_32 = StepSetup(
    model="resnet20", input_shape=(32, 32, 3), batch_size=128, policy="flip_crop", num_steps=3
)
LENET = StepSetup(
    model="lenet300-100", input_shape=(28, 28, 1), batch_size=64, policy="none", num_steps=100
)
TINY_RESNET = dataclasses.replace(RESNET_8, width=0.25, batch_size=8, num_steps=2)
TINY_LENET = dataclasses.replace(
    LENET, model="lenet8", input_shape=(4, 4, 1), batch_size=8, num_steps=2
)
MINILM_SIZES = BertConfig(width=384, num_layers=6, intermediate_width=1536)
MINILM = tuple(
    EncoderSetup(encoder="MiniLM-like", config=MINILM_SIZES, length=length) for length in (64, 128)
)
TINY_ENCODER = EncoderSetup(
    encoder="tiny encoder",
    config=BertConfig(num_words=30, width=8, num_layers=1, num_heads=2, intermediate_width=16),
    batch_size=4,
    length=6,
    probe=TINY_PROBE,
)
TINY_VISION = VisionSetup(
    model="resnet14",
    width=0.25,
    input_shape=(8, 8, 3),
    batch_size=8,
    policy="flip_crop",
    num_steps=1,
    level_steps=100,
    replicates=(1, 2),
    has_alternatives=False,
    probe=TINY_PROBE,
)


@settings
class Config:
    """Measures training steps, pruning and the flow on this machine.

    Attributes:
      preset: Real sizes, or tiny ones to see whether it runs.
      repeats: Alternating repetitions after one call that compiles.
      seeds: Numbers of seeds to measure.
      only: Parts to measure.
      thorough: Also prune the largest network by the route this backend does not use.
      out: Folder of benchmark.json, benchmark.md and CSVs; written anew.
    """

    preset: Preset = "default"
    repeats: int = 7
    seeds: tuple[int, ...] = (1, 2, 3)
    only: tuple[Part, ...] = ("steps", "vision", "language", "pruning", "reduction")
    thorough: bool = False
    out: Path = Path("runs/benchmark")

    def __post_init__(self):
        require(self.repeats >= 1, "repeats", "must be at least 1", self.repeats)
        is_valid = len(self.seeds) > 0 and min(self.seeds) >= 1
        require(is_valid, "seeds", "must be numbers of at least 1", self.seeds)
        require(len(self.only) > 0, "only", "must name a part", self.only)

    @property
    def setups(self) -> tuple[StepSetup, ...]:
        """Networks whose steps are measured."""
        is_smoke = self.preset == "smoke"
        return (TINY_RESNET, TINY_LENET) if is_smoke else (RESNET_8, RESNET_32, LENET)

    @property
    def encoders(self) -> tuple[EncoderSetup, ...]:
        """Encoders whose steps are measured, the longest inputs last."""
        return (TINY_ENCODER,) if self.preset == "smoke" else MINILM

    @property
    def networks(self) -> tuple[VisionSetup, ...]:
        """Vision networks whose steps are measured, of sizes fit for the device."""
        return (TINY_VISION,) if self.preset == "smoke" else networks()

    @property
    def shapes(self) -> dict[str, Shapes]:
        """Leaf shapes of the networks that are pruned, by name, the largest last."""
        return {"tiny": [(3, 3, 16, 16)] * 4} if self.preset == "smoke" else LEAF_SHAPES


PRESETS = {"smoke": Config(preset="smoke", repeats=1, seeds=(1, 2)), "default": Config()}
