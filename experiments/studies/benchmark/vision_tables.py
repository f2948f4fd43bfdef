"""What the rows of the vision networks come to: throughput, roofs, predictions and aims.

In: rows and ratios of `experiments.studies.benchmark.vision`. Out: records for tables, sentences.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.studies.benchmark import roofline
from experiments.studies.benchmark.roofline import H200, MATMUL, TRIAD, Ceilings
from experiments.studies.benchmark.rows import Ratio, Row
from experiments.studies.benchmark.vision import (
    PART,
    RESNET_20,
    RESNET_50,
    VisionSetup,
    setup_layers,
    step_program,
)
from imp_rg.types import is_accelerator

LEAST_ROOF_SHARE, LEAST_SPEEDUP, LEAST_REPLICATE_SPEEDUP = 0.6, 1.3, 3.0
"""Aims on one H200-class GPU: ResNet-50 meets one of the first two, 8 ResNet-20 the third."""


class Throughput(NamedTuple):
    """How fast one execution trains.

    Attributes:
      network: Name, image size and batch.
      how: Library and execution.
      replicates: That train at once.
      images_per_second: Of all replicates together.
      images_low: Of the slowest repetition.
      images_high: Of the fastest.
      step_ms: Milliseconds a replicate and step.
      level_seconds: Of one level of one replicate by the published recipe.
      roof_share: Time of the roof of the compiled step over the time taken; ours only.
      floor_share: The same for the fewest bytes that the network can move.
      memory_gb: Peak.
      compile_seconds: Of the first of several cases that share a program.
    """

    network: str
    how: str
    replicates: int
    images_per_second: float
    images_low: float
    images_high: float
    step_ms: float
    level_seconds: float
    roof_share: float | None
    floor_share: float
    memory_gb: float
    compile_seconds: float | None


class RoofRecord(NamedTuple):
    """What a roof is made of, one step of one replicate.

    Attributes:
      network: Name, image size and batch.
      device: Whose ceilings.
      tflops_peak: TFLOP/s of a large matrix product.
      bandwidth_gb: GB/s.
      gflop: Operations of convolutions and head.
      gflop_by_xla: All operations of the compiled step, by XLA's count.
      moved_gb: That the compiled step moves.
      moved_gb_by_xla: By XLA's count.
      floor_gb: The fewest that can be moved.
      compute_ms: `gflop` at the peak.
      memory_ms: `moved_gb` at the full bandwidth.
      floor_ms: `floor_gb` at the full bandwidth.
      binding: Which of compute and memory is longer.
      program_gb: Memory that the compiled step needs.
    """

    network: str
    device: str
    tflops_peak: float
    bandwidth_gb: float
    gflop: float
    gflop_by_xla: float
    moved_gb: float
    moved_gb_by_xla: float
    floor_gb: float
    compute_ms: float
    memory_ms: float
    floor_ms: float
    binding: str
    program_gb: float


class Prediction(NamedTuple):
    """The roofline on paper: nothing of it is measured but what `device` says.

    Attributes:
      network: Name, image size and batch.
      device: Whose ceilings.
      compute_ms: All operations at the peak.
      memory_ms: The fewest bytes at the full bandwidth.
      binding: Which of the two is longer.
      images_per_second_at_most: By the longer one.
    """

    network: str
    device: str
    compute_ms: float
    memory_ms: float
    binding: str
    images_per_second_at_most: float


def vision_tables(rows: Sequence[Row], setups: Sequence[VisionSetup]) -> dict[str, list[Any]]:
    """Tables, lists of the records above, by name; none if no network was measured.

    References:
      House definition.
    """
    measured = {row.name for row in rows if row.part == PART}
    setups = [setup for setup in setups if setup.name in measured]
    if not setups:
        return {}
    return {
        "throughput": [row for setup in setups for row in throughput(rows, setup)],
        "roofline": [roof_record(rows, setup) for setup in setups],
        "prediction": [
            *(predict(setup, H200) for setup in (RESNET_20, RESNET_50)),
            *(predict(setup, _ceilings(rows, setup)) for setup in setups),
        ],
    }


def _ceilings(rows: Sequence[Row], setup: VisionSetup) -> Ceilings:
    return roofline.measured_ceilings(rows, setup.name, setup.probe or roofline.device_probe())


def throughput(rows: Sequence[Row], setup: VisionSetup) -> list[Throughput]:
    """One record a row of a network. House definition."""
    program = roof_record(rows, setup)
    roof_ms = max(program.compute_ms, program.memory_ms)
    floor_ms = max(program.compute_ms, program.floor_ms)
    images = 1e3 * setup.batch_size
    return [
        Throughput(
            network=row.name,
            how=row.how,
            replicates=row.num_seeds,
            images_per_second=images / row.median,
            images_low=images / row.maximum,
            images_high=images / row.minimum,
            step_ms=row.median,
            level_seconds=setup.level_steps * row.median / 1e3,
            roof_share=roof_ms / row.median if row.how.startswith("jax") else None,
            floor_share=floor_ms / row.median,
            memory_gb=row.memory_gb,
            compile_seconds=row.compile_seconds,
        )
        for row in rows
        if row.name == setup.name and row.how not in (MATMUL, TRIAD)
    ]


def roof_record(rows: Sequence[Row], setup: VisionSetup) -> RoofRecord:
    """What the roof of a network on the measured device is made of. House definition."""
    ceilings, program, layers = _ceilings(rows, setup), step_program(setup), setup_layers(setup)
    flops = roofline.step_flops(layers, setup.batch_size)
    floor = roofline.floor_bytes(layers, setup.batch_size, ceilings.bytes_per_element)
    roof = roofline.roof(flops, program.bytes_moved, ceilings)
    return RoofRecord(
        network=setup.name,
        device=ceilings.device,
        tflops_peak=ceilings.flops / 1e12,
        bandwidth_gb=ceilings.bandwidth / 1e9,
        gflop=flops / 1e9,
        gflop_by_xla=program.flops / 1e9,
        moved_gb=program.bytes_moved / 1e9,
        moved_gb_by_xla=program.bytes_by_xla / 1e9,
        floor_gb=floor / 1e9,
        compute_ms=roof.compute_ms,
        memory_ms=roof.memory_ms,
        floor_ms=1e3 * floor / ceilings.bandwidth,
        binding=roof.binding,
        program_gb=program.memory_gb,
    )


def predict(setup: VisionSetup, ceilings: Ceilings) -> Prediction:
    """Upper bound of the throughput of a network on a device. House definition."""
    layers, num = setup_layers(setup), setup.batch_size
    floor = roofline.floor_bytes(layers, num, ceilings.bytes_per_element)
    roof = roofline.roof(roofline.step_flops(layers, num), floor, ceilings)
    return Prediction(
        network=setup.name,
        device=ceilings.device,
        compute_ms=roof.compute_ms,
        memory_ms=roof.memory_ms,
        binding=roof.binding,
        images_per_second_at_most=1e3 * num / roof.ms,
    )


def vision_words(
    rows: Sequence[Row], ratios: Sequence[Ratio], setups: Sequence[VisionSetup]
) -> list[str]:
    """Says of ResNet-50, and of 8 replicates of ResNet-20, whether their aims were met.

    Judged is the fastest of the library's executions against the fastest of PyTorch's.

    References:
      House definition.
    """
    measured = {row.name for row in rows if row.part == PART}
    words = []
    for setup in setups:
        if setup.name in measured and setup.model == "resnet50":
            words.append(_words_of_resnet50(rows, ratios, setup))
        elif setup.name in measured and 8 in setup.replicates:
            words.append(_words_of_replicates(ratios, setup.name))
    return words


def _words_of_resnet50(rows, ratios, setup: VisionSetup) -> str:
    record = roof_record(rows, setup)
    ours = [row for row in throughput(rows, setup) if row.roof_share is not None]
    best = max(ours, key=lambda row: row.images_per_second)
    speedup = _speedup(ratios, setup.name, best.replicates)
    is_met = (best.roof_share or 0) >= LEAST_ROOF_SHARE or (speedup or 0) >= LEAST_SPEEDUP
    aim = f"{100 * LEAST_ROOF_SHARE:.0f} % or {LEAST_SPEEDUP} times"
    return (
        f"{setup.name}, {best.how}: {100 * (best.roof_share or 0):.0f} % of the {record.binding} "
        f"roof of its program, {100 * best.floor_share:.0f} % of the floor's, "
        f"{_times(speedup)} PyTorch's best; {_verdict(aim, is_met)}"
    )


def _words_of_replicates(ratios: Sequence[Ratio], name: str) -> str:
    speedup = _speedup(ratios, name, 8)
    is_met = (speedup or 0) >= LEAST_REPLICATE_SPEEDUP
    return (
        f"{name}, 8 replicates: {_times(speedup)} the total throughput of 8 sequential PyTorch "
        f"runs; {_verdict(f'{LEAST_REPLICATE_SPEEDUP} times', is_met)}"
    )


def _speedup(ratios: Sequence[Ratio], name: str, num_seeds: int) -> float | None:
    each = [r.median for r in ratios if (r.name, r.num_seeds) == (name, num_seeds)]
    return 1 / min(each) if each else None


def _times(speedup: float | None) -> str:
    return "unknown times" if speedup is None else f"{speedup:.2f} times"


def _verdict(aim: str, is_met: bool) -> str:
    verdict = ("met" if is_met else "missed") if is_accelerator() else "no accelerator"
    return f"aim on one H200-class GPU at least {aim}: {verdict}"
