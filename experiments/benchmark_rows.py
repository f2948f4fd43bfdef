"""Timing in turn, and what is written about it: rows, ratios, aims.

In: cases, functions that are called and timed. Out: `Row` and `Ratio` records, a terminal table,
benchmark.json and benchmark.md.
"""

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console
from rich.table import Table

from experiments.cli import EXIT_INTERRUPTED, interrupted
from imp_rg.imp.replicates import num_usable_cores
from imp_rg.io.files import write_bytes, write_json

AIMS = {
    ("resnet14 8x8x1", "ratio"): 1.0,
    ("resnet20 32x32x3", "ratio"): 2.0,
    ("pruning", "BERT-base-like"): 1500.0,
    ("reduction", "BERT-base-like"): 300.0,
}
"""On 2 CPU cores: time over PyTorch's with 2 or more seeds, and milliseconds for 85M weights."""


class Case(NamedTuple):
    """Something to time.

    Attributes:
      part: ``steps``, ``language``, ``pruning`` or ``reduction``.
      name: Network or size, the same for all cases that are compared.
      how: Library and execution.
      num_seeds: Seeds that run at once.
      divisor: What a call's time is divided by: seeds times steps, or 1.
      program: Cases of one name share what is compiled; None if nothing is.
      call: Runs to the end; may return the CPU seconds of other processes it used.
      role: ``ours`` and ``theirs`` are compared, the fastest of theirs.
    """

    part: str
    name: str
    how: str
    num_seeds: int
    divisor: int
    program: str | None
    call: Callable[[], float | None]
    role: str | None = None


class Row(NamedTuple):
    """Times of one case over the repetitions; milliseconds, unless named otherwise.

    Attributes:
      part: As of the case.
      name: As of the case.
      how: As of the case.
      num_seeds: As of the case.
      median: Wall time, per seed and step where the part is ``steps`` or ``language``.
      minimum: Of the wall time.
      maximum: Of the wall time.
      cpu_median: CPU time of all threads and processes, likewise.
      compile_seconds: First call less the median call, for the first case of a program; else None.
      wall: Every repetition.
    """

    part: str
    name: str
    how: str
    num_seeds: int
    median: float
    minimum: float
    maximum: float
    cpu_median: float
    compile_seconds: float | None
    wall: list[float]


class Ratio(NamedTuple):
    """Wall time of ours over theirs, repetition by repetition.

    Attributes:
      name: Network.
      ours: How ours ran.
      theirs: How theirs ran, the fastest by median.
      num_seeds: Seeds of ours.
      median: Of the ratios of neighbouring repetitions.
      minimum: Of the ratios.
      maximum: Of the ratios.
    """

    name: str
    ours: str
    theirs: str
    num_seeds: int
    median: float
    minimum: float
    maximum: float


def measure(cases: Sequence[Case], *, repeats: int) -> tuple[list[Row], list[Ratio]]:
    """Calls every case once to compile, then all in turn, `repeats` times.

    Args:
      cases: What is compared with each other.
      repeats: Repetitions.

    Returns:
      One row a case, and one ratio for each of our cases that has a counterpart.

    References:
      House definition.
    """
    first = [_time(case)[0] for case in cases]
    times: list[list[tuple[float, float]]] = [[] for _ in cases]
    for _ in range(repeats):
        for case, record in zip(cases, times, strict=True):
            record.append(_time(case))
    rows, programs = [], set()
    for case, before, record in zip(cases, first, times, strict=True):
        is_new = case.program is not None and case.program not in programs
        programs.add(case.program)
        wall, cpu = (
            [1e3 * t / case.divisor for t in column] for column in zip(*record, strict=True)
        )
        median = statistics.median(wall)
        seconds = before - median * case.divisor / 1e3 if is_new else None
        rows.append(
            Row(
                *case[:4],
                median=median,
                minimum=min(wall),
                maximum=max(wall),
                cpu_median=statistics.median(cpu),
                compile_seconds=seconds,
                wall=wall,
            )
        )
    return rows, _ratios(cases, rows)


def _time(case: Case) -> tuple[float, float]:
    if interrupted.is_set():
        raise SystemExit(EXIT_INTERRUPTED)
    wall, cpu = time.perf_counter(), time.process_time()
    elsewhere = case.call()
    return time.perf_counter() - wall, time.process_time() - cpu + (elsewhere or 0.0)


def _ratios(cases: Sequence[Case], rows: list[Row]) -> list[Ratio]:
    pairs = list(zip(cases, rows, strict=True))
    theirs = min(
        (row for case, row in pairs if case.role == "theirs"),
        key=lambda row: row.median,
        default=None,
    )
    if theirs is None:
        return []
    ratios = []
    for ours in (row for case, row in pairs if case.role == "ours"):
        each = [a / b for a, b in zip(ours.wall, theirs.wall, strict=True)]
        summary = statistics.median(each), min(each), max(each)
        ratios.append(Ratio(ours.name, ours.how, theirs.how, ours.num_seeds, *summary))
    return ratios


def aims(rows: Sequence[Row], ratios: Sequence[Ratio]) -> list[str]:
    """Says of every measured aim whether it was met, in words. House definition."""
    words = []
    for ratio in ratios:
        aim = AIMS.get((ratio.name, "ratio"))
        if aim is not None and ratio.num_seeds > 1:
            what = f"{ratio.name}, {ratio.num_seeds} seeds, time over PyTorch's"
            words.append(_judge(what, ratio.median, aim, f"{ratio.median:.2f}", f"{aim:.1f}"))
    fastest: dict[tuple[str, str], float] = {}
    for row in rows:
        key = row.part, row.name
        fastest[key] = min(row.median, fastest.get(key, row.median))
    for key, median in fastest.items():
        if key in AIMS:
            aim = AIMS[key]
            words.append(_judge(" ".join(key), median, aim, f"{median:.0f} ms", f"{aim:.0f} ms"))
    return words


def _judge(what: str, value: float, aim: float, value_text: str, aim_text: str) -> str:
    verdict = "met" if value <= aim else "missed"
    return f"{what}: {value_text}, aim at most {aim_text} on 2 CPU cores: {verdict}"


def describe_machine() -> dict[str, str]:
    """Device, cores and versions. House definition."""
    names = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")
    installed = {d.name.lower(): d.version for d in metadata.distributions() if d.name in names}
    return {
        "device": jax.devices()[0].device_kind,
        "cores": str(num_usable_cores()),
        "python": platform.python_version(),
        **{name: installed[name] for name in names if name in installed},
    }


def peak_memory_gb() -> float:
    """Largest resident memory of this process so far, GB. House definition."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _cells(row: Row) -> list[str]:
    compiling = "" if row.compile_seconds is None else f"{row.compile_seconds:.1f}"
    spread = [_digits(v) for v in (row.median, row.minimum, row.maximum, row.cpu_median)]
    return [row.part, row.name, row.how, str(row.num_seeds), *spread, compiling]


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


HEADER = ["part", "what", "how", "seeds", "median ms", "min", "max", "CPU ms", "compile s"]


def print_results(
    rows: Sequence[Row], ratios: Sequence[Ratio], words: Sequence[str], console: Console
) -> None:
    """Shows table, ratios and aims on the terminal. House definition."""
    table = Table(title="milliseconds; of steps: per seed and step")
    for i, name in enumerate(HEADER):
        table.add_column(name, justify="left" if i < 3 else "right")
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)
    for line in [*map(_ratio_words, ratios), *words, f"peak memory {peak_memory_gb():.2f} GB"]:
        console.print(line, highlight=False)


def _ratio_words(ratio: Ratio) -> str:
    return (
        f"{ratio.name}, {ratio.num_seeds} seeds: {ratio.ours} takes {ratio.median:.2f} times as "
        f"long as {ratio.theirs} ({ratio.minimum:.2f} to {ratio.maximum:.2f})"
    )


def write_results(
    folder: Path,
    machine: dict[str, str],
    rows: Sequence[Row],
    ratios: Sequence[Ratio],
    words: Sequence[str],
) -> None:
    """Writes benchmark.json (everything) and benchmark.md (the table).

    Raises:
      OSError: If the folder cannot be written.

    References:
      House definition.
    """
    content: dict[str, Any] = {
        "machine": machine,
        "load_average": list(os.getloadavg()),
        "peak_memory_gb": peak_memory_gb(),
        "rows": [row._asdict() for row in rows],
        "ratios": [ratio._asdict() for ratio in ratios],
        "aims": list(words),
    }
    write_json(folder / "benchmark.json", content)
    lines = [" · ".join(f"{k} {v}" for k, v in machine.items()), ""]
    lines += ["Milliseconds; of steps: per seed and step.", ""]
    lines += [" | ".join(HEADER), " | ".join("-" for _ in HEADER)]
    lines += [" | ".join(_cells(row)) for row in rows]
    lines += ["", *(f"- {line}" for line in [*map(_ratio_words, ratios), *words])]
    lines.append(f"- peak memory {peak_memory_gb():.2f} GB")
    write_bytes(folder / "benchmark.md", ("\n".join(lines) + "\n").encode())
