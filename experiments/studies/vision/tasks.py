"""Tasks of a vision experiment: images, network and scheme, shared by all runs on a task.

In: a config and the name of a data set. Out: a `ImageTask`.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.vision.config import STUDY_HOLDOUT, Config, slug
from experiments.trunk.progress import LevelProgress
from imp_rg import data
from imp_rg.blocks import parse_blocks
from imp_rg.config import PruneConfig, TrainConfig, require
from imp_rg.data.derived import split_name
from imp_rg.data.image_folder import PREFIX, ImageFolder, load_folder
from imp_rg.data.statistics import STUDY_STATISTICS
from imp_rg.imp.drivers import steps_per_epoch
from imp_rg.imp.execution import Execution, choose_execution
from imp_rg.imp.levels import Scheme, make_scheme
from imp_rg.imp.mesh import make_mesh, place
from imp_rg.imp.modes import Mode
from imp_rg.imp.operator import start_at
from imp_rg.imp.replicates import map_replicates
from imp_rg.imp.stream import STREAMED, make_stream_scheme
from imp_rg.models import IMAGENET_BLOCKS, Model, make_model
from imp_rg.runs.snapshots import SnapshotFolder
from imp_rg.types import Batch, ValidatedBatch, compute_dtype

STRIDES = {"cifar": 8, "imagenet": 32}
"""By how much a network of each stem divides the side of its images."""


class Relay:
    """Passes progress on to the display of the run at work: runs share a scheme."""

    def __init__(self):
        """Without a display."""
        self.display: LevelProgress | None = None

    def __call__(self, replicate: int, step: int, loss: float) -> None:
        """Reports a replicate's step and loss."""
        if self.display is not None:
            self.display.on_progress(replicate, step, loss)


class ImageTask(NamedTuple):
    """What the runs on a task share.

    Attributes:
      name: Of the data set.
      images: Its arrays; of a streamed set their outline.
      model: Network with the classes of the task.
      train_data: Training set on the device; for mode ``pt`` with the images held out of it.
      test_data: Test set on the device.
      execution: Driver and strategy.
      schemes: M, F and T by mode; they share their programs, save that of level 0 in ``pt``.
      relay: Where the schemes report to.
      snapshots: Where levels of a streamed set leave what they need to go on.
    """

    name: str
    images: data.ImageData
    model: Model
    train_data: Batch | ValidatedBatch | ImageFolder
    test_data: Batch | ImageFolder
    execution: Execution
    schemes: dict[Mode, Scheme]
    relay: Relay
    snapshots: SnapshotFolder | None = None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width, channels."""
        return self.images.x_train.shape[1:]


def load_task(config: Config, name: str, out: Path) -> ImageTask:
    """Loads the images of a task and builds its network and schemes; nothing is written yet.

    Raises:
      ValueError: In one line, if a setting is unfit.
    """
    if name.startswith(PREFIX):
        return _load_streamed_task(config, name, out)
    images = load_images(config, name)
    model, execution, relay = _make_model(config, images), _choose_execution(config), Relay()
    train_data = Batch(jnp.asarray(images.x_train), jnp.asarray(images.y_train))
    if config.mode == "pt":
        require(len(images.y_val) > 0, "holdout", "must be at least 1 in mode pt", config.holdout)
        held_out = jnp.asarray(images.x_val), jnp.asarray(images.y_val)
        train_data = ValidatedBatch(*train_data, *held_out)
    test_data = Batch(jnp.asarray(images.x_test), jnp.asarray(images.y_test))
    return ImageTask(
        name=name,
        images=images,
        model=model,
        train_data=place(train_data, execution.mesh),
        test_data=place(test_data, execution.mesh),
        execution=execution,
        schemes=_make_schemes(config, images, model, execution, relay),
        relay=relay,
    )


def with_execution(config: Config, task: ImageTask) -> ImageTask:
    """The same task run as other settings ask for: its images are not loaded again."""
    execution = _choose_execution(config)
    return task._replace(
        execution=execution,
        schemes=_make_schemes(config, task.images, task.model, execution, task.relay),
    )


def _load_streamed_task(config: Config, name: str, out: Path) -> ImageTask:
    """A task whose images are read from disk while it is trained on."""
    require(config.mode != "pt", "mode", f"must not be pt for the streamed {name!r}", config.mode)
    require(config.devices == 1, "devices", f"must be 1 for the streamed {name!r}", config.devices)
    rule = f"must not be measure for the streamed {name!r}"
    require(config.replicates != "measure", "replicates", rule, config.replicates)
    folder = load_folder(name)
    images, relay = folder.outline(), Relay()
    snapshots = SnapshotFolder(out / "snapshots" / slug(name), keep=2 * config.seeds)
    model = _make_model(config, images)
    return ImageTask(
        name=name,
        images=images,
        model=model,
        train_data=folder,
        test_data=folder,
        execution=STREAMED,
        schemes=_make_schemes(config, images, model, STREAMED, relay, snapshots),
        relay=relay,
        snapshots=snapshots,
    )


def load_images(config: Config, name: str) -> data.ImageData:
    """The images of a set, split and normalized as in the study where it has that set."""
    base, transforms = split_name(name)
    is_studied = base.partition(":")[0] in STUDY_STATISTICS
    holdout = config.holdout
    if holdout is None:
        num_train = 0 if is_studied else len(data.load(base, data_dir=config.data_dir).y_train)
        holdout = STUDY_HOLDOUT if is_studied else num_train // 10
    return data.load(
        name,
        data_dir=config.data_dir,
        augment=None if config.augment == "default" else config.augment,
        normalize="study" if is_studied and "invert" not in transforms else "train",
        holdout=holdout,
    )


def train_config(config: Config, images: data.ImageData, mode: Mode) -> TrainConfig:
    """F of a mode on a set of images."""
    sizes = TrainConfig(batch_size=config.batch_size)
    per_epoch = steps_per_epoch(len(images.y_train), sizes)
    return config.train_config(mode, steps_per_epoch=per_epoch)


def _make_model(config: Config, images: data.ImageData) -> Model:
    rule = f"must be one of {', '.join(IMAGENET_BLOCKS)}"
    require(config.model in IMAGENET_BLOCKS, "model", rule, config.model)
    height, width, _ = images.x_train.shape[1:]
    stride = STRIDES[config.stem]
    rule = f"{config.stem} needs images of at least {stride}x{stride} pixels"
    is_fit = min(height, width) >= stride
    require(is_fit, "stem", rule, f"{height}x{width} of {images.name}")
    return make_model(
        config.model,
        num_classes=images.num_classes,
        width=config.width,
        stem=config.stem,
        dtype=compute_dtype(config.dtype),
    )


def _choose_execution(config: Config) -> Execution:
    return choose_execution(
        has_convolutions=True,
        mesh=make_mesh(config.devices, num_seeds=config.seeds, batch_size=config.batch_size),
        driver=config.driver,
        strategy="auto" if config.replicates == "measure" else config.replicates,
    )


def _make_schemes(
    config: Config,
    images: data.ImageData,
    model: Model,
    execution: Execution,
    relay: Relay,
    snapshots: SnapshotFolder | None = None,
) -> dict[Mode, Scheme]:
    """Networks from scratch, and pre-trained ones, whose levels start from given weights."""
    image_shape = images.x_train.shape[1:]
    leaves = jax.tree.leaves(model.shapes(image_shape))

    def make(mode: Mode) -> Scheme:
        apply_fn = model.make_apply_fn(images.mean, images.std)
        settings: dict[str, Any] = {
            "blocks": model.partition(parse_blocks(config.blocks), image_shape),
            "leaf_sizes": tuple(int(np.prod(leaf.shape)) for leaf in leaves),
            "num_examples": len(images.y_train),
            "num_levels": config.levels + 1,
            "prune_config": PruneConfig(),
            "train_config": train_config(config, images, mode),
            "on_progress": relay,
        }
        if snapshots is not None:
            return make_stream_scheme(apply_fn, snapshots=snapshots, **settings)
        return make_scheme(
            apply_fn,
            execution=execution,
            policy=images.augment,
            rewinds_to_best=mode == "pt",
            **settings,
        )

    own = make(config.mode)
    other = make("pt_trans") if config.mode == "pt" else own

    def start(replicate, key, variables, data):
        del replicate
        return start_at(key, variables, data, train_fn=other.retrain)

    start = map_replicates(start, execution.strategy, execution.mesh)
    return {config.mode: own, "pt_trans": other._replace(start=start)}
