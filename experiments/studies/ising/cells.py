"""Numbers of the Ising page as text: one table for each CSV of the run folder."""

import numpy as np

from imp_rg.plots.style import Frame
from imp_rg.report.templates import Table
from imp_rg.report.words import MISSING
from imp_rg.rg.ising import CRITICAL_TEMPERATURE


def exponent_cells(rows: Frame) -> Table:
    """Exponents of one sector by number of operators and blocking."""
    columns = list(rows.groupby("blocking"))
    head = ["operators"] + [
        f"blocking {blocking} ({part['fine_size'].iloc[0]} to {part['coarse_size'].iloc[0]})"
        for blocking, part in columns
    ]
    cells = [
        [f"{count}: … {operator}" if count > 1 else f"1: {operator}"]
        for count, operator in dict(
            zip(rows["num_operators"], rows["last_operator"], strict=True)
        ).items()
    ]
    for _, part in columns:
        for line, row in zip(cells, part.itertuples(), strict=True):
            line.append(f"{estimate(row.value, row.error)} ({signed(row.deviation_percent, 2)} %)")
    return Table(head, cells)


def crossing_cells(table: Frame) -> Table:
    """Critical temperatures."""
    return Table(
        ["sizes", "T_c", "deviation (%)", "deviation (standard errors)"],
        [
            [
                f"{row.small_size} and {row.large_size}",
                estimate(row.critical_temperature, row.error),
                signed(row.deviation_percent, 3),
                signed((row.critical_temperature - row.exact) / row.error, 1),
            ]
            for row in table.itertuples()
        ],
    )


def energy_cells(table: Frame) -> Table:
    """Energies beside the exact ones."""
    return Table(
        ["update", "T / T_c", "measured", "exact", "deviation (standard errors)"],
        [
            [
                row.update,
                f"{row.temperature / CRITICAL_TEMPERATURE:.3f}",
                estimate(row.energy, row.error),
                f"{row.exact:.6f}",
                signed(row.deviation_in_errors, 1),
            ]
            for row in table.itertuples()
        ],
    )


def coupling_cells(table: Frame) -> Table:
    """Couplings by temperature and level."""
    operators = list(dict.fromkeys(table["operator"]))
    rows = []
    for (temperature, level), part in table.groupby(["temperature", "level"]):
        cells = [f"{temperature / CRITICAL_TEMPERATURE:.3f}", str(level), f"{1 / temperature:.4f}"]
        rows.append(cells + [estimate(row.coupling, row.error) for row in part.itertuples()])
    return Table(["T / T_c", "level", "1 / T", *operators], rows)


def timing_cells(table: Frame) -> Table:
    """Seconds, and spins updated per nanosecond."""
    return Table(
        ["plan", "seconds", "million spin updates", "spins per nanosecond"],
        [
            [
                row.plan,
                f"{row.seconds:.1f}",
                f"{row.spin_updates / 1e6:.0f}",
                f"{row.spin_updates / row.seconds / 1e9:.4f}",
            ]
            for row in table.itertuples()
        ],
    )


def signed(value: float, digits: int) -> str:
    """With sign; a dash where it is not finite."""
    return f"{value:+.{digits}f}" if np.isfinite(value) else MISSING


def estimate(value: float, error: float) -> str:
    """0.9962(21): the error in units of the last two digits of the value."""
    if not (np.isfinite(value) and np.isfinite(error) and error > 0):
        return MISSING
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:.{digits}f}({round(error * 10**digits)})"
