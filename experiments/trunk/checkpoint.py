"""A network from a checkpoint that anybody made, with the images that it is looked at on.

In: settings of a command and an opened checkpoint. Out: a `LoadedNetwork`; whatever does not fit
together is said in one line.
"""

from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from experiments.shell.settings import settings
from imp_rg import data
from imp_rg.config import require
from imp_rg.foreign.network import Network
from imp_rg.foreign.variables import infer_model, to_variables
from imp_rg.models import Model
from imp_rg.pytree import leaf_paths
from imp_rg.types import ApplyFn, Variables


@settings
class CheckpointSettings:
    """A network made elsewhere, and the images that it sees.

    Attributes:
      model: resnet14/20/32/44/56 (small images), resnet18/34/50, or lenet with hidden widths.
      shortcut: Where a residual block changes shape; auto reads it off the checkpoint.
      dataset: digits, npz:PATH (x_train, y_train, x_test, y_test), or a TensorFlow Datasets name.
      data_dir: Where prepared TensorFlow Datasets lie.
      mean: Of each channel, subtracted; on the 0 to 1 scale of torchvision's ToTensor, which
        divides 8-bit pixels by 255 and leaves floats as they are. By default measured on the
        training images.
      std: Of each channel, divided by; on the 0 to 1 scale of `mean`.
    """

    model: str
    shortcut: Literal["auto", "projection", "pad"] = "auto"
    dataset: str = "digits"
    data_dir: Path | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self):
        same = len(self.mean) == len(self.std)
        require(same, "std", f"must have as many values as mean = {self.mean}", self.std)
        require(all(s > 0 for s in self.std), "std", "must be positive", self.std)


class LoadedNetwork(NamedTuple):
    """A network with the images that it fits.

    Attributes:
      model: Inferred from the checkpoint and the name given.
      variables: Of the checkpoint; pruned weights are zero.
      images: The data set.
      mean: Subtracted from each channel, in raw pixel units.
      std: Divided by, in raw pixel units.
    """

    model: Model
    variables: Variables
    images: data.ImageData
    mean: Float[np.ndarray, " channel"]
    std: Float[np.ndarray, " channel"]

    @property
    def apply_fn(self) -> ApplyFn:
        """The network as a function of raw pixels."""
        return self.model.make_apply_fn(self.mean, self.std)

    @property
    def unit(self) -> int:
        """Raw pixel units in one unit of ToTensor."""
        return _unit(self.images)


def load_network(config: CheckpointSettings, network: Network) -> LoadedNetwork:
    """Loads the images, and the network as one of ours.

    Raises:
      ValueError: If checkpoint, model, data and normalization do not fit together.

    References:
      House definition.
    """
    images = data.load(config.dataset, data_dir=config.data_dir)
    shortcut = None if config.shortcut == "auto" else config.shortcut
    model = infer_model(network, config.model, num_classes=images.num_classes, shortcut=shortcut)
    variables = to_variables(network, model)
    _check_images(model, variables, images)
    return LoadedNetwork(model, variables, images, *_normalization(config, images))


def _normalization(
    config: CheckpointSettings, images: data.ImageData
) -> tuple[Float[np.ndarray, " channel"], Float[np.ndarray, " channel"]]:
    """Mean and deviation in raw pixel units: as given on the 0 to 1 scale, else of the data."""
    if not config.mean:
        return images.mean, images.std
    channels = images.x_test.shape[-1]
    rule = f"must have a value for each of {channels} channels"
    require(len(config.mean) == channels, "mean", rule, config.mean)
    given = (np.asarray(values, np.float32) for values in (config.mean, config.std))
    mean, std = (_unit(images) * values for values in given)
    return mean, std


def _unit(images: data.ImageData) -> int:
    return 255 if images.x_test.dtype == np.uint8 else 1


def _check_images(model: Model, variables: Variables, images: data.ImageData) -> None:
    """Raises `ValueError` unless the network takes images of this shape."""
    shape = images.x_test.shape[1:]
    expected = jax.tree.leaves(model.shapes(shape))
    paths, found = leaf_paths(variables.params), jax.tree.leaves(variables.params)
    for path, leaf, other in zip(paths, found, expected, strict=True):
        rule = f"must have images that fit the {path} {leaf.shape} of the checkpoint"
        require(leaf.shape == other.shape, "dataset", rule, shape)
