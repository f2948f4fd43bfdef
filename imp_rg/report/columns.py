"""Tables of text from tables of numbers: every column of a page is a heading and how it reads.

tabulate(frame, {"depth": "depth", "spread": estimate("sd"), "paper": number("paper_sd", 2)})
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from imp_rg.rg.estimate import MISSING, Estimate, number_text

Column = str | Callable[[Mapping[Any, Any]], str]
"""Name of a column that reads as it stands, or a function of a row."""


def tabulate(rows: pd.DataFrame | Iterable[Mapping[str, Any]], columns: Mapping[str, Column]):
    """One row of text a row of numbers; for a page or for the terminal.

    Args:
      rows: Frame or records.
      columns: Headings, and how each cell is made.

    Returns:
      A frame of strings.
    """
    records: Any = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else list(rows)
    cells = [[_cell(row, column) for column in columns.values()] for row in records]
    return pd.DataFrame(cells, columns=pd.Index(list(columns)), dtype=object)


def _cell(row: Mapping[str, Any], column: Column) -> str:
    if callable(column):
        return column(row)
    value = row[column]
    return MISSING if pd.isna(value) else str(value)


def estimate(name: str, digits: int = 3) -> Column:
    """Value and interval of NAME, NAME_low, NAME_high."""
    return lambda row: Estimate.of(row, name).text(digits)


def signed(name: str, digits: int = 3) -> Column:
    """A number with its sign."""
    return lambda row: number_text(row[name], digits)


def number(name: str, digits: int = 3, *, unit: str = "") -> Column:
    """A number with so many decimals."""
    return lambda row: MISSING if np.isnan(row[name]) else f"{row[name]:.{digits}f}{unit}"


def significant(name: str, digits: int = 2) -> Column:
    """A number with so many significant digits, such as a p-value."""
    return lambda row: MISSING if np.isnan(row[name]) else f"{row[name]:.{digits}g}"
