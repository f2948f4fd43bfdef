"""What is the flow of a pruning run that is already there, and do two runs share their exponents?

Reads checkpoints of anybody's pruning run, ours or other code's, without retraining and without a
GPU: one file a level, several seeds as sub-folders, the level folders of open_lth, or one
checkpoint alone. Reports which blocks are relevant, what pruning without learning would give, and,
of several runs, whether they can be told apart.

    python -m experiments.analyse my_run/                        # level0.pt, level1.pt, ...
    python -m experiments.analyse run_a/ run_b/ --against paper  # compared, and with the tables
    python -m experiments.analyse model.safetensors              # one checkpoint: one-shot flow
    python -m experiments.analyse my_run/ --blocks blocks.toml   # own blocks

Ten levels of an 85M-weight model, with nulls and observables, take 39 s and 2.5 GB on 2 CPU cores.

Source: Redman, Chen, Wang, Dogra, arXiv:2110.03210, Secs. 4 and 5.
"""

import dataclasses
import hashlib
import os
import time
from pathlib import Path
from typing import Literal

import pandas as pd
import tyro

from experiments.shell import cli
from experiments.shell.settings import ReadingSettings, settings
from experiments.shell.study import Study
from imp_rg.config import PruneConfig, require
from imp_rg.report import write_report
from imp_rg.report.columns import number, significant, tabulate
from imp_rg.report.compare_page import write_comparison_report
from imp_rg.report.lead import lead_frame, lead_table
from imp_rg.report.paper import AGREEMENT
from imp_rg.runs import Flow, compare, read
from imp_rg.runs.comparison_tables import RunEntry, comparison_frame, write_comparison
from imp_rg.runs.folder import RunFolder
from imp_rg.runs.paper_tables import (
    NULL_SUFFIX,
    PaperComparison,
    paper_comparison,
    write_paper_comparison,
)
from imp_rg.runs.save import write_flow


@settings
class Config(ReadingSettings):
    """Reads pruning runs from their checkpoints and compares them.

    Attributes:
      runs: Run folders, folders of checkpoints with one file a level, or single checkpoints.
      blocks: auto (by the names of the tensors), cifar-resnet, resnet50-stages, resnet-blocks,
        bert-layers, vit-layers, per-tensor, own patterns as NAME=PATTERN[+PATTERN],NAME=..., or a
        TOML file.
      against: Published tables to put beside the runs: paper.
      levels: Last level of the one-shot flow of a single checkpoint.
      prune_fraction: Share of the remaining weights that each level of that flow removes.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    blocks: str = "auto"
    against: Literal["paper"] | None = None
    levels: int = 12
    prune_fraction: float = 0.2

    def __post_init__(self):
        require(self.levels >= 1, "levels", "must be at least 1", self.levels)
        super().__post_init__()


def run(config: Config) -> Path:
    """Reads, measures, compares; returns the folder of the results."""
    require(len(config.runs) > 0, "runs", "give at least one folder or checkpoint", "none")
    study = Study("analyse")
    out = config.out or _default_folder(config)
    names = _run_names(config.runs)
    folder = _open_folder(config, out, names) if len(names) > 1 else None
    flows = [
        _analyse_one(config, path, name, out / name if folder else out, study)
        for path, name in zip(config.runs, names, strict=True)
    ]
    if folder:
        comparison = compare(flows, ci_level=config.ci_level)
        write_comparison(out, comparison, [_entry(flow) for flow in flows])
        study.table(tabulate(comparison_frame(comparison), PAIRS))
    if config.against == "paper":
        beside = [_beside_paper(config, flow) for flow in flows]
        write_paper_comparison(out, beside)
        study.table(_paper_table(beside))
    if folder:
        study.describe(folder)
        study.say(f"comparison: {write_comparison_report(out)}")
    return out


def _analyse_one(config: Config, path: Path, name: str, folder: Path, study: Study) -> Flow:
    """Measures one run and writes its folder and page."""
    began = time.monotonic()
    flow = dataclasses.replace(_read(config, path, study), name=name)
    write_flow(
        flow,
        folder,
        ci_level=config.ci_level,
        command=study.command,
        seconds=time.monotonic() - began,
        fresh=config.fresh,
    )
    beside = _beside_paper(config, flow) if config.against == "paper" else None
    if beside is not None and len(beside.rows):
        write_paper_comparison(folder, [beside])
    page = write_report(folder)
    spectrum = flow.spectrum_frame(ci_level=config.ci_level)
    denominator = flow.settings.get("denominator", "prunable")
    study.table(lead_table(lead_frame(spectrum, denominator=denominator)))
    study.say(f"report: {page}")
    return flow


def _open_folder(config: Config, out: Path, names: list[str]) -> RunFolder:
    """Takes the folder of a comparison, unless it holds something else."""
    settings = {
        "runs": dict(zip(names, map(str, config.runs), strict=True)),
        "blocks": config.blocks,
        "against": config.against,
        "ci_level": config.ci_level,
        "is_comparison": True,
    }
    return RunFolder(out, settings, fresh=config.fresh)


def _entry(flow: Flow) -> RunEntry:
    """A run as the page of a comparison introduces it."""
    density = flow.trajectory.density
    notes: tuple[str, ...] = ()
    if flow.settings.get("kind") == "single":
        notes = ("One checkpoint: the flow of one-shot pruning, not of IMP.",)
    return RunEntry(
        name=flow.name,
        link=f"{flow.name}/report.html",
        description=f"{flow.settings.get('source') or flow.settings.get('model')}: "
        f"{len(flow.seeds)} seeds, density {density[0]:.3g} to {density[-1]:.3g}",
        notes=notes,
    )


PAIRS = {
    "runs": lambda row: f"{row['run_a']}, {row['run_b']}",
    "measure": "measure",
    "distance": number("distance"),
    "p": significant("p", 3),
    "smallest possible": significant("p_smallest", 3),
    "p, Holm": significant("p_holm", 3),
    "verdict": "verdict",
}


def _beside_paper(config: Config, flow: Flow) -> PaperComparison:
    spectrum = flow.spectrum_frame(ci_level=config.ci_level)
    return paper_comparison(spectrum, run=flow.name, density=flow.trajectory.density.tolist())


def _paper_table(beside: list[PaperComparison]) -> pd.DataFrame:
    """Trained weights and the nulls beside each published row."""
    rows = pd.concat([comparison.rows for comparison in beside if len(comparison.rows)])
    of_interest = rows["point"].eq("trained") | rows["point"].str.endswith(NULL_SUFFIX)
    return tabulate(rows[of_interest & rows["denominator"].eq("prunable")], AGREEMENT)


def _read(config: Config, path: Path, study: Study) -> Flow:
    """Reads one run; shows what is being read, and says what was recognised."""
    with study.console.status(f"{path}: opening") as status:

        def on_level(seed: str, level: int) -> None:
            cli.stop_if_asked()
            status.update(f"{path}: seed {seed}, level {level}")

        flow = read(
            path,
            blocks=config.blocks,
            one_shot=PruneConfig(prune_fraction=config.prune_fraction),
            levels=config.levels,
            observe=True,
            on_level=on_level,
        )
    study.say(_headline(path, flow))
    return flow


def _headline(path: Path, flow: Flow) -> str:
    trajectory = flow.trajectory
    blocks = trajectory.blocks
    kind = flow.settings.get("kind", "run of ours")
    others = flow.settings.get("other_parts")
    aside = f" · also there, not read: {', '.join(others)}" if others else ""
    return (
        f"{path}: {kind}, {len(flow.seeds)} seeds, levels 0 to {len(trajectory.density) - 1}, "
        f"density {trajectory.density[0]:.3g} to {trajectory.density[-1]:.3g} · blocks "
        f"{flow.settings.get('blocks')}: {blocks.num_listed} · "
        f"{sum(blocks.sizes):,} prunable weights{aside}"
    )


def _run_names(paths: tuple[Path, ...]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    absolute = [path.resolve() for path in paths]
    require(len(set(absolute)) == len(absolute), "runs", "must differ from each other", "one twice")
    for depth in range(1, max(len(path.parts) for path in absolute) + 1):
        names = ["-".join(path.with_suffix("").parts[-depth:]) for path in absolute]
        if len(set(names)) == len(names):
            return names
    return [str(i) for i in range(len(absolute))]


def _default_folder(config: Config) -> Path:
    """``runs/analyse/NAME-HASH``: other runs or other blocks, other folder."""
    sources = "\n".join(os.fspath(path.resolve()) for path in config.runs)
    settings = f"{sources}\n{config.blocks} {config.levels} {config.prune_fraction}"
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    return Path("runs") / "analyse" / f"{_run_names(config.runs)[0]}-{digest}"


if __name__ == "__main__":
    cli.main(
        run,
        {"default": Config()},
        prog="python -m experiments.analyse",
        when_stopped="what was read so far is kept; the same command reads again",
    )
