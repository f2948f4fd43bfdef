"""What a run accumulates, level by level: host arrays that checkpoints carry and tables show."""

from typing import NamedTuple

import numpy as np

from imp_rg.blocks import BlockPartition
from imp_rg.flow import FlowPoint, FlowTrajectory
from imp_rg.imp.levels import LevelRecord
from imp_rg.types import POINTS, Bool, Float, Int


class RunRecord(NamedTuple):
    """Results of all levels so far; NaN (counts: 0) where nothing was measured.

    Attributes:
      flow: Fields [seed level point block], `total` [seed level point].
      nulls: For each null model fields [seed level block].
      leaf_survivors: [seed level leaf].
      train_loss: Nats, [seed level].
      test_metric: Percent, [seed level].
      is_finite: Whether a replicate got through the level, [seed level].
      seconds: Wall time of the level for all replicates together, [level].
    """

    flow: FlowPoint
    nulls: dict[str, FlowPoint]
    leaf_survivors: Int[np.ndarray, "seed level leaf"]
    train_loss: Float[np.ndarray, "seed level"]
    test_metric: Float[np.ndarray, "seed level"]
    is_finite: Bool[np.ndarray, "seed level"]
    seconds: Float[np.ndarray, " level"]

    def put(self, level: int, active: np.ndarray, record: LevelRecord, seconds: float) -> None:
        """Writes one level of the active replicates; a replicate that failed leaves NaN."""
        fine = np.asarray(record.is_finite)
        rows = active[fine]
        for whole, part in zip(self.flow, record.flow, strict=True):
            whole[rows, level] = part[fine]
        if level == 0:  # nothing has been pruned: there is no point after the pruning
            for whole in self.flow:
                whole[:, 0, POINTS.index("postprune")] = np.nan
        self.leaf_survivors[rows, level] = record.leaf_survivors[fine]
        self.train_loss[active, level] = record.train_loss
        self.test_metric[rows, level] = record.test_metric[fine]
        self.is_finite[rows, level] = True
        self.seconds[level] = seconds

    def put_null(
        self, name: str, rows: np.ndarray | np.integer | int, levels: slice | int, flow: FlowPoint
    ) -> None:
        """Writes levels of one null model for some replicates."""
        for whole, part in zip(self.nulls[name], flow, strict=True):
            whole[rows, levels] = part

    def trajectory(self, blocks: BlockPartition, num_kept: np.ndarray) -> FlowTrajectory:
        """The flow by point, with what the levels kept."""
        points = {
            point: FlowPoint(*(field[:, :, i] for field in self.flow))
            for i, point in enumerate(POINTS)
        }
        return FlowTrajectory(blocks=blocks, num_kept=num_kept, points=points, nulls=self.nulls)


def empty_record(
    *, num_seeds: int, num_levels: int, num_blocks: int, num_leaves: int, nulls: tuple[str, ...]
) -> RunRecord:
    """A record in which nothing has been measured."""

    def blank(*shape):
        return np.full((num_seeds, num_levels, *shape), np.nan)

    def flow(*axes):
        return FlowPoint(
            magnitude=blank(*axes, num_blocks),
            surviving=blank(*axes, num_blocks),
            total=blank(*axes),
        )

    return RunRecord(
        flow=flow(len(POINTS)),
        nulls={name: flow() for name in nulls},
        leaf_survivors=np.zeros((num_seeds, num_levels, num_leaves), np.int64),
        train_loss=blank(),
        test_metric=blank(),
        is_finite=np.zeros((num_seeds, num_levels), bool),
        seconds=np.full(num_levels, np.nan),
    )
