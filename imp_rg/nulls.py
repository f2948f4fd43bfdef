"""The Gaussian null of a run, divided into its blocks and pruned as the run itself is.

In: size and scale of each tensor, a partition, a schedule. Out: a `FlowPoint`. It stands above
`imp_rg.rg`, which has the formulas but knows neither partitions nor schedules, and so above
`imp_rg.imp`, which does not import `rg`: both runs of our own and runs of other code need it.
"""

import numpy as np

from imp_rg.blocks import BlockPartition
from imp_rg.flow import FlowPoint
from imp_rg.rg.nulls import gaussian_null_flow
from imp_rg.types import Float, Int, Num


def gaussian_flow(
    sizes: Num[np.ndarray, " leaf"],
    scales: Float[np.ndarray, " leaf"],
    *,
    unpruned: float,
    blocks: BlockPartition,
    schedule: Int[np.ndarray, "level tensor_or_one"],
) -> FlowPoint:
    """Flow of Gaussian weights in closed form, pruned as the schedule says.

    Args:
      sizes: Number of weights of each tensor, prunable or not.
      scales: Standard deviation of each tensor.
      unpruned: Summed magnitude of the tensors that are not prunable.
      blocks: Partition.
      schedule: Counts to remove before each level.

    Returns:
      Expected flow, fields [level block].

    References:
      House definition; `imp_rg.rg.gaussian_null_flow` gives the formulas.
    """
    block_of = np.array(blocks.block_of)
    prunable = np.flatnonzero(block_of >= 0)
    removed = schedule.cumsum(axis=0)
    groups = [prunable] if schedule.shape[1] == 1 else [prunable[[k]] for k in range(len(prunable))]
    magnitude, surviving = np.zeros((2, len(removed), len(blocks.names)))
    for column, group in enumerate(groups):
        density = 1 - removed[:, column] / sizes[group].sum()
        null = gaussian_null_flow(sizes[group], scales[group], np.arange(len(group)), density)
        for i, k in enumerate(group):
            magnitude[:, block_of[k]] += null.magnitude[:, i]
            surviving[:, block_of[k]] += null.surviving[:, i]
    return FlowPoint(magnitude, surviving, magnitude.sum(axis=1) + unpruned)
