"""The page of `experiments.vision_flow`: the paper's Table 2 and Fig. 2 beside pruning alone.

In: the folder of the experiment with its run folders and tables. Out: figures and the `Page`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.studies.vision.config import SCRATCH
from experiments.studies.vision.findings import ALL, INIT, SOURCES, TASKS, read_findings, start_text
from experiments.studies.vision.read import FLOORS, VisionRun, init_text, read_runs
from imp_rg.data.derived import split_name
from imp_rg.plots import vision as plots
from imp_rg.plots.style import save_figure
from imp_rg.report.columns import Column, number, signed, tabulate
from imp_rg.report.page import Page, Section
from imp_rg.rg.estimate import MISSING, Estimate, number_text
from imp_rg.runs.agreement import agreement

QUESTION = (
    "Do networks trained on different tasks share their exponents, and does pre-training bring "
    "them closer, beyond what pruning the weights that they start from gives?"
)
RESNET = "resnet50"
"""The network of the paper's Tables 2 and 7."""

NULLS = (INIT, "oneshot")
LEADING = ("sigma", INIT, f"beyond_{INIT}")
"""Of them, what the verdict says."""

CLASSES = {"relevant": "+", "irrelevant": "−", "marginal": "0", "undetermined": "?"}
INDENT = "· "
"""Before what belongs to the row above."""

CAPTIONS = {
    "flow": "Shares of the surviving magnitude in two blocks, means over seeds; numbers are "
    "levels. Solid from level 1 to 17 as in the paper's Fig. 2, dashed before and after; dotted: "
    "the weights that levels start from, pruned without training.",
    "sigma": "Sigma with its interval over seeds, its nulls, and the paper's value.",
    "distances": "Distance of two tasks by what they start from, with intervals over seeds.",
    "accuracy": "Means over seeds with their standard deviation.",
}


def make_page(folder: Path) -> Page:
    """The page of all finished runs in a folder; draws its figures.

    Raises:
      ValueError: If there is no list of runs, none is finished, or one cannot be read.
    """
    runs, unfinished = read_runs(folder)
    common = _common_transforms(runs)
    shown = {name: _without(frame, common) for name, frame in read_findings(folder).items()}
    window = shown["sigma"]["window"].iloc[0]
    lead = {name: frame[frame["window"] == window].reset_index(drop=True)
            if "window" in frame else frame for name, frame in shown.items()}  # fmt: skip
    figures = _draw(folder, lead)
    return Page(
        title="The flow of vision tickets",
        question=QUESTION,
        answers=list(_answers(lead)),
        sections=[
            Section(
                title="Sigma by task and start (the paper's Table 2)",
                figures=figures["flow"],
                table=_lead_table(lead["sigma"]),
                note="The paper's estimator over all levels, trained weights, all prunable "
                "weights; ± half the interval over seeds, that of the excess from differences "
                "within each seed. Verdict: + relevant, − irrelevant, 0 its interval holds zero, "
                "? no interval.",
            ),
            *_distance_sections(lead, figures),
            Section(
                title="Was anything learned?",
                figures=figures["accuracy"],
                table=_accuracy_table(lead["accuracy"]),
            ),
            Section(
                title="Sigma by block, from level 0 on and from level 1 on",
                figures=figures["sigma"],
                table=_sigma_table(shown["sigma"]),
            ),
            Section(
                title="What limits this",
                items=list(_limits(runs, unfinished=unfinished, common=common, window=window)),
            ),
            Section(
                title="The runs",
                links=[(run.name, f"{run.folder}/report.html") for run in runs],
                note="Device, time and command of each stand on its own page.",
            ),
        ],
    )


def lead_table(folder: Path) -> pd.DataFrame:
    """Sigma of every run over all levels, as the paper's Table 2, for the terminal."""
    sigma = read_findings(folder)["sigma"]
    return _lead_table(sigma[sigma["window"] == sigma["window"].iloc[0]])


def _draw(folder: Path, lead: Mapping[str, pd.DataFrame]) -> dict[str, list[tuple[Path, str]]]:
    """Each figure with its caption, as a section takes them."""
    paths, distances = lead["paths"], lead["distances"]
    drawn = {
        "flow": plots.flow_of_tasks(paths, (paths["block_x"][0], paths["block_y"][0])),
        "sigma": plots.sigma_by_stage(lead["sigma"]),
        "accuracy": plots.accuracy_curves(lead["accuracy"]),
    }
    between_tasks = distances[distances["between"] == TASKS]
    if len(between_tasks):
        starts = [start_text(row) for row in between_tasks.to_dict("records")]
        last = between_tasks["block"].iloc[-1]
        titles = {ALL: "root mean square over blocks", last: f"{last} alone"}
        drawn["distances"] = plots.distances_by_start(between_tasks.assign(start=starts), titles)
    return {name: [(save_figure(figure, folder / "figures", name), CAPTIONS[name])]
            for name, figure in drawn.items()}  # fmt: skip


# What is said.


def _answers(lead: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    """The verdict first; tables of one window."""
    sigma, changes = lead["sigma"], lead["changes"]
    for reason, rows in sigma[sigma["withheld"] != ""].groupby("withheld", sort=False):
        names = rows[["task", "init"]].drop_duplicates().agg(" from ".join, axis=1)
        yield f"No sigma verdict for {', '.join(names)}: {reason}."
    of_profile = changes[(changes["block"] == ALL) & changes["measure"].isin(list(SOURCES))]
    for names, rows in of_profile.groupby(["task_a", "task_b", "init_a", "init_b"], sort=False):
        found = {row["measure"]: row for row in rows.to_dict("records")}
        yield f"Are {names[0]} and {names[1]} closer when pre-trained than from {SCRATCH}? " + (
            "; ".join(f"{SOURCES[name]}: {_closer(row)}" for name, row in found.items()) + "."
        )
    for claim, rows in lead["claims"].groupby("claim", sort=False):
        counts = [
            f"{source} {(of_source['found'] == 'held').sum()} of {len(of_source)}"
            for source, of_source in rows.groupby("source", sort=False)
        ]
        yield f"{claim}: held by {', '.join(counts)}."
    known = sigma.dropna(subset=["low"])
    for null in (null for null in NULLS if f"excess_{null}" in sigma and len(known)):
        records: Any = known.to_dict("records")
        excess = [Estimate.of(row, f"excess_{null}") for row in records]
        beyond = sum(found.excludes() for found in excess)
        yield f"Excess over the {null} null: {beyond} of {len(excess)} intervals exclude 0."
    for (task, init), rows in sigma.dropna(subset=["published"]).groupby(["task", "init"]):
        by_block = rows.set_index("block")
        found = agreement(by_block["sigma"], by_block["published"])
        yield f"{task} from {init} beside {rows['published_row'].iloc[0]}: {found.text()}."


def _closer(row: Mapping[Any, Any]) -> str:
    change = Estimate(row["change"], row["low"], row["high"])
    return f"by {change.text()}, {row['found']}"


def _limits(
    runs: Sequence[VisionRun], *, unfinished: Sequence[str], common: str, window: str
) -> Iterator[str]:
    if unfinished:
        yield f"Not finished and left out: {'; '.join(unfinished)}."
    if common:
        yield f"All tasks are parts of their data sets, {common}, which their names here leave out."
    models = sorted({str(run.flow.settings.get("model")) for run in runs})
    if any(run.published for run in runs) and (common or models != [RESNET]):
        yield (
            "The paper's rows are of ResNet-50 on whole data sets, pre-trained on ImageNet with "
            f"labels; here: {', '.join(models)}."
        )
    elif any(run.published and run.is_pretrained for run in runs):
        yield "The paper's pre-trained rows start from ImageNet with labels, whatever starts here."
    floors = " and ".join(f"{floor:g} % on {task}" for task, floor in FLOORS.items())
    yield f"No sigma verdict below a dense accuracy of {floors}: little was learned."
    num_seeds = min(len(run.flow.seeds) for run in runs)
    if num_seeds == 1:
        yield "One seed gives no interval: no claim is decided."
    else:
        yield (
            f"{num_seeds} seeds a run, which runs share: differences are taken seed by seed. What "
            "is not decided is not shown to be absent."
        )
    yield f"Means over levels {window}; the paper does not say which levels its means cover."
    yield "Distances are sizes: scatter between seeds makes them positive. Shares sum to one."


# Tables.


def _half_width(name: str, high: str) -> Column:
    """Value ± half of its interval."""

    def text(row: Mapping[Any, Any]) -> str:
        half = "" if np.isnan(row[high]) else f" ± {row[high] - row[name]:.3f}"
        return number_text(row[name]) + half

    return text


def _name(row: Mapping[Any, Any]) -> str:
    return f"{row['task']} from {init_text(row['init'])}"


def _lead_table(sigma: pd.DataFrame) -> pd.DataFrame:
    """As the paper's Table 2: each run, then its nulls, its excess and its published row."""
    blocks = list(dict.fromkeys(sigma["block"]))
    lines = {"sigma": ("", _half_width("sigma", "high"))}
    lines |= {f"sigma_{null}": (f"{null} null", signed(f"sigma_{null}")) for null in NULLS}
    excess = f"excess_{INIT}"
    lines[excess] = (f"excess over {INIT}", _half_width(excess, f"{excess}_high"))
    lines["published"] = ("paper", signed("published"))
    rows = []
    for _, of_run in sigma.groupby(["task", "init"], sort=False):
        values: Any = of_run.set_index("block").reindex(blocks).to_dict("records")
        first = of_run.iloc[0]
        classes = " ".join(CLASSES[relevance] for relevance in of_run["relevance"])
        for name, (title, column) in lines.items():
            if name not in of_run or of_run[name].isna().all():
                continue
            is_own = name == "sigma"
            title = _name(dict(first)) if is_own else f"{INDENT}{title}"
            verdict = first["verdict"] if first["withheld"] else classes
            assert callable(column)
            rows.append([title, *map(column, values), verdict if is_own else ""])
    return pd.DataFrame(rows, columns=pd.Index(["sigma", *blocks, "verdict"]))


def _sigma_table(sigma: pd.DataFrame) -> pd.DataFrame:
    columns: dict[str, Column] = {"run": _name, "block": "block", "levels": "window"}
    columns["sigma"] = _half_width("sigma", "high")
    for null in (null for null in (*NULLS, "gaussian") if f"sigma_{null}" in sigma):
        columns[null] = signed(f"sigma_{null}")
        if null in NULLS:
            columns[f"excess over {null}"] = _half_width(f"excess_{null}", f"excess_{null}_high")
    return tabulate(sigma, columns | {"paper": signed("published"), "verdict": "verdict"})


def _accuracy_table(accuracy: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for _, of_run in accuracy.groupby(["task", "init"], sort=False):
        best = of_run["accuracy"].fillna(-1).idxmax()
        found = pd.concat([of_run.iloc[[0, -1]], of_run.loc[[best]]]).to_dict("records")
        rows.append([_name(found[0]), *(_accuracy(row) for row in found)])
    return pd.DataFrame(rows, columns=pd.Index(["run", "dense", "last level", "best level"]))


def _accuracy(row: Mapping[Any, Any]) -> str:
    sd = "" if np.isnan(row["sd"]) else f" ± {row['sd']:.1f}"
    return f"{row['accuracy']:.1f}{sd} % at {100 * row['density']:.3g} % kept"


def _tasks(row: Mapping[Any, Any]) -> str:
    return f"{row['task_a']}, {row['task_b']}" if row["between"] == TASKS else row["task_a"]


def _place(row: Mapping[Any, Any]) -> str:
    return "all blocks" if row["block"] == ALL else row["block"]


def _distance_sections(
    lead: Mapping[str, pd.DataFrame], figures: Mapping[str, list[tuple[Path, str]]]
) -> Iterator[Section]:
    changes, drawn = lead["changes"], figures.get("distances", [])
    if len(changes):
        of_page = changes[changes["measure"].isin(list(SOURCES))]
        yield Section(
            title="With and without pre-training",
            figures=drawn,
            table=tabulate(
                of_page.sort_values("block", kind="stable"),
                {
                    "distance of": lambda row: f"{SOURCES[row['measure']]}, {_place(row)}",
                    "from scratch": number("scratch"),
                    "pre-trained": number("pretrained"),
                    "closer by": _half_width("change", "high"),
                    "closer?": _found,
                    "tasks": _tasks,
                    "pre-trained by": start_text,
                },
            ),
            note="Beyond a null: the change of the distance of sigma less that of the null.",
        )
        drawn = []
    columns: dict[str, Column] = {"of": "subject", "tried on": "source"}
    for claim, rows in lead["claims"].groupby("claim", sort=False):
        table = tabulate(rows, columns | {"verdict": _found, "numbers": "numbers"})
        yield Section(title=f"The paper's claim: {claim}", table=table)
    if len(lead["distances"]):
        yield Section(
            title="Distances between tasks, and between starts",
            figures=drawn,
            table=_distance_table(lead["distances"]),
            note="Root mean square over blocks, or one block alone. p: permutation test over "
            "seeds, and the smallest value that so few seeds can give.",
        )


def _found(row: Mapping[Any, Any]) -> str:
    return f"withheld (intervals: {row['found']})" if row["withheld"] else row["found"]


def _distance_table(distances: pd.DataFrame) -> pd.DataFrame:
    """One row per pair and place, one column per measure; pairs of tasks come first."""
    measures = [name for name in SOURCES if name in set(distances["measure"])]
    keys, rows = ["task_a", "task_b", "init_a", "init_b", "block"], []
    ordered = distances.sort_values("between", kind="stable", ascending=False)
    for _, of_place in ordered.groupby(keys, sort=False):
        found = {row["measure"]: row for row in of_place.to_dict("records")}
        first = found["sigma"]
        cells = [_size(found[name]) if name in found else MISSING for name in measures]
        p = f"{first['p']:.2f} (≥ {first['p_smallest']:.2f})"
        rows.append([_tasks(first), start_text(first), _place(first), *cells, p])
    names = [SOURCES[name] for name in measures]
    head = pd.Index(["between", "start", "over", *names, "p of sigma"])
    return pd.DataFrame(rows, columns=head)


def _size(row: Mapping[Any, Any]) -> str:
    """A distance, which has no sign."""
    return Estimate(row["distance"], row["low"], row["high"]).text().replace("+", "")


def _common_transforms(runs: Sequence[VisionRun]) -> str:
    """``+balanced=10000`` where all tasks have it; empty otherwise."""
    transforms = {split_name(run.task)[1] for run in runs}
    return "+" + "+".join(*transforms) if len(transforms) == 1 and () not in transforms else ""


def _without(frame: pd.DataFrame, common: str) -> pd.DataFrame:
    """Names without the transforms that all tasks share."""
    if not common:
        return frame
    texts = frame.select_dtypes(include=["object", "str"]).columns
    return frame.assign(**{c: frame[c].str.replace(common, "", regex=False) for c in texts})
