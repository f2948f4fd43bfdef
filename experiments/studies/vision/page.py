"""The page of `experiments.vision_flow`: the paper's Table 2 and Fig. 2 beside pruning alone.

In: the folder of the experiment, one run folder a cell. Out: tables, ``figures`` and
``report.html``.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.shell.study import AS_IS, duration_text
from experiments.studies.vision.cells import CellRun, read_cells
from experiments.studies.vision.distances import ALL
from experiments.studies.vision.sections import (
    accuracy_rows,
    change_rows,
    claim_rows,
    distance_rows,
    lead_rows,
    sigma_rows,
)
from experiments.studies.vision.tables import path_frame, start_text, write_tables
from experiments.studies.vision.words import answers, in_window, limits
from imp_rg.data.derived import split_name
from imp_rg.plots import vision as plots
from imp_rg.plots.style import Frame, save_figure
from imp_rg.report.page import Section, write_page
from imp_rg.runs.files import read_json

QUESTION = (
    "Do networks trained on different tasks share their exponents, and does pre-training bring "
    "them closer, beyond what pruning the weights that they start from gives?"
)
Figures = dict[str, list[tuple[Path, str]]]
"""Each figure with its caption, as a section takes them."""

CAPTIONS = {
    "flow": (
        "Shares of the surviving magnitude in two blocks, means over seeds; numbers are levels. "
        "Solid from level 1 to 17 as in the paper's Fig. 2, dashed before and after; dotted: the "
        "weights that levels start from, pruned without training."
    ),
    "sigma": "Sigma with its interval over seeds beside its nulls, and the paper's value where it "
    "has one.",
    "distances": (
        "Distance of two tasks by what they start from, with intervals over seeds: of sigma, of "
        "its nulls, and of what sigma has beyond them. Intervals may leave the panel."
    ),
    "accuracy": "Means over seeds with their standard deviation.",
}


def report(out: Path, console: Console) -> Path:
    """Writes tables, figures and page of all finished cells; prints the lead table.

    Args:
      out: Folder of the experiment.
      console: To print on.

    Returns:
      Path of ``report.html``.

    Raises:
      ValueError: If there is no list of cells, no cell is finished, or one cannot be read.
    """
    cells, missing = read_cells(out)
    ci_level = cells[0].flow.settings.get("ci_level", 0.95)
    tables = write_tables(out, cells, ci_level=ci_level)
    common = _common_transforms(cells)
    shown = {name: _without(frame, common) for name, frame in tables.items()}
    window = shown["sigma"]["window"].iloc[0]
    lead = in_window(shown, window)
    said = answers(lead)
    page = write_page(
        out / "report.html",
        title="The flow of vision tickets",
        question=QUESTION,
        answers=said,
        sections=[
            *_sections(shown["sigma"], lead, _save_figures(out, cells, lead, common)),
            Section(
                title="What limits this",
                text=list(limits(cells, missing=missing, common=common, window=window)),
            ),
            *_cell_sections(out, cells),
        ],
    )
    _print(lead["sigma"], missing, console)
    console.print(said[0], **AS_IS)
    console.print(f"report: {page}", **AS_IS)
    return page


def _print(sigma: Frame, missing: Sequence[str], console: Console) -> None:
    head, rows = lead_rows(sigma)
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if missing:
        console.print(f"not finished and left out: {'; '.join(missing)}", **AS_IS)


def _save_figures(
    out: Path, cells: Sequence[CellRun], lead: dict[str, Frame], common: str
) -> Figures:
    blocks = _opposite_blocks(lead["sigma"])
    drawn = {
        "flow": plots.flow_of_tasks(_without(path_frame(cells, blocks), common), blocks),
        "sigma": plots.sigma_by_stage(lead["sigma"]),
        "accuracy": plots.accuracy_curves(lead["accuracy"]),
    }
    distances = lead["distances"]
    between_tasks = distances[distances["between"] == "tasks"]
    if len(between_tasks):
        starts = [start_text(row) for row in between_tasks.to_dict("records")]
        last = between_tasks["block"].iloc[-1]
        titles = {ALL: "root mean square over blocks", last: f"{last} alone"}
        drawn["distances"] = plots.distances_by_start(between_tasks.assign(start=starts), titles)
    return {
        name: [(save_figure(figure, out / "figures", name), CAPTIONS[name])]
        for name, figure in drawn.items()
    }


def _sections(sigma: Frame, lead: dict[str, Frame], figures: Figures) -> Iterator[Section]:
    """What was measured; `lead` holds the tables of the window that leads, `sigma` all windows."""
    head, rows = lead_rows(lead["sigma"])
    yield Section(
        title="Sigma by task and start (the paper's Table 2)",
        figures=figures["flow"],
        head=head,
        rows=rows,
        note="The paper's estimator over all levels, trained weights, over all prunable weights; "
        "± half the interval over seeds, that of the excess from differences within each seed. "
        "Verdict: + relevant, − irrelevant, 0 its interval holds zero, ? no interval.",
    )
    yield from _distance_sections(lead, figures)
    head, rows = accuracy_rows(lead["accuracy"])
    yield Section(
        title="Was anything learned?",
        figures=figures["accuracy"],
        head=head,
        rows=rows,
        note="Test accuracy, mean over seeds ± their standard deviation.",
    )
    head, rows = sigma_rows(sigma)
    yield Section(
        title="Sigma by block, from level 0 on and from level 1 on",
        figures=figures["sigma"],
        head=head,
        rows=rows,
    )


def _distance_sections(lead: dict[str, Frame], figures: Figures) -> Iterator[Section]:
    drawn = figures.get("distances", [])
    if len(lead["changes"]):
        head, rows = change_rows(lead["changes"])
        yield Section(
            title="With and without pre-training",
            figures=drawn,
            head=head,
            rows=rows,
            note="Sigma beyond a null: the change of the distance of sigma less that of the null.",
        )
        drawn = []
    for claim, of_claim in lead["claims"].groupby("claim", sort=False):
        head, rows = claim_rows(of_claim)
        yield Section(title=f"The paper's claim: {claim}", head=head, rows=rows)
    if len(lead["distances"]):
        head, rows = distance_rows(lead["distances"])
        yield Section(
            title="Distances between tasks, and between starts",
            figures=drawn,
            head=head,
            rows=rows,
            note="Root mean square over blocks, or one block alone. p: permutation test over "
            "seeds, and in brackets the smallest value that so few seeds can give.",
        )


def _cell_sections(out: Path, cells: Sequence[CellRun]) -> Iterator[Section]:
    yield Section(
        title="The cells' own pages",
        links=[(cell.name, f"{cell.folder}/report.html") for cell in cells],
    )
    rows = []
    for cell in cells:
        about = read_json(out / cell.folder / "environment.json")
        seconds = duration_text(about["seconds"]) if "seconds" in about else ""
        names = ("device", "commit", "command")
        rows.append([cell.name, seconds, *(str(about.get(name, "")) for name in names)])
    yield Section(
        title="How the cells were run",
        head=["cell", "time", "device", "commit", "command"],
        rows=rows,
        note="Versions stand in environment.json of each cell.",
    )


def _opposite_blocks(sigma: Frame) -> tuple[str, str]:
    """The blocks whose shares grow and shrink fastest, means over cells."""
    means = sigma.groupby("block", sort=False)["sigma"].mean().dropna()
    if len(means) < 2:
        return sigma["block"].iloc[0], sigma["block"].iloc[-1]
    return str(means.idxmax()), str(means.idxmin())


def _common_transforms(cells: Sequence[CellRun]) -> str:
    """``+balanced=10000`` where all tasks have it; empty otherwise."""
    transforms = {split_name(cell.task)[1] for cell in cells}
    return "+" + "+".join(*transforms) if len(transforms) == 1 and () not in transforms else ""


def _without(frame: Frame, common: str) -> Frame:
    """Names without the transforms that all tasks share."""
    if not common:
        return frame
    texts = frame.select_dtypes(include=["object", "str"]).columns
    return frame.assign(**{c: frame[c].str.replace(common, "", regex=False) for c in texts})
