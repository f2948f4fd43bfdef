"""The page of `experiments.elastic`.

In: the tables of its folder (`findings`). Out: figures, and a `Page`.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.studies.elastic.config import DEFAULT_MAPS, IDENTITY
from experiments.studies.elastic.exponents import ALL_STAGES
from experiments.studies.elastic.findings import (
    CONTROL,
    ROUTE,
    STATEMENTS,
    came_out,
    count_signs,
    paper_pairs,
    tally_moved,
    tally_statement,
    untested,
)
from experiments.studies.elastic.run import STAGES
from imp_rg.plots import elastic as plots
from imp_rg.plots.style import save_figure
from imp_rg.report.columns import estimate, number, signed, tabulate
from imp_rg.report.page import Page, Section
from imp_rg.report.words import count_text, percent_text
from imp_rg.rg.estimate import MISSING, Estimate
from imp_rg.runs.files import read_csv, read_json

QUESTION = (
    "Which tickets can be moved between networks of different depth, and does the mismatch of σ "
    "between source and target foretell which?"
)
PREDICTORS = {
    "sigma": "mismatch of σ",
    "excess_init": "mismatch of σ beyond the init null",
    "excess_oneshot": "mismatch of σ beyond the oneshot null",
    "param_share": "mismatch of the exponents of surviving counts",
    "sigma_init": "mismatch of the init null's σ, which has learned nothing",
    "sigma_all_levels": "mismatch of σ over all levels",
    "depth_ratio": "control: |ln of the ratio of depths|",
    "depth_difference": "control: |difference of depths|",
}
FORETELLS = {
    "no power": "cannot be told apart from the ratio of depths as a predictor of what is lost (no "
    "power)",
    "beats the ratio of depths": "foretells what is lost better than the ratio of depths",
    "loses to the ratio of depths": "foretells what is lost worse than the ratio of depths",
}
PANELS = {
    "sigma": "mismatch of σ",
    "excess_init": "mismatch of σ − init null",
    "depth_ratio": "control: |ln ratio of depths|",
}
NAMES = ("sigma", "spread", "spread_differences", "transfer", "mismatch", "score", "comparisons",
         "paper_mismatch")  # fmt: skip


def make_page(folder: Path) -> Page:
    """Draws the figures and says what the tables of a folder hold; those that are empty lack."""
    paths = {name: folder / f"{name}.csv" for name in NAMES}
    tables = {
        name: read_csv(path) if path.exists() else pd.DataFrame() for name, path in paths.items()
    }
    sigma, spread = tables["sigma"], tables["spread"]
    sigma_levels = sigma["last_level"].min()
    tables["sigma"] = sigma[sigma["last_level"] == sigma_levels]
    tables["spread"] = spread[spread["last_level"] == sigma_levels]
    settings = read_json(folder / "config.json")
    figures = _draw(tables, settings["ci_level"], folder / "figures")
    return Page(
        title="Elastic tickets",
        question=QUESTION,
        answers=_answers(tables),
        sections=[
            _transfer_section(tables["transfer"], figures["transfer"], settings),
            _map_section(tables),
            _score_section(tables["score"], figures["mismatch"]),
            _sigma_section(tables["sigma"], figures["sigma"]),
            _spread_section(tables["spread"], tables["spread_differences"], figures["spread"]),
            _paper_section(tables["paper_mismatch"]),
            _limits(tables, settings),
        ],
    )


def _draw(tables: Mapping[str, pd.DataFrame], ci_level: float, folder: Path) -> dict[str, Path]:
    transfer = tables["transfer"]
    points = transfer[transfer["counted"]].merge(tables["mismatch"], on=ROUTE)
    drawn = {
        "sigma": plots.sigma_by_block(tables["sigma"], ci_level=ci_level),
        "transfer": plots.transfer_matrix(transfer[_is_default(transfer)]),
        "mismatch": plots.mismatch_scatter(points, PANELS),
        "spread": plots.spread_by_depth(tables["spread"], ci_level=ci_level),
    }
    return {name: save_figure(figure, folder, name) for name, figure in drawn.items()}


def _is_default(transfer: pd.DataFrame) -> pd.Series:
    return transfer["map"].isin((*DEFAULT_MAPS, IDENTITY))


def _answers(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    moved = tally_moved(tables["transfer"])
    found = Counter()
    for statement in STATEMENTS:
        found += tally_statement(tables["comparisons"], statement)
    scores = tables["score"].set_index("predictor")
    signs = count_signs(tables["sigma"])
    return [
        f"Verdict: of the tickets moved to another depth by the default maps, {moved['within']} of "
        f"{moved['counted']} that count come within the margin of the target's own ticket and "
        f"{moved['above_random']} do clearly better than a random mask. Of "
        f"{count_text(sum(found.values()), 'comparison')} with a map that the elastic study found "
        f"worse, {found['worse']} came out worse, {found['better']} better, the others were not "
        f"told apart. The mismatch of σ {FORETELLS[scores['verdict']['sigma']]}.",
        f"Of {count_text(signs['blocks'], 'normal block')}, σ has the sign of the paper's Tables 4 "
        f"to 6 in {signs['as_paper']}, and the sign that untrained weights give (init null) in "
        f"{signs['as_init']}. The excess excludes 0 over the init null in {signs['clear_init']}, "
        f"over the oneshot null in {signs['clear_oneshot']}.",
    ]


def _points(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: Estimate.of(row, name).text(1) if name in row else MISSING


def _depths(row: Mapping[str, Any]) -> str:
    return f"{row['source_depth']} to {row['target_depth']}"


def _within(row: Mapping[str, Any]) -> str:
    return ("yes" if row["transfers"] else "no") + (", but saturated" if row["saturated"] else "")


def _transfer_section(transfer: pd.DataFrame, figure: Path, settings: Mapping[str, Any]) -> Section:
    levels = transfer.groupby(ROUTE)["level"]
    ends = [transfer["level"] == level for level in (levels.transform(min), levels.transform(max))]
    kinds = ("ticket", "own", "dense", "random", "reinit", "shuffled")
    columns = {
        "depths": _depths,
        "map": "map",
        "level": "level",
        "density": lambda row: percent_text(row["density"]),
        "by stage": lambda row: ", ".join(percent_text(row[f"density_{name}"]) for name in STAGES),
        **{name: number(name, 1) for name in kinds if name in transfer},
        "lost to own": _points("loss"),
        "above random": _points("minus_random"),
        "comes within the margin": _within,
    }
    caption = (
        "Points lost at each target to its own ticket at the same density, default maps. The "
        "diagonal is the target's own ticket trained again: the noise of the measure. *: "
        "saturated, a random mask loses less than 3 points to the dense network."
    )
    return Section(
        title="Tickets across depths",
        text=[
            f"Every ticket is trained from rewind step {settings['rewind_step']} of "
            f"{settings['num_steps']}. Own: the target's own tickets, linear in log-density "
            "between their levels. Random: masks permuted within each tensor. Reinit: the same "
            "masks on fresh weights. Shuffled: masks of the copied blocks permuted. Margin: 1 "
            "point, or 2 standard errors of the own ticket."
        ],
        figures=[(figure, caption)],
        table=tabulate(transfer[_is_default(transfer) & (ends[0] | ends[1])], columns),
        note="Default maps: appending, dropping the last blocks. Densities are those that result; "
        "accuracies in percent, means over seeds; the densest and the sparsest level. The others, "
        "further maps, and the density of the nearest own ticket stand in transfer.csv.",
    )


def _map_section(tables: Mapping[str, pd.DataFrame]) -> Section:
    columns = {
        "statement": "statement",
        "depths": _depths,
        "said to be worse": "worse",
        "against": "better",
        "levels": "num_levels",
        "lost more": _points("mean"),
        "came out": came_out,
    }
    none = ["No pair of maps between the same depths has a level that counts."]
    comparisons = tables["comparisons"]
    return Section(
        title="Maps against each other: the statements of the elastic study",
        text=[] if len(comparisons) else none,
        table=tabulate(comparisons, columns),
        note="Points that the first map loses more, seed by seed, averaged over the levels that "
        "count; t-intervals over seeds.",
    )


def _score_section(score: pd.DataFrame, figure: Path) -> Section:
    columns = {
        "predictor": lambda row: PREDICTORS[row["predictor"]],
        "routes": "num_routes",
        "levels and routes": "num_cells",
        "Spearman": signed("spearman", 2),
        "p": number("p_value", 4),
        "minus the ratio of depths": lambda row: Estimate(
            row["difference"], row["low"], row["high"]
        ).text(2),
        "verdict": lambda row: MISSING if row["predictor"] == CONTROL else row["verdict"],
        "same depths: larger mismatch lost more": lambda row: (
            f"{row['agree']} of {row['pairs']}" if row["pairs"] else MISSING
        ),
    }
    return Section(
        title="Does the mismatch of σ foretell the loss?",
        text=[
            "Mismatch: root mean square over target blocks, then over stages, of the target's "
            "exponent minus that of the block that is put there (means over seeds). It grows with "
            "the difference of depths by itself, so it is set against that difference alone."
        ],
        figures=[(figure, "Each point is a route and level that counts; intervals over seeds.")],
        table=tabulate(score, columns),
        note="Spearman's correlation over routes at each level, averaged over levels; p by dealing "
        "the losses out anew; differences with 95 % bootstrap intervals over routes.",
    )


def _sigma_section(sigma: pd.DataFrame, figure: Path) -> Section:
    columns = {
        "depth": "depth",
        "block": "block",
        "σ": estimate("sigma"),
        "paper": signed("paper", 2),
        **{f"{null} null": signed(f"sigma_{null}") for null in ("init", "oneshot", "gaussian")},
        "σ − init": estimate("excess_init"),
        "σ − oneshot": estimate("excess_oneshot"),
    }
    caption = (
        "Exponents of the normal blocks. Points: measured with interval; open circles: the "
        "paper's Tables 4 to 6 (CIFAR-10, full width); other markers: nulls."
    )
    return Section(
        title="Exponents by block: the paper's Tables 4 to 6",
        figures=[(figure, caption)],
        table=tabulate(sigma, columns),
        note=f"Paper's estimator over levels 0 to {sigma['last_level'].iloc[0]}; those over all "
        "levels stand in sigma.csv, where a block that lost all its weights has none. The paper "
        "does not say how many levels it averaged.",
    )


def _spread_section(spread: pd.DataFrame, differences: pd.DataFrame, figure: Path) -> Section:
    columns = {
        "depth": "depth",
        "stage": "stage",
        "exponent": lambda row: row["quantity"].replace("_", ", "),
        "spread": estimate("sd"),
        "of the mean": number("sd_of_mean"),
        "corrected": number("sd_corrected"),
        "range": number("range"),
        "paper": number("paper_sd"),
    }
    text = ["Only one depth has several normal blocks a stage: no spread to compare."]
    if len(differences):
        of_sigma = differences[
            (differences["quantity"] == "sigma")
            & (differences["stage"] == ALL_STAGES)
            & (differences["last_level"] == spread["last_level"].iloc[0])
        ]
        text = [
            f"In {(of_sigma['low'] > 0).sum()} of {count_text(len(of_sigma), 'pair')} of depths σ "
            "spreads clearly more over the blocks of a stage of the deeper network (Welch's "
            "interval, mean of the stages); all differences stand in spread_differences.csv."
        ]
    return Section(
        title="Are smaller models more uniform?",
        text=text,
        figures=[(figure, "Spread by depth, with intervals over seeds; open circles: printed.")],
        table=tabulate(spread, columns),
        note="Spread: standard deviation over the normal blocks of a stage, of each seed, then "
        "averaged over seeds; scatter between seeds adds to it. Of the mean: of exponents averaged "
        "over seeds first. Corrected: the scatter taken out. ResNet-14 has one normal block a "
        "stage, so no spread. Normal blocks of a stage have equal tensors, so the Gaussian null "
        "has none but for the scatter of its scales.",
    )


def _paper_section(paper: pd.DataFrame) -> Section:
    pairs = paper_pairs(paper)
    more = {
        name: (pairs[f"{name}_worse"] > pairs[f"{name}_better"]).sum() for name in ("rms", "stage1")
    }
    columns = {
        "map": "map",
        "depths": _depths,
        "blocks of the target": "blocks",
        "the study found it": "expected",
        **{stage.replace("e", "e "): number(stage) for stage in STAGES},
        "all stages": number("rms"),
    }
    return Section(
        title="What the paper's own tables say of its counter-examples",
        text=[
            "By the paper's Tables 4 to 6, the map that the elastic study found worse has the "
            f"larger mismatch in {more['rms']} of {len(pairs)} comparisons over all stages and in "
            f"{more['stage1']} of {len(pairs)} in stage 1."
        ],
        table=tabulate(paper, columns),
        note="Root mean square mismatch of the σ that are printed, to two decimals and without "
        "intervals, in Tables 4 to 6.",
    )


def _limits(tables: Mapping[str, pd.DataFrame], settings: Mapping[str, Any]) -> Section:
    depths = sorted(tables["sigma"]["depth"].unique().tolist())
    dataset, moved = settings["dataset"], tally_moved(tables["transfer"])
    out = moved["moved"] - moved["counted"]
    left = {name: untested(name, depths, dataset) for name in STATEMENTS}
    return Section(
        title="Limits",
        items=[
            f"Run on {dataset}, depths {', '.join(map(str, depths))}, width "
            f"{settings['width']:g}, {count_text(settings['seeds'], 'seed')}.",
            *(f"Not tested, {name}: {what}." for name, what in left.items() if what),
            "Routes between the same depths share networks, so intervals over routes are rather "
            "too narrow than too wide.",
            f"{count_text(out, 'moved ticket')} did not count (saturated, or beyond the densities "
            "of the target's own tickets).",
        ],
    )
