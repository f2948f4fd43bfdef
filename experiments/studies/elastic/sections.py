"""The sections of the page of `experiments.elastic`: tables as text, figures with captions.

In: its tables and figures. Out: `Section`s.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.studies.elastic import score as elastic_score
from experiments.studies.elastic import tables as elastic_tables
from experiments.studies.elastic import words
from experiments.studies.elastic.config import DEFAULT_MAPS, IDENTITY, Config
from imp_rg.plots.style import Frame
from imp_rg.report.page import Section
from imp_rg.report.words import (
    MISSING,
    decimal_text,
    estimate_text,
    number_text,
    percent_text,
)


def make_sections(config: Config, tables: Any, figures: Mapping[str, Path]) -> list[Section]:
    """All sections of the page.

    Args:
      config: Settings.
      tables: `experiments.studies.elastic.page.Tables`.
      figures: SVG files by name.
    """
    return [
        _statement_section(config, tables),
        _transfer_section(tables, figures["transfer"], config),
        _map_section(tables),
        _density_section(tables.transfer),
        _score_section(tables.score, figures["mismatch"]),
        _sigma_section(config, tables.sigma, figures["sigma"]),
        _spread_section(config, tables, figures["spread"]),
        _paper_section(tables.paper_mismatch),
    ]


def _statement_section(config: Config, tables: Any) -> Section:
    def tested(title: str, statement: str) -> str:
        seen = words.comparison_sentence(tables.comparisons, statement)
        left = words.untested(statement, config.depths, config.dataset)
        return f"{title}: {seen}. Not tested: {left}."

    left = "nothing" if config.dataset.startswith("cifar10") else "CIFAR-10"
    return Section(
        title="The statements of the elastic study",
        text=[
            f"Tested on {config.dataset}, depths {', '.join(map(str, config.depths))}, width "
            f"{config.width:g}, {config.seeds} seeds. Of two maps, the points that the first loses "
            "more, seed by seed, averaged over the levels that count.",
            f"Tickets work at other depths: {words.margin_tally(tables.transfer)} (default "
            f"maps; the matrix is below). Not tested: {left}.",
            tested("Unique blocks matter, four ≥ two ≫ one", "unique blocks"),
            tested("Earlier blocks are better copied than later ones", "earlier blocks copied"),
            tested("Dropping the first blocks is worse", "first blocks dropped"),
        ],
    )


def _transfer_section(tables: Any, figure: Path, config: Config) -> Section:
    rows = tables.transfer[tables.transfer["map"].isin((*DEFAULT_MAPS, IDENTITY))]
    rows = rows[_is_level(rows, "min") | _is_level(rows, "max")]
    caption = (
        "Points lost at each target to its own ticket at the same density, default maps "
        "(appending, dropping the last blocks). The diagonal is the target's own ticket trained "
        "again: the noise of the measure. *: saturated, a random mask loses less than 3 points to "
        "the dense network."
    )
    return Section(
        title="Tickets across depths",
        text=[f"Every ticket is trained from the rewind step (step {config.train.first_step} of "
              f"{config.train.num_steps}). Own: the target's own tickets, linear in log-density "
              "between their levels. Random: masks permuted within each tensor. Reinit: the same "
              "masks on fresh weights. Shuffled: masks of the copied blocks permuted."],
        figures=[(figure, caption)],
        head=("way", "level", "density", "ticket", "own", "dense", "random", "reinit", "shuffled",
              "lost to own", "above random", "comes within the margin"),
        rows=[_transfer_row(row) for row in rows.to_dict("records")],
        note="Accuracies in percent, means over seeds; the densest and the sparsest level. All "
        "levels and further maps stand in transfer.csv.",
    )  # fmt: skip


def _is_level(transfer: Frame, which: str) -> Frame:
    """Rows at the first (``min``) or last (``max``) level of their way."""
    return transfer["level"] == transfer.groupby(elastic_score.ROUTE)["level"].transform(which)


def _transfer_row(row: dict) -> tuple[str, ...]:
    accuracies = (row.get(name, np.nan) for name in
                  ("ticket", "own", "dense", "random", "reinit", "shuffled"))  # fmt: skip
    verdict = "yes" if row["transfers"] else "no"
    return (
        _way(row),
        str(row["level"]),
        percent_text(row["density"]),
        *(decimal_text(value, 1) for value in accuracies),
        words.points_text(row["loss"], row["loss_low"], row["loss_high"]),
        words.points_text(
            *(row.get(f"minus_random{end}", np.nan) for end in ("", "_low", "_high"))
        ),
        f"{verdict}, but saturated" if row["saturated"] else verdict,
    )


def _way(row: dict) -> str:
    return f"{row['source_depth']} to {row['target_depth']}, {row['map']}"


def _map_section(tables: Any) -> Section:
    rows = tables.comparisons.to_dict("records")
    return Section(
        title="Maps against each other",
        text=[] if rows else ["No pair of maps between the same depths has a level that counts."],
        head=("statement", "depths", "said to be worse", "against", "levels", "lost more"),
        rows=[
            (row["statement"], f"{row['source_depth']} to {row['target_depth']}", row["worse"],
             row["better"], str(row["num_levels"]),
             words.points_text(row["mean"], row["mean_low"], row["mean_high"]))
            for row in rows
        ],
        note="Points, t-intervals over seeds.",
    )  # fmt: skip


def _density_section(transfer: Frame) -> Section:
    rows = transfer[_is_level(transfer, "max")]
    stages = [f"density_{stage}" for stage in elastic_tables.STAGES]
    return Section(
        title="Realised densities",
        text=["A moved ticket has the density that results. It is compared with the target's own "
              "tickets at that density; the nearest of their levels is given."],
        head=("way", "level", "density", *elastic_tables.STAGES, "nearest own ticket"),
        rows=[
            (_way(row), str(row["level"]), percent_text(row["density"]),
             *(percent_text(row[stage]) for stage in stages), percent_text(row["own_density"]))
            for row in rows.to_dict("records")
        ],
        note="At the sparsest level; the others stand in transfer.csv. The ways from a depth to "
        "itself show the densities of its own tickets by stage.",
    )  # fmt: skip


def _score_section(score: Frame, figure: Path) -> Section:
    return Section(
        title="Does the mismatch of σ foretell the loss?",
        text=["Mismatch: root mean square over target blocks, then over stages, of the target's "
              "exponent minus that of the block that is put there (means over seeds). It grows "
              "with the difference of depths by itself, so it is set against that difference "
              "alone. Spearman's correlation over ways between depths, at each level, averaged "
              "over levels; p by dealing the losses out anew; differences with 95 % bootstrap "
              "intervals over ways. Ways between the same depths share networks, so intervals are "
              "rather too narrow than too wide."],
        figures=[(figure, "Each point is a way and level that counts; intervals over seeds.")],
        head=("predictor", "ways", "cells", "Spearman", "p", "minus the ratio of depths",
              "verdict", "same depths: larger mismatch lost more"),
        rows=[
            (words.PREDICTORS[row["predictor"]], str(row["num_routes"]),
             str(row["num_cells"]), words.signed(row["spearman"]),
             decimal_text(row["p_value"], 4),
             f"{words.signed(row['difference'])} "
             f"{words.bracket(row['low'], row['high'])}",
             MISSING if row["predictor"] == elastic_score.CONTROL else row["verdict"],
             f"{row['agree']} of {row['pairs']}" if row["pairs"] else MISSING)
            for row in score.to_dict("records")
        ],
    )  # fmt: skip


def _sigma_section(config: Config, sigma: Frame, figure: Path) -> Section:
    rows = elastic_tables.of_level(sigma, config.sigma_levels).to_dict("records")
    caption = (
        "Exponents of the normal blocks. Points: measured with interval; open circles: the "
        "paper's Tables 4 to 6 (CIFAR-10, full width); other markers: nulls."
    )
    return Section(
        title="Exponents by block: the paper's Tables 4 to 6",
        text=[f"Paper's estimator over levels 0 to {config.sigma_levels}; those over all levels "
              "stand in sigma.csv, where a block that lost all its weights has none. The paper "
              "does not say how many levels it averaged."],
        figures=[(figure, caption)],
        head=("depth", "block", "σ", "paper", "init null", "oneshot null", "gaussian null",
              "σ − init", "σ − oneshot"),
        rows=[
            (str(row["depth"]), row["block"],
             estimate_text(row["sigma"], row["sigma_low"], row["sigma_high"]),
             f"{row['paper']:+.2f}",
             *(number_text(row[f"sigma_{null}"]) for null in elastic_tables.NULLS),
             *(estimate_text(row[f"excess_{null}"], row[f"excess_{null}_low"],
                             row[f"excess_{null}_high"]) for null in ("init", "oneshot")))
            for row in rows
        ],
    )  # fmt: skip


def _spread_section(config: Config, tables: Any, figure: Path) -> Section:
    rows = elastic_tables.of_level(tables.spread, config.sigma_levels).to_dict("records")
    return Section(
        title="Are smaller models more uniform?",
        text=["Spread: standard deviation of σ over the normal blocks of a stage, of each seed, "
              "then averaged over seeds; scatter between seeds adds to it. Of the mean: of the "
              "exponents averaged over seeds first. Corrected: the scatter taken out. ResNet-14 "
              "has one normal block a stage, so no spread. Normal blocks of a stage have equal "
              "tensors, so the Gaussian null has none inside a stage, but for the scatter of the "
              "scales that were drawn."],
        figures=[(figure, "Spread by depth, with intervals over seeds; open circles: printed.")],
        head=("depth", "stage", "exponent", "spread", "of the mean", "corrected", "range", "paper"),
        rows=[
            (str(row["depth"]), row["stage"], row["quantity"].replace("_", ", "),
             estimate_text(row["sd"], row["sd_low"], row["sd_high"]),
             *(decimal_text(row[name], 3) for name in
               ("sd_of_mean", "sd_corrected", "range", "paper_sd")))
            for row in rows
        ],
        note="Differences between depths with Welch's intervals stand in spread_differences.csv.",
    )  # fmt: skip


def _paper_section(paper: Frame) -> Section:
    return Section(
        title="What the paper's own tables say of its counter-examples",
        text=[words.paper_sentence(paper),
              *(f"{pair['source_depth']} to {pair['target_depth']}: {pair['worse_map']} (found "
                f"worse) {pair['worse_rms']:.3f}, {pair['better_map']} {pair['better_rms']:.3f}; "
                f"in stage 1 {pair['worse_stage1']:.3f} and {pair['better_stage1']:.3f}."
                for pair in words.paper_pairs(paper))],
        head=("map", "depths", "blocks of the target", "the study found it", "stage 1", "stage 2",
              "stage 3", "all stages"),
        rows=[
            (row["map"], f"{row['source_depth']} to {row['target_depth']}", row["blocks"],
             row["expected"],
             *(f"{row[name]:.3f}" for name in (*elastic_tables.STAGES, "rms")))
            for row in paper.to_dict("records")
        ],
        note="Root mean square mismatch of the σ printed in Tables 4 to 6. Printed to two "
        "decimals, without intervals.",
    )  # fmt: skip
