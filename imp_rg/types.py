"""The words every module shares: trees, batches and the kinds of functions that act on them.

Axis glossary, in the order in which axes always stand:

* ``seed``: replicates that differ by their key only;
* ``level``: prunings done, 0 is dense;
* ``point``: where within a level the flow is read, see `POINTS`;
* ``block``: parts of the network whose share of the weight magnitude flows;
* ``example height width channel``: data, batch axis first.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jaxtyping
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray

Params = Any
"""Nested dict of arrays: the trainable weights."""

Masks = Any
"""Nested dict of bool arrays, leaf by leaf of the shape of `Params`; True keeps a weight."""

Scores = Any
"""Nested dict of float arrays, leaf by leaf of the shape of `Params`; the smallest go first."""

AnyArray = Array | np.ndarray

Key = PRNGKeyArray

Keys = jaxtyping.Key[Array, " seed"]
"""One key a replicate."""

POINTS = ("trained", "rewound", "postprune")
"""Weights of which the flow is read at level n.

``trained``: trained at level n under the masks of level n; ``rewound``: the rewind weights under
the masks of level n; ``postprune``: the weights trained at level n-1 under the masks of level n
(level 0 has none).
"""


class Variables(NamedTuple):
    """What a network carries.

    Attributes:
      params: Trainable weights.
      batch_stats: Running means and variances of batch normalisation; empty without.
    """

    params: Params
    batch_stats: Any


class Batch(NamedTuple):
    """A data set on the device, or a part of it.

    Attributes:
      x: Images in raw pixel units, uint8 or float, [example height width channel].
      y: Labels, [example].
    """

    x: Array
    y: Int[Array, " example"]


class ValidatedBatch(NamedTuple):
    """A training set with images that are held out of it, like `Batch`.

    Attributes:
      x: Training images in raw pixel units, [example height width channel].
      y: Their labels.
      x_val: Held-out images.
      y_val: Their labels.
    """

    x: Array
    y: Int[Array, " example"]
    x_val: Array
    y_val: Int[Array, " val_example"]


class StreamBatch(NamedTuple):
    """Examples of one step on the host.

    Attributes:
      x: Images in raw pixel units, [batch height width channel], or several parts of each,
        [batch crop height width channel].
      y: Labels, [batch].
      weights: 1 for an example, 0 where an incomplete batch is filled up, [batch].
    """

    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray


@runtime_checkable
class Stream(Protocol):
    """A data set too large for the device, read batch by batch."""

    @property
    def num_train(self) -> int:
        """Number of training examples."""
        ...

    @property
    def num_test(self) -> int:
        """Number of held-out examples."""
        ...

    def train_batches(
        self,
        seed: int,
        *,
        batch_size: int,
        last_batch: Literal["drop", "keep"],
        start: int,
        stop: int,
    ) -> Iterator[StreamBatch]:
        """The batches of steps [start, stop); each depends on seed and step alone."""
        ...

    def test_batches(self, batch_size: int) -> Iterator[StreamBatch]:
        """All held-out examples once, in order."""
        ...


@runtime_checkable
class ApplyFn(Protocol):
    """A network as a pure function of raw images."""

    def __call__(
        self, variables: Variables, x: Array, *, is_training: bool, weights: Array | None = None
    ) -> tuple[Float[Array, "example num_classes"], Any]:
        """Returns logits and the new batch statistics (unchanged when not training)."""
        ...


@runtime_checkable
class ScoreFn(Protocol):
    """Ranks weights; the lowest scores are pruned first."""

    def __call__(self, key: Key, params: Params, masks: Masks) -> Scores:
        """Returns one finite, non-negative score a weight."""
        ...


@runtime_checkable
class TrainFn(Protocol):
    """The refine operator F: trains masked weights on data."""

    def __call__(
        self,
        key: Key,
        variables: Variables,
        masks: Masks,
        data: Batch | ValidatedBatch | Stream,
        *,
        start: int | None = None,
        stop: int | None = None,
    ) -> tuple[Variables, Any]:
        """Trains steps [start, stop) of the schedule; pruned weights stay zero."""
        ...


def is_accelerator() -> bool:
    """Whether JAX computes on something other than the CPU. House definition."""
    return jax.default_backend() != "cpu"


def compute_dtype(name: str) -> np.dtype | None:
    """What networks compute in: None is the dtype of their weights. House definition.

    Args:
      name: float32, bfloat16, or auto: bfloat16 on an accelerator only.
    """
    is_short = name == "bfloat16" or (name == "auto" and is_accelerator())
    return jax.numpy.dtype(jax.numpy.bfloat16) if is_short else None


__all__ = [
    "POINTS",
    "AnyArray",
    "ApplyFn",
    "Array",
    "Batch",
    "Bool",
    "Float",
    "Int",
    "Key",
    "Keys",
    "Masks",
    "Num",
    "Params",
    "ScoreFn",
    "Scores",
    "Stream",
    "StreamBatch",
    "TrainFn",
    "ValidatedBatch",
    "Variables",
    "compute_dtype",
    "is_accelerator",
]
