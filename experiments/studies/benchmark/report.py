"""What is written about the rows: aims, a terminal table, and the files of a benchmark.

In: what was measured. Out: benchmark.json (everything), benchmark.md (the tables), benchmark.csv
(the rows) and one CSV for every other table.
"""

import dataclasses
import os
import platform
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import pandas as pd
from rich.console import Console
from rich.table import Table

from experiments.studies.benchmark.rows import Ratio, Row, peak_memory_gb
from imp_rg.imp.replicates import num_usable_cores
from imp_rg.runs.files import write_bytes, write_csv, write_json

AIMS = {
    ("resnet14 8x8x1", "ratio"): 1.0,
    ("resnet20 32x32x3", "ratio"): 2.0,
    ("pruning", "BERT-base-like"): 1500.0,
    ("reduction", "BERT-base-like"): 300.0,
}
"""On 2 CPU cores: time over PyTorch's with 2 or more seeds, and milliseconds for 85M weights."""


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """What was measured so far.

    Attributes:
      machine: Device, cores and versions.
      rows: Times of all cases.
      ratios: Of ours over theirs.
      words: What they come to, aims among them.
      tables: Lists of named tuples, by the name of the table.
    """

    machine: dict[str, str]
    rows: Sequence[Row]
    ratios: Sequence[Ratio]
    words: Sequence[str]
    tables: dict[str, list[Any]]


TITLES = {
    "throughput": "Throughput: images a second of all replicates together, milliseconds a "
    "replicate and step, seconds of one level of one replicate, shares of the roof of the compiled "
    "step and of the floor, the fewest bytes that can be moved",
    "roofline": "What the roofs are made of, one step of one replicate",
    "prediction": "Roofline on paper: a PREDICTION of the most that is possible, not a measurement",
}
"""Of the further tables."""

SIDEWAYS = ("roofline",)
"""Tables of many columns and few records, which are shown as columns."""

SHORT = {
    "replicates": "seeds",
    "images_per_second": "images/s",
    "images_low": "low",
    "images_high": "high",
    "step_ms": "ms",
    "level_seconds": "level s",
    "roof_share": "roof",
    "floor_share": "floor",
    "memory_gb": "GB",
    "compile_seconds": "compile s",
    "images_per_second_at_most": "images/s at most",
}
"""Headers of columns whose names are long."""

HEADER = ["part", "what", "how", "seeds", "median ms", "min", "max", "CPU ms", "compile s", "GB"]


def print_results(results: Results, console: Console) -> None:
    """Shows tables, ratios and aims on the terminal. House definition."""
    rows = [_cells(row) for row in results.rows]
    _print_table("milliseconds; of steps: per seed and step", HEADER, rows, console)
    for name, records in results.tables.items():
        _print_table(TITLES[name], *_table(name, records), console)
    for line in _lines(results):
        console.print(line, highlight=False)


def _print_table(title: str, header: list[str], rows: list[list[str]], console: Console) -> None:
    table = Table(title=title)
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i > 2 else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _cells(row: Row) -> list[str]:
    numbers = (row.median, row.minimum, row.maximum, row.cpu_median)
    numbers += (row.compile_seconds, row.memory_gb)
    return [row.part, row.name, row.how, str(row.num_seeds), *map(_text, numbers)]


def _table(name: str, records: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
    fields = map(str, records[0]._fields)
    header = [SHORT.get(field, field.replace("_", " ")) for field in fields]
    rows = [[_text(value) for value in record] for record in records]
    if name in SIDEWAYS:
        first, *others = zip(header, *rows, strict=True)
        return list(first), [list(column) for column in others]
    return header, rows


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else str(value)


def _lines(results: Results) -> list[str]:
    memory = f"peak memory {peak_memory_gb():.2f} GB"
    return [*map(_ratio_words, results.ratios), *results.words, memory]


def _ratio_words(ratio: Ratio) -> str:
    return (
        f"{ratio.name}, {ratio.num_seeds} seeds: {ratio.ours} takes {ratio.median:.2f} times as "
        f"long as {ratio.theirs} ({ratio.minimum:.2f} to {ratio.maximum:.2f})"
    )


def write_results(folder: Path, results: Results) -> None:
    """Writes benchmark.json, benchmark.md, benchmark.csv and a CSV for each further table.

    Raises:
      OSError: If the folder cannot be written.

    References:
      House definition.
    """
    tables = {name: [r._asdict() for r in records] for name, records in results.tables.items()}
    rows = [row._asdict() for row in results.rows]
    content: dict[str, Any] = {
        "machine": results.machine,
        "load_average": list(os.getloadavg()),
        "peak_memory_gb": peak_memory_gb(),
        "rows": rows,
        "ratios": [ratio._asdict() for ratio in results.ratios],
        "aims": list(results.words),
        **tables,
    }
    write_json(folder / "benchmark.json", content)
    write_csv(folder / "benchmark.csv", pd.DataFrame(rows).drop(columns="wall"))
    for name, records in tables.items():
        write_csv(folder / f"{name}.csv", pd.DataFrame(records))
    lines = [" · ".join(f"{k} {v}" for k, v in results.machine.items()), ""]
    lines += _markdown(
        "Milliseconds; of steps: per seed and step.", HEADER, map(_cells, results.rows)
    )
    for name, records in results.tables.items():
        lines += _markdown(TITLES[name] + ".", *_table(name, records))
    lines += [f"- {line}" for line in _lines(results)]
    write_bytes(folder / "benchmark.md", ("\n".join(lines) + "\n").encode())


def _markdown(title: str, header: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [title, "", *(" | ".join(row) for row in [header, ["-"] * len(header), *rows]), ""]
