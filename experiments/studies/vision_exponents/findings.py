"""The run folders of vision experiments, and the value of Table 7 that belongs to each.

In: folders of vision experiments, or run folders. Out: their names and published exponents.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.studies.vision.config import SCRATCH
from experiments.studies.vision.read import base_of, init_text, start_of
from imp_rg import published
from imp_rg.published import plain_name
from imp_rg.runs.files import read_json
from imp_rg.runs.folder import has_finished

COLUMNS = {SCRATCH: "No pre-train", "supervised": "ImageNet"}
"""Columns of Table 7 that are not called as the method of pre-training."""


class NamedRun(NamedTuple):
    """A run folder and how tables call it."""

    folder: Path
    name: str


def finished_runs(path: Path, say: Callable[[str], None]) -> Iterator[NamedRun]:
    """The finished runs of an experiment, or the run folder itself; says what is left out."""
    config = path / "config.json"
    cells = read_json(config).get("cells") if config.is_file() else None
    if cells is None:
        yield NamedRun(path, path.resolve().name)
        return
    for cell in cells:
        name = f"{cell['task']} from {init_text(cell['init'])}"
        if has_finished(path / cell["folder"]):
            yield NamedRun(path / cell["folder"], name)
        else:
            say(f"not finished and left out: {name}")


def find_published(settings: dict[str, Any]) -> dict[str, Any]:
    """Row, column and gamma of Table 7 for the settings of a run; NaN where it has none."""
    method, init = settings.get("method"), settings.get("init", SCRATCH)
    if method is None:
        row, column = published.find(7, base_of(settings.get("dataset", ""))), _column(init)
    else:  # pruned on the task of its pre-training: on the diagonal of the table
        column = _column(method)
        row = published.find(7, column if method != "supervised" else settings["dataset"])
        row = row if row and row.row == column else None
    gamma = row.by_label.get(column, np.nan) if row else np.nan
    return {"init": init, "row": row.row if row else "", "column": column, "published": gamma}


def _column(init: str) -> str:
    """Column of Table 7 of a method, or of a file by what its name says."""
    start = start_of(init)
    labels = [label for row in published.rows(7) for label in row.labels]
    named = [label for label in labels if plain_name(label) in plain_name(init_text(start))]
    return COLUMNS.get(start) or (named or [COLUMNS["supervised"]])[0]
