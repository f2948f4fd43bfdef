"""A pre-trained encoder pruned without training: its flow, its exponents and their page.

In: a checkpoint. Out: ``sigma.csv``, ``pooler.csv``, a figure and a `Page`.
"""

from pathlib import Path

import jax
import numpy as np
import pandas as pd

from experiments.studies.language.config import InitConfig
from experiments.studies.language.findings import kind_of, layer_of, published_frame
from experiments.studies.language.page import published_sentence
from imp_rg.flow import FlowTrajectory
from imp_rg.foreign.nulls import pruned_flows
from imp_rg.imp.prune import prune_schedule
from imp_rg.models.bert import BertModel
from imp_rg.nulls import gaussian_flow
from imp_rg.plots.language import init_sigma
from imp_rg.plots.style import save_figure
from imp_rg.pytree import leaf_paths, to_flat
from imp_rg.report.columns import Column, number, signed, tabulate
from imp_rg.report.page import Page, Section
from imp_rg.runs import Flow
from imp_rg.runs.files import read_csv, read_json
from imp_rg.runs.regroup import regroup
from imp_rg.types import Params

PARTITIONS = {"layer": layer_of, "kind": kind_of}


def init_flow(model: BertModel, params: Params, config: InitConfig) -> Flow:
    """The flow of weights that are pruned and never trained, by single matrix.

    One "seed": nothing is random. As of any checkpoint alone, it stands as `trained`, with the
    closed form of Gaussian weights as its null.
    """
    blocks = model.partition("tensor")
    leaves = {path: np.asarray(leaf) for path, leaf in to_flat(params).items()}
    prunable = dict(zip(leaf_paths(params), blocks.prunable, strict=True))
    dense = {path: leaf for path, leaf in leaves.items() if prunable[path]}
    unpruned = sum(float(np.abs(leaves[path]).sum()) for path in prunable if path not in dense)
    num_prunable = sum(blocks.sizes)
    schedule = prune_schedule((num_prunable,), config.prune, num_levels=config.levels + 1)
    pruned = pruned_flows(
        dense, None, unpruned=(unpruned, 0.0), blocks=blocks, schedule=schedule, seed=0
    )["oneshot"]
    gaussian = gaussian_flow(
        np.array([leaves[path].size for path in prunable]),
        np.array([leaves[path].std() for path in prunable], float),
        unpruned=unpruned,
        blocks=blocks,
        schedule=schedule,
    )

    def one_seed(point):
        return jax.tree.map(lambda field: np.asarray(field, float)[None], point)

    trajectory = FlowTrajectory(
        blocks=blocks,
        num_kept=num_prunable - schedule[:, 0].cumsum(),
        points={"trained": one_seed(pruned)},
        nulls={"gaussian": one_seed(gaussian)},
    )
    return Flow(
        name=config.checkpoint,
        seeds=(0,),
        trajectory=trajectory,
        settings={},
        metrics=pd.DataFrame(),
    )


def untrained_frame(flow: Flow) -> pd.DataFrame:
    """``sigma.csv``: one row a layer or kind.

    Columns: partition, block, weights (their number), mean_size (mean absolute weight before
    pruning), sigma (paper's estimator, over all prunable weights), sigma_blocks (over the listed
    blocks only), slope, gaussian (sigma of the null), last_density.
    """
    frames = []
    for partition, group_of in PARTITIONS.items():
        grouped = regroup(flow, group_of)
        trajectory, spectrum = grouped.trajectory, grouped.spectrum()
        listed = slice(trajectory.blocks.num_listed)
        sizes, point = np.array(trajectory.blocks.sizes), trajectory.points["trained"]
        columns = {
            "partition": partition,
            "block": trajectory.blocks.names[listed],
            "weights": sizes[listed],
            "mean_size": (point.magnitude[0, 0] / sizes)[listed],
            "sigma": spectrum.sigma["paper"][listed],
            "sigma_blocks": grouped.spectrum(denominator="blocks").sigma["paper"],
            "slope": spectrum.sigma["slope"][listed],
            "gaussian": grouped.null_spectrum("gaussian").sigma["paper"][listed],
            "last_density": (point.surviving[0, -1] / sizes)[listed],
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def pooler_frame(flow: Flow, *, is_fresh: bool) -> pd.DataFrame:
    """One row per level: weights that the pooler has left, and whether it was in the checkpoint."""
    trajectory = flow.trajectory
    pooler = trajectory.blocks.names.index("pooler")
    surviving = trajectory.points["trained"].surviving[0, :, pooler]
    columns = {"level": range(len(surviving)), "surviving": surviving, "is_fresh": is_fresh}
    return pd.DataFrame(columns)


def sigma_table(table: pd.DataFrame, partition: str) -> pd.DataFrame:
    """Exponents of one partition as text; of 12 layers with the paper's Table 3 beside."""
    rows = table[table["partition"] == partition]
    columns: dict[str, Column] = {
        partition: "block",
        "sigma, pruned untrained": signed("sigma"),
        "Gaussian weights": signed("gaussian"),
        "mean |weight|": number("mean_size", 4),
        "last density": lambda row: f"{100 * row['last_density']:.1f} %",
    }
    beside = published_frame(rows) if partition == "layer" else None
    if beside is not None:
        printed = beside.groupby("block")["sigma"]
        low, high = printed.min(), printed.max()
        columns["paper's Table 3, range over tasks"] = lambda row: (
            f"{low[row['block']]:+.3f} to {high[row['block']]:+.3f}"
        )
    return tabulate(rows, columns)


def make_page(folder: Path) -> Page:
    """Draws the figure and makes the page."""
    table, pooler = read_csv(folder / "sigma.csv"), read_csv(folder / "pooler.csv")
    name = Path(read_json(folder / "config.json")["checkpoint"]).name
    figure = save_figure(init_sigma(table), folder / "figures", "sigma")
    caption = (
        "init: the checkpoint's weights. gaussian: weights with the size and the standard "
        "deviation of each matrix."
    )
    return Page(
        title=f"Pruning {name} without training",
        question="Which layers of a pre-trained encoder keep their weights when it is pruned by "
        "magnitude, before any task is learned?",
        answers=answers(table),
        sections=[
            Section(title="Exponents of untrained pruning", figures=[(figure, caption)]),
            *(Section(title=f"By {p}", table=sigma_table(table, p)) for p in PARTITIONS),
            Section(title="What this is, and is not", text=limits(pooler)),
        ],
    )


def answers(table: pd.DataFrame) -> list[str]:
    """Ranges of sigma, and how far Gaussian weights give it."""
    sentences = []
    for partition in PARTITIONS:
        rows = table[table["partition"] == partition].set_index("block")
        sigma, off = rows["sigma"], (rows["sigma"] - rows["gaussian"]).abs()
        sentences.append(
            f"By {partition} sigma without training runs from {sigma.min():+.3f} "
            f"({sigma.idxmin()}) to {sigma.max():+.3f} ({sigma.idxmax()}); one standard deviation "
            f"a matrix gives it within {off.max():.3f} ({off.idxmax()})."
        )
    of_layer = table[table["partition"] == "layer"]
    beside = published_frame(of_layer)
    return sentences if beside is None else [*sentences, published_sentence(of_layer, beside)]


def limits(pooler: pd.DataFrame) -> list[str]:
    """What a reader must know before believing the numbers."""
    text = [
        "Shares are of all prunable weights, those of the pooler included, which is in no layer "
        "and of no kind; sigma_blocks in sigma.csv leaves them out.",
        "One checkpoint has no seeds, so there are no intervals. What IMP adds is measured by "
        "experiments.language_flow.",
    ]
    empty = pooler[pooler["surviving"] == 0]
    if len(empty):
        text.append(f"The pooler has no weight left from level {empty['level'].iloc[0]} on.")
    if pooler["is_fresh"].any():
        text.append("The checkpoint holds no pooler; a fresh random one is pruned with the rest.")
    return text
