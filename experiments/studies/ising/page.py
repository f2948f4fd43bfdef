"""The page of the Ising experiment: what was measured beside what is exact.

In: the run folder. Out: figures and a `Page`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.studies.ising.sampling import NUM_REPLICAS
from imp_rg.plots import ising as plots
from imp_rg.plots.style import save_figure
from imp_rg.report.columns import Column, number, signed, tabulate
from imp_rg.report.page import Page, Section
from imp_rg.rg.estimate import MISSING
from imp_rg.rg.ising import CRITICAL_TEMPERATURE
from imp_rg.runs.files import read_csv, read_json

TABLES = ("exponents", "binder", "crossing", "energy", "couplings", "timing")

CAPTIONS = {
    "configurations": "Every 2 × 2 block becomes the spin of its majority. Below the critical "
    "temperature blocking leads to order, above it to disorder; at it, images of all levels look "
    "alike. The left column of the paper's Fig. 1.",
    "exponents": "With jack-knife standard errors. The first blocking is off in y_t: the "
    "simulated Hamiltonian is not yet close to the fixed point. Later ones lose operators to the "
    "small lattice.",
    "coupling_flow": "Left: two of four couplings, one arrow a blocking; all paths begin at "
    "(1 / T, 0). Right: the nearest-neighbour coupling by level. It grows below the critical "
    "temperature and dies above it.",
    "rg_beside_imp": "As the paper's Fig. 1. Left: the Ising model at its critical temperature. "
    "Right: the IMP run. Each row shows what the paper calls analogous; that the right column has "
    "a fixed point or exponents in the sense of the left one is not shown.",
}


def make_page(folder: Path) -> Page:
    """Draws the figures and makes the page."""
    tables = {name: read_csv(folder / f"{name}.csv") for name in TABLES}
    num_bins = read_json(folder / "config.json")["bins"] * NUM_REPLICAS
    figures = _figures(folder, tables)
    exponents = tables["exponents"].groupby("exponent", sort=False)
    return Page(
        title="Monte Carlo RG of the Ising model",
        question="Does the machinery find exponents, critical point and energy where all of them "
        "are known?",
        answers=answers(tables),
        sections=[
            Section(title="Under three blockings", figures=[figures["configurations"]]),
            Section(
                title="Exponents",
                text=[
                    "Exact: y_t = 1 (Onsager), y_h = 15/8 (Yang). Measured: log2 of the largest "
                    f"eigenvalue of Swendsen's matrix. Errors are statistical ({num_bins} bins) "
                    "and do not hold what few operators, few blockings and a finite lattice leave "
                    "out."
                ],
                figures=[figures["exponents"]],
            ),
            *(
                Section(title=f"{name} by number of operators", table=exponent_table(rows))
                for name, rows in exponents
            ),
            Section(
                title="Critical temperature",
                text=[
                    f"Exact: T_c = 2 / ln(1 + √2) = {CRITICAL_TEMPERATURE:.6f} on the infinite "
                    "lattice. Measured: where Binder's cumulants of two sizes cross; corrections "
                    "to scaling are not fitted."
                ],
                table=tabulate(
                    tables["crossing"],
                    {
                        "sizes": lambda row: f"{row['small_size']} and {row['large_size']}",
                        "T_c": with_error("critical_temperature"),
                        "deviation (%)": signed("deviation_percent"),
                        "deviation (standard errors)": lambda row: finite_text(
                            (row["critical_temperature"] - row["exact"]) / row["error"], 1
                        ),
                    },
                ),
            ),
            Section(
                title="Energy per spin",
                text=["Exact: Kaufman's partition function of the same finite torus."],
                table=tabulate(
                    tables["energy"],
                    {
                        "update": "update",
                        "T / T_c": _relative,
                        "measured": with_error("energy"),
                        "exact": number("exact", 6),
                        "deviation (standard errors)": lambda row: finite_text(
                            row["deviation_in_errors"], 1
                        ),
                    },
                ),
            ),
            Section(
                title="Flow of the couplings",
                text=[
                    "Measured: four couplings under which Callen's identity holds on the blocked "
                    "configurations. At level 0 they must be (1 / T, 0, 0, 0); at others they are "
                    f"not known exactly and depend on the truncation. {MISSING}: too ordered."
                ],
                figures=[figures["coupling_flow"]],
                table=coupling_table(tables["couplings"]),
            ),
            Section(
                title="RG and IMP",
                figures=[figures[name] for name in figures if name == "rg_beside_imp"],
                note="With --run RUN_FOLDER of an IMP run, the whole of the paper's Fig. 1 is "
                "drawn here.",
            ),
            Section(
                title="Where the time goes",
                table=tabulate(
                    tables["timing"],
                    {
                        "plan": "plan",
                        "seconds": number("seconds", 1),
                        "million spin updates": lambda row: f"{row['spin_updates'] / 1e6:.0f}",
                        "spins per nanosecond": lambda row: (
                            f"{row['spin_updates'] / row['seconds'] / 1e9:.4f}"
                        ),
                    },
                ),
            ),
        ],
    )  # fmt: skip


def answers(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Exponents, critical temperature and energy beside the exact ones."""
    exponents = tables["exponents"]
    sentences = []
    for name, rows in exponents[exponents["num_operators"] == 4].groupby("exponent", sort=False):
        values = "; ".join(
            f"blocking {row['blocking']}: {_exponent(row)}" for row in rows.to_dict("records")
        )
        exact = rows["exact"].iloc[0]
        sentences.append(f"{name} with four operators, exactly {exact:g}. {values}.")
    last = tables["crossing"].iloc[-1]
    sentences.append(
        f"T_c from the crossing of {last['small_size']:.0f} and {last['large_size']:.0f}: "
        f"{error_text(last['critical_temperature'], last['error'])}, exactly {last['exact']:.5f} "
        f"({finite_text(last['deviation_percent'], 3)} %)."
    )
    worst = tables["energy"]["deviation_in_errors"].abs().max()
    sentences.append(f"Energy per spin: at most {worst:.1f} standard errors from the exact one.")
    return sentences


def exponent_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Exponents of one sector by number of operators and blocking."""
    records = []
    for count, of_count in rows.groupby("num_operators"):
        prefix = "" if count == 1 else "… "
        record = {"operators": prefix + of_count["last_operator"].iloc[0]}
        for row in of_count.to_dict("records"):
            sizes = f"{row['fine_size']} to {row['coarse_size']}"
            record[f"blocking {row['blocking']} ({sizes})"] = _exponent(row)
        records.append(record)
    return pd.DataFrame(records)


def coupling_table(table: pd.DataFrame) -> pd.DataFrame:
    """Couplings by temperature and level."""
    records = []
    for (_, level), part in table.groupby(["temperature", "level"]):
        first, *_ = rows = part.to_dict("records")
        record = {"T / T_c": _relative(first), "level": str(level)}
        record["1 / T"] = f"{1 / first['temperature']:.4f}"
        for row in rows:
            record[row["operator"]] = error_text(row["coupling"], row["error"])
        records.append(record)
    return pd.DataFrame(records)


def finite_text(value: float, digits: int) -> str:
    """With sign; a dash where it is not finite."""
    return f"{value:+.{digits}f}" if np.isfinite(value) else MISSING


def error_text(value: float, error: float) -> str:
    """0.9962(21): the standard error in units of the last two digits of the value."""
    if not (np.isfinite(value) and np.isfinite(error) and error > 0):
        return MISSING
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:.{digits}f}({round(error * 10**digits)})"


def with_error(name: str) -> Column:
    """A column of values whose standard errors stand in the column error."""
    return lambda row: error_text(row[name], row["error"])


def _exponent(row: Mapping[Any, Any]) -> str:
    deviation = finite_text(row["deviation_percent"], 2)
    return f"{error_text(row['value'], row['error'])} ({deviation} %)"


def _relative(row: Mapping[Any, Any]) -> str:
    return f"{row['temperature'] / CRITICAL_TEMPERATURE:.3f}"


def _figures(folder: Path, tables: Mapping[str, pd.DataFrame]) -> dict[str, tuple[Path, str]]:
    """All figures by name, with their captions."""
    with np.load(folder / "configurations.npz") as file:
        relative = file["temperature"] / CRITICAL_TEMPERATURE
        levels = [file[f"level{n}"] for n in range(len(file.files) - 1)]
    drawn: dict[str, Any] = {
        "configurations": plots.configurations(levels, relative),
        "exponents": plots.exponents(tables["exponents"]),
        "coupling_flow": plots.coupling_flow(tables["couplings"], CRITICAL_TEMPERATURE),
    }
    if (folder / "imp_flow.csv").exists():
        nearest = int(np.abs(relative - 1).argmin())
        drawn["rg_beside_imp"] = plots.rg_beside_imp(
            [spins[nearest] for spins in levels],
            tables["binder"],
            tables["couplings"],
            CRITICAL_TEMPERATURE,
            read_csv(folder / "imp_flow.csv"),
            read_csv(folder / "imp_metrics.csv"),
        )
    return {
        name: (save_figure(figure, folder / "figures", name), CAPTIONS[name])
        for name, figure in drawn.items()
    }
