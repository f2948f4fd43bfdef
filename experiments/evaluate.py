"""How accurate is a network that was trained or pruned elsewhere, on data that we have here?

Loads a checkpoint of a ResNet into our own network and prints the accuracy on the whole test split,
the density of the prunable weights, and the normalization that was used.

    python -m experiments.evaluate --checkpoint resnet20.th --model resnet20 --dataset cifar10
    python -m experiments.evaluate --checkpoint resnet20.th --model resnet20 --shortcut pad
        --dataset npz:mine.npz --mean 0.4914 0.4822 0.4465 --std 0.247 0.243 0.261
    python -m experiments.evaluate --checkpoint level_3/main/model_ep160_it0.pth
        --masks level_3/main/mask.pth --model resnet20

A network must see images as it did in training: a few points of accuracy hang on the
normalization. PyTorch's recipes state it on the 0 to 1 scale of torchvision's ToTensor, as do
`--mean` and `--std` here. ResNet-20 and 10,000 images of 32x32 pixels take 17 s of CPU time.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Float

from experiments.shell import cli
from experiments.shell.settings import settings
from experiments.shell.study import Study
from experiments.trunk.checkpoint import CheckpointSettings, load_network
from imp_rg.foreign.network import open_network
from imp_rg.foreign.tensors import open_tensors
from imp_rg.imp.evaluate import make_count_fn
from imp_rg.models import Model
from imp_rg.pytree import leaf_paths, matches
from imp_rg.types import Batch, Variables


@settings
class Config(CheckpointSettings):
    """Prints the test accuracy of a checkpoint made elsewhere.

    Attributes:
      checkpoint: PyTorch, safetensors, npz or Flax file; an Orbax folder; one of our tickets.
      masks: File of masks, if they lie apart from the weights.
    """

    checkpoint: Path
    masks: Path | None = None
    dataset: str = "cifar10"


class Evaluation(NamedTuple):
    """What a network did on the test split.

    Attributes:
      num_correct: Right answers.
      num_test: Test images.
      density: Prunable weights that are not zero, as a fraction.
      mean: Subtracted from each channel, on the scale of ToTensor.
      std: Divided by, on the scale of ToTensor.
    """

    num_correct: int
    num_test: int
    density: float
    mean: Float[np.ndarray, " channel"]
    std: Float[np.ndarray, " channel"]


def evaluate(config: Config) -> Evaluation:
    """Loads network and data, and counts the right answers.

    Raises:
      ValueError: If checkpoint, model, data and normalization do not fit together.

    References:
      House definition.
    """
    masks = None if config.masks is None else open_tensors(config.masks)
    loaded = load_network(config, open_network(open_tensors(config.checkpoint), masks))
    images = loaded.images
    num_correct = make_count_fn(loaded.apply_fn, driver="dispatch")
    test_data = Batch(jnp.asarray(images.x_test), jnp.asarray(images.y_test))
    return Evaluation(
        num_correct=int(num_correct(jax.device_put(loaded.variables), test_data)),
        num_test=len(images.y_test),
        density=_density(loaded.model, loaded.variables),
        mean=loaded.mean / loaded.unit,
        std=loaded.std / loaded.unit,
    )


def run(config: Config) -> Path:
    """Prints the evaluation; returns the checkpoint."""
    study, found = Study("evaluate"), evaluate(config)
    mean, std = (" ".join(f"{x:.4g}" for x in values) for values in (found.mean, found.std))
    source = "as given" if config.mean else f"of the training images of {config.dataset}"
    study.say(f"normalization: mean {mean}, std {std} on the 0 to 1 scale, {source}")
    study.say(f"density of the prunable weights: {found.density:.4g}")
    accuracy = 100 * found.num_correct / found.num_test
    study.say(f"test accuracy: {accuracy:.2f} % ({found.num_correct:,} of {found.num_test:,})")
    return config.checkpoint


def _density(model: Model, variables: Variables) -> float:
    leaves = zip(leaf_paths(variables.params), jax.tree.leaves(variables.params), strict=True)
    prunable = [leaf for path, leaf in leaves if matches(path, model.prunable)]
    return sum(map(np.count_nonzero, prunable)) / sum(leaf.size for leaf in prunable)


PRESETS = {"default": Config(checkpoint=tyro.MISSING, model=tyro.MISSING)}

if __name__ == "__main__":
    cli.main(
        run, PRESETS, prog="python -m experiments.evaluate", when_stopped="nothing was written"
    )
