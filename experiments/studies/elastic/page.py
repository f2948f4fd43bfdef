"""The tables, figures and page of `experiments.elastic`.

In: finished runs and cells. Out: the CSVs of `tables` and `score`, ``report.html``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from rich.console import Console

from experiments.shell.study import AS_IS
from experiments.studies.elastic import score as elastic_score
from experiments.studies.elastic import tables as elastic_tables
from experiments.studies.elastic import words
from experiments.studies.elastic.cells import KEY, Cell
from experiments.studies.elastic.config import DEFAULT_MAPS, IDENTITY, Config
from experiments.studies.elastic.sections import make_sections
from imp_rg.plots import elastic as plots
from imp_rg.plots.style import save_figure
from imp_rg.report.page import write_page
from imp_rg.runs import read
from imp_rg.runs.files import read_csv, write_csv

SCORE_SEED = 0

PANELS = {
    "sigma": "mismatch of σ",
    "excess_init": "mismatch of σ − init null",
    "depth_ratio": "control: |ln ratio of depths|",
}


class Tables(NamedTuple):
    """What the page is made of; a CSV each.

    Attributes:
      sigma: Exponents by block.
      spread: Over the blocks of a stage.
      spread_differences: Between depths.
      losses: Every cell and seed beside the target's own tickets.
      transfer: Means over seeds.
      mismatch: Predictors.
      score: Of the predictors.
      comparisons: Of maps.
      paper_mismatch: Of the printed exponents.
    """

    sigma: pd.DataFrame
    spread: pd.DataFrame
    spread_differences: pd.DataFrame
    losses: pd.DataFrame
    transfer: pd.DataFrame
    mismatch: pd.DataFrame
    score: pd.DataFrame
    comparisons: pd.DataFrame
    paper_mismatch: pd.DataFrame


def report(
    config: Config,
    folder: Path,
    runs: Mapping[int, Path],
    cells: Sequence[Cell],
    console: Console,
) -> Path:
    """Writes tables, figures and page, and prints the verdict; returns the page."""
    tables = make_tables(config, read_csv(folder / "cells.csv"), runs, cells)
    for name, table in tables._asdict().items():
        if len(table):
            write_csv(folder / f"{name}.csv", table)
    answers = _answers(config, tables)
    for sentence in answers:
        console.print(sentence, **AS_IS)
    return write_page(
        folder / "report.html",
        title="Elastic tickets",
        question="Which tickets can be moved between networks of different depth, and does the "
        "mismatch of σ between source and target foretell which?",
        answers=answers,
        sections=make_sections(config, tables, _draw(config, tables, folder)),
    )


def make_tables(
    config: Config, trained: pd.DataFrame, runs: Mapping[int, Path], cells: Sequence[Cell]
) -> Tables:
    """All tables; of ``cells.csv`` what was asked for counts.

    Args:
      config: Settings.
      trained: ``cells.csv``.
      runs: Finished run of each depth.
      cells: Those asked for.
    """
    ci_level = config.ci_level
    flows = {depth: read(path) for depth, path in runs.items()}
    exponents = {
        level: {d: elastic_tables.read_exponents(flow, d, last_level=level)
                for d, flow in flows.items()}
        for level in dict.fromkeys((config.sigma_levels, config.levels))
    }  # fmt: skip
    shown = [found for of_level in exponents.values() for found in of_level.values()]
    wanted = {cell.key for cell in cells}
    is_wanted = [key in wanted for key in trained[KEY].itertuples(index=False, name=None)]
    metrics = {depth: flow.metrics for depth, flow in flows.items()}
    losses = elastic_score.loss_frame(trained[is_wanted], metrics)
    transfer = elastic_score.transfer_frame(losses, ci_level=ci_level)
    routes = list(dict.fromkeys(cell.route for cell in cells))
    mismatch = elastic_score.mismatch_frame(
        routes, exponents[config.sigma_levels], exponents[config.levels]
    )
    return Tables(
        sigma=elastic_tables.sigma_frame(shown, ci_level=ci_level),
        spread=elastic_tables.spread_frame(shown, ci_level=ci_level),
        spread_differences=elastic_tables.spread_differences(shown, ci_level=ci_level),
        losses=losses,
        transfer=transfer,
        mismatch=mismatch,
        score=elastic_score.score_frame(mismatch, transfer, seed=SCORE_SEED),
        comparisons=elastic_score.compare_frame(losses, transfer, ci_level=ci_level),
        paper_mismatch=elastic_tables.paper_frame(),
    )


def _answers(config: Config, tables: Tables) -> list[str]:
    def tally(statement: str) -> str:
        return words.tally(tables.comparisons, statement)

    return [
        words.verdict(tables),
        words.transfer_sentence(tables.transfer),
        f"Maps that the elastic study found worse: copying fewer unique blocks, "
        f"{tally('unique blocks')}; copying later blocks, {tally('earlier blocks copied')}; "
        f"dropping the first blocks, {tally('first blocks dropped')}.",
        words.score_sentence(tables.score),
        words.sigma_sentence(tables.sigma, config.sigma_levels),
        words.spread_sentence(tables.spread_differences, config.sigma_levels),
        words.paper_sentence(tables.paper_mismatch),
    ]


def _draw(config: Config, tables: Tables, folder: Path) -> dict[str, Path]:
    ci_level, transfer = config.ci_level, tables.transfer
    sigma, spread = (
        elastic_tables.of_level(frame, config.sigma_levels)
        for frame in (tables.sigma, tables.spread)
    )
    is_square = transfer["map"].isin((*DEFAULT_MAPS, IDENTITY))
    points = transfer[transfer["counted"]].merge(tables.mismatch, on=elastic_score.ROUTE)
    drawn = {
        "sigma": plots.sigma_by_block(sigma, ci_level=ci_level),
        "transfer": plots.transfer_matrix(transfer[is_square]),
        "mismatch": plots.mismatch_scatter(points, PANELS),
        "spread": plots.spread_by_depth(spread, ci_level=ci_level),
    }
    return {name: save_figure(f, folder / "figures", name) for name, f in drawn.items()}
