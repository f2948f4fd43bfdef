"""What is written of a benchmark: tables on the terminal and in files.

In: what was measured. Out: benchmark.json (everything), benchmark.md (the tables), benchmark.csv
(the rows) and one CSV for every other table.
"""

import dataclasses
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from experiments.studies.benchmark.findings import Aim, Record
from experiments.studies.benchmark.rows import Ratio, Row, peak_memory_gb
from imp_rg.imp.replicates import num_usable_cores
from imp_rg.report.columns import Column, tabulate
from imp_rg.runs.files import write_bytes, write_csv, write_json


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
      aims: What was aimed at.
      tables: Records by the name of their table.
    """

    machine: dict[str, str]
    rows: Sequence[Row]
    ratios: Sequence[Ratio]
    aims: Sequence[Aim] = ()
    tables: dict[str, list[Record]] = dataclasses.field(default_factory=dict)


TITLES = {
    "rows": "Milliseconds; of steps: per seed and step",
    "throughput": "Throughput: images a second of all replicates together, milliseconds a "
    "replicate and step, seconds of one level of one replicate, shares of the roof of the compiled "
    "step and of the floor, the fewest bytes that can be moved",
    "roofline": "What the roofs are made of, one step of one replicate",
    "prediction": "Roofline on paper: a PREDICTION of the most that is possible, not a measurement",
    "encoders": "Encoders: tokens a second, share of what a large matrix product reaches",
    "padding": "Share of padding in batches of inputs as long as those of real tasks",
    "ratios": "Time of ours over the fastest of PyTorch's",
    "aims": "Aims",
}

SIDEWAYS = ("roofline",)
"""Tables of many columns and few records, which are shown as columns."""

HIDDEN = ("wall",)
"""Columns of no table."""

SHORT = {
    "name": "what",
    "num_seeds": "seeds",
    "median": "median",
    "minimum": "min",
    "maximum": "max",
    "cpu_median": "CPU",
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
"""Headings of columns whose names are long."""


def result_tables(results: Results) -> dict[str, pd.DataFrame]:
    """All tables as text, by title. House definition."""
    found = {
        "rows": [row._asdict() for row in results.rows],
        **results.tables,
        "ratios": [ratio._asdict() for ratio in results.ratios],
        "aims": [aim._asdict() for aim in results.aims],
    }
    return {TITLES[name]: _text_table(name, records) for name, records in found.items() if records}


def _text_table(name: str, records: list[Record]) -> pd.DataFrame:
    columns = {SHORT.get(n, n.replace("_", " ")): _cell(n) for n in records[0] if n not in HIDDEN}
    table = tabulate(records, columns)
    if name not in SIDEWAYS:
        return table
    first = str(table.columns[0])
    return table.set_index(first).T.rename_axis(first).reset_index()


def _cell(name: str) -> Column:
    return lambda row: _text(row[name])


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else str(value)


def write_results(folder: Path, results: Results) -> None:
    """Writes benchmark.json, benchmark.md, benchmark.csv and a CSV for each further table.

    Raises:
      OSError: If the folder cannot be written.

    References:
      House definition.
    """
    rows = [row._asdict() for row in results.rows]
    content: dict[str, Any] = {
        "machine": results.machine,
        "load_average": list(os.getloadavg()),
        "peak_memory_gb": peak_memory_gb(),
        "rows": rows,
        "ratios": [ratio._asdict() for ratio in results.ratios],
        "aims": [aim.text() for aim in results.aims],
        **results.tables,
    }
    write_json(folder / "benchmark.json", content)
    write_csv(folder / "benchmark.csv", pd.DataFrame(rows).drop(columns="wall"))
    for name, records in results.tables.items():
        write_csv(folder / f"{name}.csv", pd.DataFrame(records))
    lines = [" · ".join(f"{k} {v}" for k, v in results.machine.items()), ""]
    for title, table in result_tables(results).items():
        cells = [list(table.columns), ["-"] * table.shape[1], *table.to_numpy().tolist()]
        lines += [f"{title}.", "", *(" | ".join(row) for row in cells), ""]
    lines.append(f"Peak memory {peak_memory_gb():.2f} GB.")
    write_bytes(folder / "benchmark.md", ("\n".join(lines) + "\n").encode())
