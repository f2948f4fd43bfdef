"""Timing in turn: cases are functions that are called and timed.

In: cases, each with a name, an execution and a call. Out: `Row` and `Ratio` records.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.shell.cli import stop_if_asked
from experiments.studies.benchmark.pytorch import resident_peak_gb
from imp_rg.imp.memory import peak_bytes


class Case(NamedTuple):
    """Something to time.

    Attributes:
      part: ``steps``, ``vision``, ``language``, ``pruning`` or ``reduction``.
      name: Network or size, the same for all cases that are compared.
      how: Library and execution.
      num_seeds: Seeds that run at once.
      divisor: What a call's time is divided by: seeds times steps, or 1.
      program: Cases of one name share what is compiled; None if nothing is.
      call: Runs to the end; may return the CPU seconds of other processes it used.
      role: ``ours`` and ``theirs`` are compared, the fastest of theirs.
      memory: Peak memory of other processes that ran it, GB; by default that of this process.
    """

    part: str
    name: str
    how: str
    num_seeds: int
    divisor: int
    program: str | None
    call: Callable[[], float | None]
    role: str | None = None
    memory: Callable[[], float] | None = None


class Row(NamedTuple):
    """Times of one case over the repetitions; milliseconds, unless named otherwise.

    Attributes:
      part: As of the case.
      name: As of the case.
      how: As of the case.
      num_seeds: As of the case.
      median: Wall time, per seed and step where the part is ``steps``, ``vision`` or
        ``language``.
      minimum: Of the wall time.
      maximum: Of the wall time.
      cpu_median: CPU time of all threads and processes, likewise.
      compile_seconds: First call less the median call, for the first case of a program; else None.
      wall: Every repetition.
      memory_gb: Peak memory after the first call: of the device, or of the processes that ran it;
        of this process, the largest so far.
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
    memory_gb: float = math.nan


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


def measure(
    cases: Sequence[Case], *, repeats: int, say: Callable[[str], None] = lambda line: None
) -> tuple[list[Row], list[Ratio]]:
    """Calls every case once to compile, then all in turn, `repeats` times.

    Args:
      cases: What is compared with each other.
      repeats: Repetitions.
      say: Takes a line on each first call.

    Returns:
      One row a case, and one ratio for each of our cases that has a counterpart.

    References:
      House definition.
    """
    first, memory = [], []
    for case in cases:
        first.append(_time(case)[0])
        memory.append(peak_memory_gb() if case.memory is None else case.memory())
        say(f"  {case.how}, {case.num_seeds} at once: first call {first[-1]:.1f} s")
    times: list[list[tuple[float, float]]] = [[] for _ in cases]
    for _ in range(repeats):
        for case, record in zip(cases, times, strict=True):
            record.append(_time(case))
    rows, programs = [], set()
    for case, before, record, gigabytes in zip(cases, first, times, memory, strict=True):
        is_new = case.program is not None and case.program not in programs
        programs.add(case.program)
        rows.append(_row(case, record, before if is_new else None, gigabytes))
    return rows, _ratios(cases, rows)


def _row(case: Case, record: list[tuple[float, float]], first: float | None, memory_gb: float):
    wall, cpu = ([1e3 * t / case.divisor for t in column] for column in zip(*record, strict=True))
    median = statistics.median(wall)
    return Row(
        *case[:4],
        median=median,
        minimum=min(wall),
        maximum=max(wall),
        cpu_median=statistics.median(cpu),
        compile_seconds=None if first is None else first - median * case.divisor / 1e3,
        wall=wall,
        memory_gb=memory_gb,
    )


def _time(case: Case) -> tuple[float, float]:
    stop_if_asked()
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


def peak_memory_gb() -> float:
    """Peak memory of the device of JAX, GB; of this process on a CPU. House definition."""
    peak = peak_bytes()
    return resident_peak_gb() if peak is None else peak / 1e9
