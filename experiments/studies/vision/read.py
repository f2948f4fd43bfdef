"""Networks on several tasks from several starts: what lies in the folder of a vision experiment.

In: a folder whose ``config.json`` lists its runs, each the run folder of a task from an init. Out:
`VisionRun`s with their flows, and their exponents over two windows of levels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from experiments.studies.vision.config import SCRATCH, parse_source
from imp_rg import published
from imp_rg.config import require
from imp_rg.data.derived import split_name
from imp_rg.flow import FlowPoint
from imp_rg.rg import Spectrum
from imp_rg.runs import Flow, read
from imp_rg.runs.files import read_json
from imp_rg.runs.folder import has_finished
from imp_rg.runs.tables import flow_spectrum

FLOORS = {"cifar10": 85.0, "cifar100": 55.0}
"""Dense accuracy (%) below which the exponents of a task get no verdict."""


@dataclass(frozen=True, kw_only=True)
class VisionRun:
    """One network on one task from one start.

    Attributes:
      task: Name of the data set.
      init: ``scratch``, ``METHOD:DATASET`` or a file of weights.
      mode: Where IMP rewinds to.
      folder: Its run folder, by name.
      flow: As read from there.
    """

    task: str
    init: str
    mode: str
    folder: str
    flow: Flow

    @property
    def name(self) -> str:
        """Task and init."""
        return f"{self.task}, {init_text(self.init)}"

    @property
    def is_pretrained(self) -> bool:
        """Whether the network starts from trained weights."""
        return self.init != SCRATCH

    @property
    def start(self) -> str:
        """The init without the data set it was pre-trained on."""
        return start_of(self.init)

    @property
    def dense_accuracy(self) -> float:
        """Percent at level 0, mean over seeds."""
        metrics = self.flow.metrics
        return float(metrics.loc[metrics["level"] == 0, "test_metric"].mean())

    @property
    def withheld(self) -> str:
        """Why its exponents get no verdict; empty if they do."""
        floor = FLOORS.get(base_of(self.task))
        if floor is None or self.dense_accuracy >= floor:
            return ""
        return f"dense accuracy below {floor:g} %"

    @property
    def published(self) -> published.PublishedRow | None:
        """Row of Table 2 of the same task, from scratch or not; None where the paper has none."""
        row = published.find(2, f"{'PT ' if self.is_pretrained else ''}{base_of(self.task)}")
        has_stages = row is not None and self.blocks == stages(len(row.values))
        return row if has_stages else None

    @property
    def blocks(self) -> tuple[str, ...]:
        """Listed blocks."""
        blocks = self.flow.trajectory.blocks
        return blocks.names[: blocks.num_listed]

    @property
    def last_level(self) -> int:
        """Number of prunings."""
        return len(self.flow.trajectory.num_kept) - 1


class WindowedSpectrum(NamedTuple):
    """Exponents of one run over a window of levels.

    Attributes:
      run: Whose.
      window: First and last level, such as 0-18.
      spectrum: Of the trained weights.
      nulls: Of the nulls, by name.
    """

    run: VisionRun
    window: str
    spectrum: Spectrum
    nulls: dict[str, Spectrum]

    def by_seed(self) -> dict[str, pd.DataFrame]:
        """Exponents [seed listed_block] by measure: sigma, each null, each excess_NULL."""
        names, seeds = self.run.flow.trajectory.blocks.names, self.run.flow.seeds
        found = {"sigma": self.spectrum} | self.nulls
        frames = {
            measure: pd.DataFrame(spectrum.sigma_per_seed["paper"], index=seeds, columns=names)
            for measure, spectrum in found.items()
        }
        frames = {measure: frame[list(self.run.blocks)] for measure, frame in frames.items()}
        excess = {f"excess_{null}": frames["sigma"] - frames[null] for null in self.nulls}
        return frames | excess


def read_runs(folder: Path) -> tuple[list[VisionRun], list[str]]:
    """Finished runs of an experiment, and the names of the others.

    Args:
      folder: Of the experiment.

    Returns:
      Runs in the order of ``cells`` in its config, and the names of those left out.

    Raises:
      ValueError: If there is no such list, no run is finished, or one cannot be read.
    """
    config = folder / "config.json"
    require(config.is_file(), str(folder), "must hold config.json with a list of runs", "none")
    listed = read_json(config).get("cells", [])
    done = [entry for entry in listed if has_finished(folder / entry["folder"])]
    require(bool(done), str(folder), "must hold a finished run folder", len(done))
    runs = [
        VisionRun(
            task=entry["task"],
            init=entry["init"],
            mode=entry["mode"],
            folder=entry["folder"],
            flow=read(folder / entry["folder"]),
        )
        for entry in done
    ]
    missing = [entry for entry in listed if entry not in done]
    return runs, [f"{entry['task']}, {init_text(entry['init'])}" for entry in missing]


def measure(run: VisionRun, *, ci_level: float) -> Iterator[WindowedSpectrum]:
    """Exponents over all levels and, if there are two prunings or more, from level 1 on.

    The paper does not say which levels its means cover; its source study prunes 18 times.
    """
    for first in range(min(2, run.last_level)):
        trajectory = run.flow.trajectory
        windowed = trajectory._replace(
            num_kept=trajectory.num_kept[first:],
            points={"trained": _from_level(trajectory.points["trained"], first)},
            nulls={name: _from_level(null, first) for name, null in trajectory.nulls.items()},
        )
        yield WindowedSpectrum(
            run=run,
            window=f"{first}-{run.last_level}",
            spectrum=flow_spectrum(windowed, ci_level=ci_level),
            nulls={
                null: flow_spectrum(windowed, null=null, ci_level=ci_level)
                for null in windowed.nulls
            },
        )


def _from_level(point: FlowPoint, first: int) -> FlowPoint:
    return FlowPoint(*(field[:, first:] for field in point))


def base_of(task: str) -> str:
    """``cifar10`` of ``cifar10+balanced=10000``."""
    return split_name(task)[0]


def start_of(init: str) -> str:
    """``simclr`` of ``simclr:cifar10``; scratch and files as they are."""
    source = parse_source(init)
    return init if source is None else source.method


def init_text(init: str) -> str:
    """An init in tables and figures: files by their name."""
    return init if init == SCRATCH or parse_source(init) else Path(init).name


def stages(number: int) -> tuple[str, ...]:
    """Names of the blocks of a network by stage."""
    return tuple(f"stage{i}" for i in range(1, number + 1))
