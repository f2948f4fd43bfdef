"""With which exponent does the error of vision tickets grow, with and without pre-training?

Fits the error law of Eq. 15 to every cell of vision experiments, and to any other run folder, such
as one of IMP on a pre-training task, and puts gamma beside the value of the paper's Table 7 for the
same task and pre-training. The errors against density with their laws are the paper's Fig. 3.

    python -m experiments.vision_exponents runs/vision_flow/NAME
    python -m experiments.vision_exponents runs/vision_flow/NAME runs/pretrain/NAME/imp

Unfinished cells are left out and named. A fit takes 0.03 to 0.2 s. Gamma is identified only if four
densities lie on the power law: levels 0 to 10 end at 11 % density, where errors have hardly begun
to rise, so expect *not identified* from them; the paper's runs go to 1.8 %.

Source: Redman, Chen, Wang, Dogra, arXiv:2110.03210, Eq. 15, Table 7, Fig. 3 and App. D.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tyro
from rich.console import Console

from experiments import error_law
from experiments.shell import cli
from experiments.shell.study import AS_IS
from experiments.studies.error_law.page import (
    CAPTIONS,
    gamma_text,
    interval_text,
    parameter_table,
    plain_name,
    published_gamma,
)
from experiments.studies.vision.config import SCRATCH
from experiments.studies.vision.read import base_of, init_text, start_of
from imp_rg import published
from imp_rg.config import require
from imp_rg.report.page import Section, write_page
from imp_rg.report.words import MISSING
from imp_rg.runs.files import read_json
from imp_rg.runs.folder import has_finished

QUESTION = (
    "With which exponent does the error of each task grow as weights are pruned, from scratch and "
    "pre-trained, and do the data determine it?"
)

COLUMNS = {SCRATCH: "No pre-train", "supervised": "ImageNet"}
"""Columns of Table 7 that are not called as the method of pre-training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Fits the dependence of the error on density, cell by cell.

    Attributes:
      runs: Folders of vision experiments, or finished run folders.
      ci_level: Coverage of the intervals.
      out: Folder of the results; by default below runs/exponents.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    ci_level: float = 0.95
    out: Path | None = None


class Source(NamedTuple):
    """A run folder and how tables call it."""

    folder: Path
    name: str


def run(config: Config) -> Path:
    """Fits every cell and reports; returns the folder of the results."""
    require(bool(config.runs), "runs", "give a vision experiment or a run folder", "none")
    console = Console(width=None if sys.stdout.isatty() else 120)
    sources = [source for path in config.runs for source in _sources(path, console)]
    require(bool(sources), "runs", "must hold a finished cell", [str(x) for x in config.runs])
    settings = error_law.Config(
        runs=tuple(source.folder for source in sources), ci_level=config.ci_level
    )
    out = config.out or error_law.default_folder(settings)
    error_law.check_folder(out)
    tasks = [error_law.read_run(*source) for source in sources]
    table, curves = error_law.fit_tasks(tasks, settings)
    beside = [_published(read_json(source.folder / "config.json")) for source in sources]
    table = pd.concat([table, pd.DataFrame(beside)], axis=1)
    figures = error_law.write_results(out, settings, table, curves)
    page = _write_page(out, table, figures, ci_level=config.ci_level)
    error_law.print_table(table, console)
    console.print(f"report: {page}", **AS_IS)
    return out


def _sources(path: Path, console: Console) -> Iterator[Source]:
    """The finished cells of an experiment, or the run folder itself."""
    config = path / "config.json"
    cells = read_json(config).get("cells") if config.is_file() else None
    if cells is None:
        yield Source(path, path.resolve().name)
        return
    for cell in cells:
        name = f"{cell['task']} from {init_text(cell['init'])}"
        if has_finished(path / cell["folder"]):
            yield Source(path / cell["folder"], name)
        else:
            console.print(f"not finished and left out: {name}", **AS_IS)


def _published(settings: dict[str, Any]) -> dict[str, Any]:
    """Row, column and gamma of Table 7 for the settings of a run; NaN where it has none."""
    method, init = settings.get("method"), settings.get("init", SCRATCH)
    if method is None:
        row, column = published_gamma(base_of(settings.get("dataset", ""))), _column(init)
    else:  # pruned on the task of its pre-training: on the diagonal of the table
        column = _column(method)
        row = published_gamma(column if method != "supervised" else settings["dataset"])
        row = row if row and row.row == column else None
    gamma = row.by_label.get(column, np.nan) if row else np.nan
    return {"init": init, "row": row.row if row else "", "column": column, "published": gamma}


def _column(init: str) -> str:
    """Column of Table 7 of a method, or of a file by what its name says."""
    start = start_of(init)
    labels = [label for row in published.rows(7) for label in row.labels]
    named = [label for label in labels if plain_name(label) in plain_name(init_text(start))]
    return COLUMNS.get(start) or (named or [COLUMNS["supervised"]])[0]


def _write_page(
    out: Path, table: pd.DataFrame, figures: dict[str, Path], *, ci_level: float
) -> Path:
    rows: Any = table.to_dict("records")
    parameters = parameter_table(rows)
    sections = [
        Section(
            title="Gamma beside the paper's Table 7",
            figures=[(path, CAPTIONS[name][1]) for name, path in figures.items()],
            head=["run", "Table 7", "paper", "here", f"{100 * ci_level:g} % interval", "verdict"],
            rows=[_gamma_row(row) for row in rows],
            note="In the paper's gauge, where gamma is negative: (γ, p, q) and (−γ, q, p) are the "
            "same curve. Columns of Table 7: labels of ImageNet stand for any pre-training with "
            "labels; files are taken by their names. The paper prints no intervals; it has "
            "ResNet-50 on whole data sets.",
        ),
        Section(
            title="All parameters (positive gauge)",
            head=parameters.head,
            rows=parameters.rows,
            note="e_np: error unpruned; e_up: at vanishing density, an extrapolation. Held out: "
            "error in points of every third density, predicted from the others.",
        ),
    ]
    return write_page(
        out / "report.html",
        title="Critical exponents of vision tickets",
        question=QUESTION,
        answers=_answers(rows),
        sections=sections,
    )


def _gamma_row(row: dict[str, Any]) -> list[str]:
    is_known = not np.isnan(row["published"])
    ends = row["paper_gamma_low"], row["paper_gamma_high"]
    return [
        row["task"],
        f"{row['row']}, {row['column']}" if is_known else MISSING,
        f"{row['published']:+.2f}" if is_known else MISSING,
        gamma_text(row["paper_gamma"], row["identified"]),
        interval_text(*ends, row["identified"]),
        "identified" if row["identified"] else row["why"],
    ]


def _answers(rows: Sequence[dict[str, Any]]) -> list[str]:
    """How many are identified, and whether the paper's values lie in their intervals."""
    found = [row for row in rows if row["identified"]]
    sentences = [f"Gamma is identified in {len(found)} of {len(rows)} runs."]
    for row in found:
        low, high = row["paper_gamma_low"], row["paper_gamma_high"]
        beside = ""
        if not np.isnan(row["published"]):
            side = "within" if low <= row["published"] <= high else "outside"
            beside = f"; the paper's {row['published']:+.2f} lies {side} the interval"
        interval = interval_text(low, high, True)
        sentences.append(f"{row['task']}: gamma = {row['paper_gamma']:+.2f} {interval}{beside}.")
    sentences += [
        f"{row['task']}: not identified: {row['why']}." for row in rows if not row["identified"]
    ]
    return sentences


PRESETS = {"default": Config()}

if __name__ == "__main__":
    cli.main(
        run,
        PRESETS,
        prog="python -m experiments.vision_exponents",
        when_stopped="nothing was written",
    )
