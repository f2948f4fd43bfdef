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
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from experiments.shell import cli
from experiments.shell.study import Study
from experiments.studies.benchmark.cases import flow_cases, prune_cases, step_cases
from experiments.studies.benchmark.config import PRESETS, Config
from experiments.studies.benchmark.findings import aims, tables
from experiments.studies.benchmark.language import encoder_cases
from experiments.studies.benchmark.pytorch import is_available
from experiments.studies.benchmark.report import (
    Results,
    describe_machine,
    result_tables,
    write_results,
)
from experiments.studies.benchmark.rows import Case, Ratio, Row, measure
from experiments.studies.benchmark.vision import vision_cases

Group = Callable[[], AbstractContextManager[list[Case]]]
"""Sets up what is measured in turn, and forgets it."""


def run(config: Config) -> Path:
    """Measures and reports; returns the folder of the results."""
    study = Study("benchmark")
    rows: list[Row] = []
    ratios: list[Ratio] = []
    results = Results(machine=describe_machine(), rows=rows, ratios=ratios)
    study.say(" · ".join(f"{key} {value}" for key, value in results.machine.items()))
    for name, prepare in _groups(config, study.say).items():
        study.say(f"{name}: compiling and measuring")
        with prepare() as cases:
            new_rows, new_ratios = measure(cases, repeats=config.repeats, say=study.say)
        rows += new_rows
        ratios += new_ratios
        results = dataclasses.replace(
            results,
            aims=aims(rows, ratios, config.networks, config.encoders),
            tables=tables(rows, config.networks, config.encoders),
        )
        write_results(config.out, results)
    for title, table in result_tables(results).items():
        study.table(table, title)
    study.say(f"written to {config.out}: benchmark.json, benchmark.md and tables as CSV")
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
