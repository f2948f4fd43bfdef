"""What the rows of a benchmark come to: tables of records, and of every aim whether it was met.

In: rows and ratios. Out: records by the name of their table, and `Aim`s.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from experiments.studies.benchmark import language, roofline
from experiments.studies.benchmark.language import OURS, EncoderSetup
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
from imp_rg.data.text.batches import padding_waste
from imp_rg.imp.finetune import FinetuneConfig, bucket_widths, plan_level
from imp_rg.models.bert_config import BertConfig
from imp_rg.types import is_accelerator

Record = dict[str, Any]

CORES, GPU = "2 CPU cores", "one H200-class GPU"

MOST_RATIO = {"resnet14 8x8x1": 1.0, "resnet20 32x32x3": 2.0}
"""Aims on 2 CPU cores: time over PyTorch's, with 2 or more seeds."""

MOST_MS = {"pruning": 1500.0, "reduction": 300.0}
"""Aims on 2 CPU cores: milliseconds for the largest network."""

LARGEST = "BERT-base-like"

LEAST_ROOF_SHARE, LEAST_SPEEDUP, LEAST_REPLICATE_SPEEDUP = 0.6, 1.3, 3.0
"""Aims on one H200-class GPU: ResNet-50 meets one of the first two, 8 ResNet-20 the third."""

MOST_OF_A_LEVEL = 0.01
"""Aim: share of a level's time that pruning and the flow may take."""

TEXT_LENGTHS = {"RTE": (4.107, 0.523, 2490), "MRPC": (3.943, 0.258, 3668)}
"""Mean and deviation of the logarithm of the tokens of an input, and inputs, of two tasks."""

LEVEL_EPOCHS, LEVEL_LENGTH = 3, 128
"""What a level of BERT-base is taken to be: so many passes over RTE, padded to so many tokens."""


class Aim(NamedTuple):
    """A number beside what it should be.

    Attributes:
      what: Of what.
      value: Measured; NaN where it is not known.
      relation: At most or at least the limit.
      limit: What was aimed at.
      unit: Of both.
      device: For which the aim was set.
      verdict: Whether it was met.
    """

    what: str
    value: float
    relation: Literal["at most", "at least"]
    limit: float
    unit: str
    device: str
    verdict: Literal["met", "missed", "no accelerator"]

    def text(self) -> str:
        """All of it in one line."""
        return (
            f"{self.what}: {self.value:.3g} {self.unit}, aim {self.relation} {self.limit:g} on "
            f"{self.device}: {self.verdict}"
        )


def _at_most(what: str, value: float, limit: float, unit: str, device: str = CORES) -> Aim:
    verdict = "met" if value <= limit else "missed"
    return Aim(what, value, "at most", limit, unit, device, verdict)


def _at_least(what: str, value: float, limit: float, unit: str, *, is_met: bool) -> Aim:
    verdict = ("met" if is_met else "missed") if is_accelerator() else "no accelerator"
    return Aim(what, value, "at least", limit, unit, GPU, verdict)


def aims(
    rows: Sequence[Row],
    ratios: Sequence[Ratio],
    networks: Sequence[VisionSetup] = (),
    encoders: Sequence[EncoderSetup] = (),
) -> list[Aim]:
    """Judges every aim of which something was measured. House definition."""
    found = []
    for ratio in ratios:
        if ratio.name in MOST_RATIO and ratio.num_seeds > 1:
            what = f"{ratio.name}, {ratio.num_seeds} seeds, time over PyTorch's"
            found.append(_at_most(what, ratio.median, MOST_RATIO[ratio.name], "times"))
    fastest = _fastest(rows)
    for part, median in fastest.items():
        found.append(_at_most(f"{part} {LARGEST}", median, MOST_MS[part], "ms"))
    measured = {row.name for row in rows if row.part == PART}
    for setup in networks:
        if setup.name in measured and setup.model == "resnet50":
            found += _resnet50_aims(rows, ratios, setup)
        elif setup.name in measured and 8 in setup.replicates:
            speedup = _speedup(ratios, setup.name, 8)
            is_met = speedup >= LEAST_REPLICATE_SPEEDUP
            what = f"{setup.name}, 8 replicates, total throughput over 8 runs of PyTorch"
            found.append(_at_least(what, speedup, LEAST_REPLICATE_SPEEDUP, "times", is_met=is_met))
    level = level_seconds(rows, encoders)
    for part, median in fastest.items() if level else ():
        what = f"{part} of 85M weights in a level of BERT-base ({level / 60:.0f} minutes)"
        share = median / 1e3 / level
        found.append(_at_most(what, 100 * share, 100 * MOST_OF_A_LEVEL, "%", "any device"))
    return found


def _fastest(rows: Iterable[Row]) -> dict[str, float]:
    """Milliseconds of the fastest route of pruning and reducing the largest network."""
    found: dict[str, float] = {}
    for row in rows:
        if row.part in MOST_MS and row.name == LARGEST:
            found[row.part] = min(row.median, found.get(row.part, row.median))
    return found


def _resnet50_aims(
    rows: Sequence[Row], ratios: Sequence[Ratio], setup: VisionSetup
) -> Iterable[Aim]:
    """One of two is enough; judged is the fastest of ours against the fastest of PyTorch's."""
    binding = roof_record(rows, setup)["binding"]
    ours = [record for record in throughput(rows, setup) if record["roof_share"] is not None]
    best = max(ours, key=lambda record: record["images_per_second"])
    share, speedup = best["roof_share"], _speedup(ratios, setup.name, best["replicates"])
    is_met = share >= LEAST_ROOF_SHARE or speedup >= LEAST_SPEEDUP
    name = f"{setup.name}, {best['how']}, one of two:"
    yield _at_least(f"{name} share of the {binding} roof", share, LEAST_ROOF_SHARE, "",
                    is_met=is_met)  # fmt: skip
    yield _at_least(f"{name} over PyTorch's best", speedup, LEAST_SPEEDUP, "times", is_met=is_met)


def _speedup(ratios: Sequence[Ratio], name: str, num_seeds: int) -> float:
    each = [r.median for r in ratios if (r.name, r.num_seeds) == (name, num_seeds)]
    return 1 / min(each) if each else float("nan")


def tables(
    rows: Sequence[Row], networks: Sequence[VisionSetup], encoders: Sequence[EncoderSetup]
) -> dict[str, list[Record]]:
    """Further tables of a benchmark by name, those of which something was measured.

    References:
      House definition.
    """
    found: dict[str, list[Record]] = {}
    measured = {row.name for row in rows}
    networks = [setup for setup in networks if setup.name in measured]
    if networks:
        found["throughput"] = [row for setup in networks for row in throughput(rows, setup)]
        found["roofline"] = [roof_record(rows, setup) for setup in networks]
        found["prediction"] = [
            *(predict(setup, H200) for setup in (RESNET_20, RESNET_50)),
            *(predict(setup, _ceilings(rows, setup)) for setup in networks),
        ]
    encoders = [setup for setup in encoders if setup.name in measured]
    if encoders:
        found["encoders"] = [row for setup in encoders for row in encoder_records(rows, setup)]
        found["padding"] = padding_records()
    return found


def _ceilings(rows: Sequence[Row], setup: VisionSetup) -> Ceilings:
    return roofline.measured_ceilings(rows, setup.name, setup.probe or roofline.device_probe())


def throughput(rows: Sequence[Row], setup: VisionSetup) -> list[Record]:
    """How fast each execution of a network trains.

    Returns:
      One record a row: images_per_second of all replicates together, images_low and images_high
      (slowest and fastest repetition), step_ms (a replicate and step), level_seconds (one level of
      one replicate by the published recipe), roof_share (time of the roof of the compiled step over
      the time taken; ours only), floor_share (the same for the fewest bytes that the network can
      move), memory_gb (peak), compile_seconds (of the first of several that share a program).

    References:
      House definition.
    """
    program = roof_record(rows, setup)
    roof_ms = max(program["compute_ms"], program["memory_ms"])
    floor_ms = max(program["compute_ms"], program["floor_ms"])
    images = 1e3 * setup.batch_size
    return [
        {
            "network": row.name,
            "how": row.how,
            "replicates": row.num_seeds,
            "images_per_second": images / row.median,
            "images_low": images / row.maximum,
            "images_high": images / row.minimum,
            "step_ms": row.median,
            "level_seconds": setup.level_steps * row.median / 1e3,
            "roof_share": roof_ms / row.median if row.how.startswith("jax") else None,
            "floor_share": floor_ms / row.median,
            "memory_gb": row.memory_gb,
            "compile_seconds": row.compile_seconds,
        }
        for row in rows
        if row.name == setup.name and row.how not in (MATMUL, TRIAD)
    ]


def roof_record(rows: Sequence[Row], setup: VisionSetup) -> Record:
    """What the roof of a network on the measured device is made of, one step of one replicate.

    Returns:
      tflops_peak and bandwidth_gb (GB/s) of the device; gflop of convolutions and head,
      gflop_by_xla of everything; moved_gb by the compiled step, moved_gb_by_xla by XLA's count,
      floor_gb the fewest that can be moved; the times compute_ms, memory_ms, floor_ms of gflop,
      moved_gb, floor_gb; binding (compute or memory); program_gb that the compiled step needs.

    References:
      House definition.
    """
    ceilings, program, layers = _ceilings(rows, setup), step_program(setup), setup_layers(setup)
    flops = roofline.step_flops(layers, setup.batch_size)
    floor = roofline.floor_bytes(layers, setup.batch_size, ceilings.bytes_per_element)
    roof = roofline.roof(flops, program.bytes_moved, ceilings)
    return {
        "network": setup.name,
        "device": ceilings.device,
        "tflops_peak": ceilings.flops / 1e12,
        "bandwidth_gb": ceilings.bandwidth / 1e9,
        "gflop": flops / 1e9,
        "gflop_by_xla": program.flops / 1e9,
        "moved_gb": program.bytes_moved / 1e9,
        "moved_gb_by_xla": program.bytes_by_xla / 1e9,
        "floor_gb": floor / 1e9,
        "compute_ms": roof.compute_ms,
        "memory_ms": roof.memory_ms,
        "floor_ms": 1e3 * floor / ceilings.bandwidth,
        "binding": roof.binding,
        "program_gb": program.memory_gb,
    }


def predict(setup: VisionSetup, ceilings: Ceilings) -> Record:
    """Most that is possible by the roofline on paper; measured is at most the device.

    References:
      House definition.
    """
    layers, num = setup_layers(setup), setup.batch_size
    floor = roofline.floor_bytes(layers, num, ceilings.bytes_per_element)
    roof = roofline.roof(roofline.step_flops(layers, num), floor, ceilings)
    return {
        "network": setup.name,
        "device": ceilings.device,
        "compute_ms": roof.compute_ms,
        "memory_ms": roof.memory_ms,
        "binding": roof.binding,
        "images_per_second_at_most": 1e3 * num / roof.ms,
    }


def _encoder_rows(rows: Sequence[Row], setup: EncoderSetup) -> dict[str, float]:
    """Seconds of a step by how it ran, the probe's product among them."""
    return {row.how: row.median / 1e3 for row in rows if row.name == setup.name}


def encoder_records(rows: Sequence[Row], setup: EncoderSetup) -> list[Record]:
    """Tokens a second of each execution, and its share of what a large product reaches.

    References:
      House definition.
    """
    seconds = _encoder_rows(rows, setup)
    probe = setup.probe or roofline.device_probe()
    peak = roofline.matmul_flops(1e3 * seconds.pop(MATMUL), probe)
    flops = language.step_flops(setup.config, setup.batch_size, setup.length)
    return [
        {
            "encoder": setup.name,
            "how": how,
            "tokens_per_second": setup.num_tokens / time,
            "product_share": flops / time / peak,
            "gflops_of_product": peak / 1e9,
            "side_of_product": probe.side,
        }
        for how, time in seconds.items()
    ]


def padding_records() -> list[Record]:
    """Share of padding in batches of inputs as long as those of real tasks, by buckets."""
    records = []
    for task, (mean, deviation, num) in TEXT_LENGTHS.items():
        sample = np.random.default_rng(0).lognormal(mean, deviation, num)
        length = np.clip(np.round(sample), 3, LEVEL_LENGTH).astype(np.int32)
        for buckets in (1, FinetuneConfig().buckets):
            widths = bucket_widths(int(length.max()), buckets)
            plan = plan_level(jax.random.key(0), length, FinetuneConfig(), widths)
            waste = float(padding_waste(length, plan))
            records.append({"lengths_of": task, "buckets": buckets, "padding": waste})
    return records


def level_seconds(rows: Sequence[Row], encoders: Sequence[EncoderSetup]) -> float:
    """Time of a level of BERT-base at the FLOP/s of the last encoder; 0 if none was measured.

    References:
      House definition.
    """
    timed = [setup for setup in encoders if OURS in _encoder_rows(rows, setup)]
    if not timed:
        return 0.0
    setup = timed[-1]
    rate = language.step_flops(setup.config, setup.batch_size, setup.length)
    rate /= _encoder_rows(rows, setup)[OURS]
    config = FinetuneConfig(epochs=LEVEL_EPOCHS)
    flops = language.step_flops(BertConfig(), config.batch_size, LEVEL_LENGTH)
    return config.level_steps(TEXT_LENGTHS["RTE"][2]) * flops / rate
