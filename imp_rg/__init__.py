"""Iterative magnitude pruning as a renormalization group scheme.

Names are resolved on first use, so that `import imp_rg.rg` needs neither Flax nor Optax.
"""

from typing import TYPE_CHECKING

from imp_rg.lazy import lazy_names

if TYPE_CHECKING:
    from imp_rg import foreign as foreign
    from imp_rg import rg as rg
    from imp_rg.blocks import BlockPartition as BlockPartition
    from imp_rg.blocks import make_partition as make_partition
    from imp_rg.config import PruneConfig as PruneConfig
    from imp_rg.config import TrainConfig as TrainConfig
    from imp_rg.flow import FlowPoint as FlowPoint
    from imp_rg.flow import FlowTrajectory as FlowTrajectory
    from imp_rg.flow import flow_point as flow_point
    from imp_rg.imp.levels import make_scheme as make_scheme
    from imp_rg.imp.levels import run_level as run_level
    from imp_rg.imp.operator import ImpState as ImpState
    from imp_rg.imp.operator import make_imp_step as make_imp_step
    from imp_rg.imp.operator import start_state as start_state
    from imp_rg.imp.prune import prune_masks as prune_masks
    from imp_rg.imp.prune import prune_schedule as prune_schedule
    from imp_rg.imp.train import make_optimizer as make_optimizer
    from imp_rg.imp.train import make_train_fn as make_train_fn
    from imp_rg.models import make_model as make_model
    from imp_rg.runs import Flow as Flow
    from imp_rg.runs import compare as compare
    from imp_rg.runs import read as read
    from imp_rg.types import Batch as Batch
    from imp_rg.types import Variables as Variables

__version__ = "0.1.0"

_HOMES = {
    "blocks": ("BlockPartition", "make_partition"),
    "config": ("PruneConfig", "TrainConfig"),
    "flow": ("FlowPoint", "FlowTrajectory", "flow_point"),
    "foreign": (),
    "imp.levels": ("make_scheme", "run_level"),
    "imp.operator": ("ImpState", "make_imp_step", "start_state"),
    "imp.prune": ("prune_masks", "prune_schedule"),
    "imp.train": ("make_optimizer", "make_train_fn"),
    "models": ("make_model",),
    "rg": (),
    "runs": ("Flow", "compare", "read"),
    "types": ("Batch", "Variables"),
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = ["__version__", *__dir__()]  # pyright: ignore[reportUnsupportedDunderAll]
