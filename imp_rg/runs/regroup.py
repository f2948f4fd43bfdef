"""A flow by coarser blocks: what several blocks hold together is the sum of what each holds.

In: a `Flow` and a name for every block. Out: the `Flow` of the groups, nulls too.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from imp_rg.blocks import REST, BlockPartition
from imp_rg.flow import FlowPoint
from imp_rg.runs.flow import Flow


def regroup(flow: Flow, group_of: Callable[[str], str]) -> Flow:
    """Adds blocks up.

    Args:
      flow: By finer blocks, such as single tensors.
      group_of: Name of a block to the name of its group; ``rest`` for those in none.

    Returns:
      The same flow by groups, in order of their first blocks, ``rest`` last. Observables are left
      out: means and medians of blocks do not add up.

    References:
      House definition; Redman et al., arXiv:2110.03210, Eq. 13, is a sum over any set of weights.
    """
    trajectory = flow.trajectory
    of_block = [group_of(name) for name in trajectory.blocks.names]
    names = sorted(dict.fromkeys(of_block), key=lambda name: name == REST)  # a stable sort
    index = np.array([names.index(group) for group in of_block])
    belongs = (index[:, None] == np.arange(len(names))).astype(float)

    def added(point: FlowPoint) -> FlowPoint:
        return FlowPoint(
            magnitude=np.asarray(point.magnitude, float) @ belongs,
            surviving=np.asarray(point.surviving, float) @ belongs,
            total=point.total,
        )

    blocks = BlockPartition(
        names=tuple(names),
        block_of=tuple(int(index[i]) if i >= 0 else -1 for i in trajectory.blocks.block_of),
        sizes=tuple(int(size) for size in np.array(trajectory.blocks.sizes) @ belongs),
    )
    grouped = trajectory._replace(
        blocks=blocks,
        points={name: added(point) for name, point in trajectory.points.items()},
        nulls={name: added(point) for name, point in trajectory.nulls.items()},
    )
    return dataclasses.replace(flow, trajectory=grouped, observables=flow.observables.iloc[:0])
