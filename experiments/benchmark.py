"""How fast is a training step, by way of running it, and how fast are pruning and the flow?

Measures on this machine, in alternating repetitions, so that a drift of the machine meets all:

* steps: milliseconds per seed and step of F, by driver, replicate strategy and number of seeds,
  beside the same step in PyTorch where it is installed (``pip install torch==2.13.0``, optional);
* vision: images a second of ResNet-20 and ResNet-50 at 32x32, by execution and number of
  replicates, beside PyTorch's by layout, type and compilation; shares of the measured roofs, memory
  and compile time, and the roofline on paper;
* language: milliseconds per step of a BERT encoder, tokens a second, the share of what the
  machine's matrix products allow, beside the same encoder in PyTorch;
* pruning: exact global pruning (M), by route and number of weights;
* reduction: M_i and P_i of 85 million weights.

    python -m experiments.benchmark                  # writes runs/benchmark/benchmark.{json,md}
    python -m experiments.benchmark --only pruning reduction --repeats 9
    python -m experiments.benchmark --only vision --out DIR   # GPU: within 8 minutes
    python -m experiments.benchmark --preset smoke   # tiny sizes: does it run?

Results are written after every network, so that one that is stopped leaves the others.

PyTorch runs one process a seed; the fastest of its variants (on a CPU layouts, and one seed on all
cores or one on each) is compared with the library's own choice of execution. Images are random;
nothing is learned.

Obtained on 2 CPU cores (a virtual Xeon), jax 0.10.2, torch 2.13.0, `--repeats 5 --seeds 1 2`, in 3
minutes (all rows: `experiments/results/benchmark`):

* ResNet-14, 8x8, batch 64, 2 seeds: 14.1 ms a seed and step, 2.07 (1.80 to 2.08) times PyTorch's;
* ResNet-20, 32x32, batch 128, 2 seeds: 424 ms, 2.14 (2.12 to 2.17) times PyTorch's;
* 85M weights pruned exactly in 0.30 s, their M_i and P_i reduced in 0.02 s.

and `--only vision language pruning reduction --repeats 3` in 4 minutes
(`experiments/results/benchmark-networks`), in times of PyTorch's best:

* ResNet-20, batch 128: 283 images/s, 8 replicates 288; 2.1 (2.0 to 2.2); 26 % of the compute roof;
* ResNet-50 with the CIFAR stem, batch 8: 10.1 images/s; 1.7 (1.6 to 1.7); 31 % of it;
* MiniLM, 32x64 tokens: 1,571 tokens/s; 1.44 (1.38 to 1.48); 39 % of it;
* pruning 85M weights is 0.006 % of a level of BERT-base, their flow 0.0004 %.

Not measured yet on a GPU. On paper (`prediction.csv`) memory binds both ResNets on a H200: at most
1.4 million images/s for ResNet-20 at batch 128, and 83,000 for ResNet-50 at batch 256.

At 32x32 about half of the CPU time is convolutions, where XLA contracts by Eigen and PyTorch by
oneDNN in blocked layouts; the rest is passes over activations (batch norm, ReLU, pads, transposes).
"""

import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from rich.console import Console

from experiments.shell import cli
from experiments.studies.benchmark.cases import (
    LEAF_SHAPES,
    Shapes,
    StepSetup,
    flow_cases,
    prune_cases,
    step_cases,
)
from experiments.studies.benchmark.language import EncoderSetup, encoder_cases, language_words
from experiments.studies.benchmark.pytorch import is_available
from experiments.studies.benchmark.report import (
    Results,
    aims,
    describe_machine,
    print_results,
    write_results,
)
from experiments.studies.benchmark.roofline import TINY_PROBE
from experiments.studies.benchmark.rows import Case, Ratio, Row, measure
from experiments.studies.benchmark.vision import VisionSetup, networks, vision_cases
from experiments.studies.benchmark.vision_tables import vision_tables, vision_words
from imp_rg.config import require
from imp_rg.models.bert_config import BertConfig

Part = Literal["steps", "vision", "language", "pruning", "reduction"]
Preset = Literal["smoke", "default"]

Group = Callable[[], AbstractContextManager[list[Case]]]
"""Sets up what is measured in turn, and forgets it."""

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


@dataclasses.dataclass(frozen=True, kw_only=True)
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


def run(config: Config) -> Path:
    """Measures and reports; returns the folder of the results."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    machine = describe_machine()
    console.print(" · ".join(f"{key} {value}" for key, value in machine.items()), highlight=False)
    rows: list[Row] = []
    ratios: list[Ratio] = []
    results = Results(machine=machine, rows=rows, ratios=ratios, words=[], tables={})

    def say(line: str) -> None:
        console.print(line, highlight=False)

    for name, prepare in _groups(config, say).items():
        say(f"{name}: compiling and measuring")
        with prepare() as cases:
            new_rows, new_ratios = measure(cases, repeats=config.repeats, say=say)
        rows += new_rows
        ratios += new_ratios
        words = aims(rows, ratios) + vision_words(rows, ratios, config.networks)
        words += language_words(rows, config.encoders, BertConfig())
        tables = vision_tables(rows, config.networks)
        results = dataclasses.replace(results, words=words, tables=tables)
        write_results(config.out, results)
    print_results(results, console)
    say(f"written to {config.out}: benchmark.json, benchmark.md and tables as CSV")
    return config.out


def _groups(config: Config, say: Callable[[str], None]) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    if {"steps", "vision", "language"} & set(config.only) and not is_available():
        say("PyTorch is not installed: no comparison with it")
    if "steps" in config.only:
        for setup in config.setups:
            groups[setup.name] = functools.partial(step_cases, setup, config.seeds)
    if "vision" in config.only:
        for network in config.networks:
            groups[network.name] = functools.partial(vision_cases, network, say)
    if "language" in config.only:
        for encoder in config.encoders:
            groups[encoder.name] = functools.partial(encoder_cases, encoder)
    largest = list(config.shapes)[-1]
    if "pruning" in config.only:
        for name, shapes in config.shapes.items():
            both = config.thorough or config.preset == "smoke" or name != largest
            groups[f"pruning, {name}"] = functools.partial(
                prune_cases, name, shapes, both_routes=both
            )
    if "reduction" in config.only:
        groups[f"reduction, {largest}"] = functools.partial(
            flow_cases, largest, config.shapes[largest]
        )
    return groups


if __name__ == "__main__":
    # PyTorch lives beside JAX, which would take most of a GPU's memory for itself.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    cli.main(
        run,
        PRESETS,
        prog="python -m experiments.benchmark",
        when_stopped="finished networks are written",
    )
