"""From settings to everything a run of a vision experiment needs: its task, and how it starts.

In: a config, a `ImageTask` and a spec. Out: a `Setup`; whatever is wrong with weights is said here.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from experiments.studies.vision.config import Config, RunSpec
from experiments.studies.vision.tasks import ImageTask, train_config
from experiments.trunk import assemble
from experiments.trunk.assemble import Setup
from experiments.trunk.progress import LevelProgress
from imp_rg.data.derived import split_name
from imp_rg.data.image_folder import ImageFolder
from imp_rg.foreign.backbone import load_backbone
from imp_rg.pytree import from_flat, leaf_paths
from imp_rg.runs.checkpoints import digest
from imp_rg.types import Key, Variables


class Body(NamedTuple):
    """What a file gives a network; stem and head are drawn.

    Attributes:
      leaves: Arrays by the paths of their leaves.
      sha256: Names them.
    """

    leaves: dict[str, np.ndarray]
    sha256: str


def read_body(path: Path, task: ImageTask) -> Body:
    """Reads all but stem and head from a file of pre-trained weights.

    Raises:
      ValueError: In one line, if it holds no network like that of the task.
    """
    fresh = jax.eval_shape(lambda: task.model.init(jax.random.key(0), task.image_shape))
    loaded = load_backbone(path, task.model, fresh)
    leaves = dict(zip(leaf_paths(loaded), jax.tree.leaves(loaded), strict=True))
    leaves = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, np.ndarray)}
    return Body(leaves, digest(leaves)[:16])


def _make_init(task: ImageTask, body: Body | None) -> Callable[[Key], Variables]:
    """Initial variables of a replicate: drawn, and what the body has from there."""

    def init(key):
        drawn = task.model.init(key, task.image_shape)
        flat = dict(zip(leaf_paths(drawn), jax.tree.leaves(drawn), strict=True))
        return from_flat(flat | (body.leaves if body else {}), drawn)

    return init


def prepare(
    config: Config, task: ImageTask, spec: RunSpec, body: Body | None, console: Console
) -> Setup:
    """Everything a run needs; its display is the one the task reports to."""
    images, train = task.images, train_config(config, task.images, spec.mode)
    task.relay.display = LevelProgress(
        seeds=config.level_config(spec, train).seed_list,
        num_levels=config.levels + 1,
        steps=range(train.first_step, train.num_steps),
        console=console,
    )
    scheme = task.schemes[spec.mode]
    return Setup(
        train_data=task.train_data,
        test_data=task.test_data,
        init=_make_init(task, body),
        apply_fn=task.model.make_apply_fn(images.mean, images.std),
        shapes=task.model.shapes(task.image_shape),
        blocks=scheme.blocks,
        execution=task.execution,
        progress=task.relay.display,
        scheme=scheme,
        about=_about_images(task) | _about(task, body),
        summary=f"{assemble.summarise_images(spec.task, images)}, from {spec.init}",
    )


def _about_images(task: ImageTask) -> dict[str, Any]:
    """What config.json says of the images."""
    folder = task.train_data
    if isinstance(folder, ImageFolder):
        return assemble.about_folder(folder)
    return assemble.about_images(task.images)


def _about(task: ImageTask, body: Body | None) -> dict[str, Any]:
    """What config.json says of a run beyond settings and images."""
    images = task.images
    return {
        "base_dataset": split_name(task.name)[0],
        "num_classes": images.num_classes,
        "num_train": len(images.y_train),
        "num_val": len(images.y_val),
        "image_shape": list(task.image_shape),
        "init_sha256": body and body.sha256,
    }


def num_pixels(config: Config, spec: RunSpec, task: ImageTask) -> int:
    """Pixels that all seeds of a run are trained on."""
    train = train_config(config, task.images, spec.mode)
    num_steps = train.rewind_step + (config.levels + 1) * train.num_steps
    return config.seeds * num_steps * train.batch_size * math.prod(task.image_shape[:2])


def seconds_per_pixel(config: Config, spec: RunSpec, task: ImageTask) -> float:
    """From a few steps of all seeds of a run, whatever its networks start from."""
    level_config = config.level_config(spec, train_config(config, task.images, spec.mode))
    prepared = prepare(config, task, spec, None, Console(quiet=True))
    return assemble.estimate_seconds(level_config, prepared) / num_pixels(config, spec, task)
