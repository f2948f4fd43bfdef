"""How accurate is a network that was trained or pruned elsewhere, on data that we have here?

Loads a checkpoint of a ResNet into our own network and prints the accuracy on the whole test split,
the density of the prunable weights, and the normalisation that was used.

    python -m experiments.evaluate --checkpoint resnet20.th --model resnet20 --dataset cifar10
    python -m experiments.evaluate --checkpoint resnet20.th --model resnet20 --shortcut pad
        --dataset npz:mine.npz --mean 0.4914 0.4822 0.4465 --std 0.247 0.243 0.261
    python -m experiments.evaluate --checkpoint level_3/main/model_ep160_it0.pth
        --masks level_3/main/mask.pth --model resnet20

A network must see images as it did in training: a few points of accuracy hang on the
normalisation. PyTorch's recipes state it on the 0 to 1 scale of torchvision's ToTensor, as do
`--mean` and `--std` here. ResNet-20 and 10,000 images of 32x32 pixels take 17 s of CPU time.
"""

import dataclasses
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Float
from rich.console import Console

from experiments.shell import cli
from experiments.shell.study import AS_IS
from imp_rg import data
from imp_rg.config import require
from imp_rg.foreign.network import open_network
from imp_rg.foreign.tensors import open_tensors
from imp_rg.foreign.variables import infer_model, to_variables
from imp_rg.imp.evaluate import make_count_fn
from imp_rg.models import Model
from imp_rg.pytree import leaf_paths, matches
from imp_rg.types import Batch, Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Prints the test accuracy of a checkpoint made elsewhere.

    Attributes:
      checkpoint: PyTorch, safetensors, npz or Flax file; an Orbax folder; one of our tickets.
      model: resnet14/20/32/44/56 (small images), resnet18/34/50, or lenet with hidden widths.
      shortcut: Where a residual block changes shape; auto reads it off the checkpoint.
      masks: File of masks, if they lie apart from the weights.
      dataset: digits, npz:PATH (x_train, y_train, x_test, y_test), or a TensorFlow Datasets name.
      data_dir: Where prepared TensorFlow Datasets lie.
      mean: Of each channel, subtracted; on the 0 to 1 scale of torchvision's ToTensor, which
        divides 8-bit pixels by 255 and leaves floats as they are. By default measured on the
        training images.
      std: Of each channel, divided by; on the same scale.
    """

    checkpoint: Path
    model: str
    shortcut: Literal["auto", "projection", "pad"] = "auto"
    masks: Path | None = None
    dataset: str = "cifar10"
    data_dir: Path | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self):
        same = len(self.mean) == len(self.std)
        require(same, "std", f"must have as many values as mean = {self.mean}", self.std)
        positive = all(s > 0 for s in self.std)
        require(positive, "std", "must be positive", self.std)


class Evaluation(NamedTuple):
    """What a network did on the test split.

    Attributes:
      num_correct: Right answers.
      num_test: Test images.
      density: Prunable weights that are not zero, as a fraction.
      mean: Subtracted from each channel, on the scale of ToTensor.
      std: Divided by.
    """

    num_correct: int
    num_test: int
    density: float
    mean: Float[np.ndarray, " channel"]
    std: Float[np.ndarray, " channel"]


def evaluate(config: Config) -> Evaluation:
    """Loads network and data, and counts the right answers.

    Raises:
      ValueError: If checkpoint, model, data and normalisation do not fit together.

    References:
      House definition.
    """
    masks = None if config.masks is None else open_tensors(config.masks)
    network = open_network(open_tensors(config.checkpoint), masks)
    images = data.load(config.dataset, data_dir=config.data_dir)
    shortcut = None if config.shortcut == "auto" else config.shortcut
    model = infer_model(network, config.model, num_classes=images.num_classes, shortcut=shortcut)
    variables = to_variables(network, model)
    check_images(model, variables, images)
    scale = _scale(images)
    mean, std = normalisation(images, config.mean, config.std)
    num_correct = make_count_fn(model.make_apply_fn(mean, std), driver="dispatch")
    test_data = Batch(jnp.asarray(images.x_test), jnp.asarray(images.y_test))
    return Evaluation(
        num_correct=int(num_correct(jax.device_put(variables), test_data)),
        num_test=len(images.y_test),
        density=_density(model, variables),
        mean=mean / scale,
        std=std / scale,
    )


def run(config: Config) -> Path:
    """Prints the evaluation; returns the checkpoint."""
    found = evaluate(config)
    mean, std = (" ".join(f"{x:.4g}" for x in values) for values in (found.mean, found.std))
    source = "as given" if config.mean else f"of the training images of {config.dataset}"
    console = Console()
    console.print(f"normalisation: mean {mean}, std {std} on the 0 to 1 scale, {source}", **AS_IS)
    console.print(f"density of the prunable weights: {found.density:.4g}", **AS_IS)
    accuracy = 100 * found.num_correct / found.num_test
    counts = f"{found.num_correct:,} of {found.num_test:,}"
    console.print(f"test accuracy: {accuracy:.2f} % ({counts})", **AS_IS)
    return config.checkpoint


def normalisation(
    images: data.ImageData, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Float[np.ndarray, " channel"], Float[np.ndarray, " channel"]]:
    """Mean and deviation in raw pixel units: as given on the 0 to 1 scale, else of the data.

    Raises:
      ValueError: If there is not one value a channel.
    """
    if not mean:
        return images.mean, images.std
    channels = images.x_test.shape[-1]
    require(
        len(mean) == channels, "mean", f"must have a value for each of {channels} channels", mean
    )
    scale = _scale(images)
    return scale * np.asarray(mean, np.float32), scale * np.asarray(std, np.float32)


def _scale(images: data.ImageData) -> int:
    """Raw pixel units in one unit of ToTensor."""
    return 255 if images.x_test.dtype == np.uint8 else 1


def _density(model: Model, variables: Variables) -> float:
    leaves = zip(leaf_paths(variables.params), jax.tree.leaves(variables.params), strict=True)
    prunable = [leaf for path, leaf in leaves if matches(path, model.prunable)]
    return sum(map(np.count_nonzero, prunable)) / sum(leaf.size for leaf in prunable)


def check_images(model: Model, variables: Variables, images: data.ImageData) -> None:
    """Whether the network takes images of this shape."""
    shape = images.x_test.shape[1:]
    expected = jax.tree.leaves(model.shapes(shape))
    paths, found = leaf_paths(variables.params), jax.tree.leaves(variables.params)
    for path, leaf, other in zip(paths, found, expected, strict=True):
        rule = f"must have images that fit the {path} {leaf.shape} of the checkpoint"
        require(leaf.shape == other.shape, "dataset", rule, shape)


PRESETS = {"default": Config(checkpoint=tyro.MISSING, model=tyro.MISSING)}

if __name__ == "__main__":
    cli.main(
        run, PRESETS, prog="python -m experiments.evaluate", when_stopped="nothing was written"
    )
