"""Iterative magnitude pruning as a renormalization group scheme.

Names are resolved on first use, so that `import imp_rg.rg` needs neither Flax nor Optax.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imp_rg import io as io
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
    "Batch": "types",
    "BlockPartition": "blocks",
    "Flow": "reading",
    "FlowPoint": "flow",
    "FlowTrajectory": "flow",
    "ImpState": "imp.operator",
    "PruneConfig": "config",
    "TrainConfig": "config",
    "Variables": "types",
    "compare": "reading",
    "flow_point": "flow",
    "make_imp_step": "imp.operator",
    "make_model": "models",
    "make_optimizer": "imp.train",
    "make_partition": "blocks",
    "make_scheme": "imp.levels",
    "make_train_fn": "imp.train",
    "prune_masks": "imp.prune",
    "prune_schedule": "imp.prune",
    "read": "reading",
    "run_level": "imp.levels",
    "start_state": "imp.operator",
}

_ROOMS = {"io": "io.foreign", "rg": "rg"}
"""Subpackages reached as attributes, and what is imported for them."""

__all__ = ["__version__", *_ROOMS, *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Imports a public name, or a subpackage, when it is first asked for (PEP 562)."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"imp_rg.{_HOMES[name]}"), name)
    if name in _ROOMS:
        importlib.import_module(f"imp_rg.{_ROOMS[name]}")
        return sys.modules[f"imp_rg.{name}"]
    raise AttributeError(f"module 'imp_rg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
