"""From settings to everything a pre-training needs: data, network, method, and its levels.

In: a config. Out: a `Pretraining`, and the `Setup` of a run that prunes on the same task; whatever
is wrong with a setting is said here, before anything runs.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from experiments.studies.pretrain.config import Config
from experiments.studies.pretrain.methods import (
    Drive,
    Method,
    make_kept_fn,
    make_level_fn,
    make_method,
)
from experiments.trunk.assemble import Setup, about_folder, about_images, summarise_images
from experiments.trunk.progress import LevelProgress
from imp_rg import data
from imp_rg.blocks import BlockPartition, parse_blocks
from imp_rg.config import require
from imp_rg.data.image_files import Crop
from imp_rg.data.image_folder import ImageFolder, load_folder
from imp_rg.foreign import load_variables
from imp_rg.foreign.backbone import load_backbone
from imp_rg.imp.contrastive_train import add_optimizer, strip
from imp_rg.imp.drivers import TrainInfo, cpu_compiler_options, drive, steps_per_epoch
from imp_rg.imp.execution import Execution, choose_execution
from imp_rg.imp.levels import Scheme, assemble_scheme
from imp_rg.imp.modes import Watched
from imp_rg.imp.operator import start_at
from imp_rg.imp.prune import make_schedule
from imp_rg.imp.stream import STREAMED, make_stream_train_fn
from imp_rg.imp.train import make_optimizer
from imp_rg.models import Model, make_model
from imp_rg.models.projector import HEAD, PROJECTOR
from imp_rg.pytree import ones_masks, to_flat
from imp_rg.runs.checkpoints import digest
from imp_rg.runs.tickets import read_ticket, write_level
from imp_rg.types import Batch, Key, Params, TrainFn, Variables, compute_dtype

WEIGHTS, PROJECTION = "weights.safetensors", "projector.safetensors"
"""Files of a pre-training: the network, and what only its own task needs."""


class Pretraining(NamedTuple):
    """Everything that settings determine.

    Attributes:
      config: The settings.
      images: The data.
      train_data: Training set on the device, or a folder of pictures that is streamed.
      test_data: Held-out set.
      model: The network.
      method: How it is trained.
      execution: Driver and strategy.
      epoch_steps: Optimizer steps in one pass over the data.
    """

    config: Config
    images: data.ImageData
    train_data: Batch | ImageFolder
    test_data: Batch | ImageFolder
    model: Model
    method: Method
    execution: Execution
    epoch_steps: int

    @property
    def drive(self) -> Drive:
        """How steps become F."""
        if self.config.is_streamed:
            return make_stream_train_fn
        return functools.partial(drive, driver=self.execution.driver)

    def draw_network(self, key: Key) -> Variables:
        """Initial variables of the network, its classifier included."""
        return jax.jit(self.model.init, static_argnums=1)(key, self.images.x_train.shape[1:])

    def init(self, key: Key) -> Variables:
        """Initial variables of the pre-training, its optimizer among them."""
        network_key, start_key = jax.random.split(key)
        variables = self.method.start(start_key, self.draw_network(network_key))
        train = self.config.train_config(epoch_steps=self.epoch_steps)
        return add_optimizer(variables, make_optimizer(train))

    def partition(self) -> BlockPartition:
        """Blocks of what is trained; no head of any kind can be pruned."""
        network = self.method.encoder or self.model.with_dense_head()
        return network.partition(parse_blocks(self.config.blocks), self.images.x_train.shape[1:])


def prepare(config: Config) -> Pretraining:
    """Loads data and builds network and method; every setting has been checked when it returns."""
    images, train_data, test_data = _load(config)
    model = make_model(
        config.model,
        num_classes=images.num_classes,
        width=config.width,
        stem=config.stem,
        dtype=compute_dtype(config.dtype),
    )
    best = choose_execution(has_convolutions=model.has_convolutions).driver
    execution = Execution(best if config.driver == "auto" else config.driver, "loop")
    return Pretraining(
        config=config,
        images=images,
        train_data=train_data,
        test_data=test_data,
        model=model,
        method=make_method(config, images, model),
        execution=STREAMED if config.is_streamed else execution,
        epoch_steps=steps_per_epoch(len(images.y_train), config.train_config(epoch_steps=1)),
    )


def _load(config: Config) -> tuple[data.ImageData, Batch | ImageFolder, Batch | ImageFolder]:
    """Images or their outline, training and test data."""
    if config.is_streamed:
        folder = load_folder(config.dataset)
        if config.method != "supervised":
            views = config.views
            crop = Crop(area=views.scale, aspect=views.ratio, flip=views.flip)
            folder = dataclasses.replace(folder, crop=crop, num_crops=2)
        return folder.outline(), folder, folder
    images = data.load(
        config.dataset,
        data_dir=config.data_dir,
        augment=None if config.augment == "default" else config.augment,
        normalize=config.statistics,
    )
    train_data = Batch(jnp.asarray(images.x_train), jnp.asarray(images.y_train))
    return images, train_data, Batch(jnp.asarray(images.x_test), jnp.asarray(images.y_test))


def make_epoch_fn(prepared: Pretraining) -> TrainFn:
    """F of one epoch; where the schedule stands is kept in the variables."""
    train = prepared.config.train_config(epoch_steps=prepared.epoch_steps)
    train_fn = make_kept_fn(prepared.method, train, prepared.drive)
    if prepared.execution.driver == "dispatch":
        return train_fn
    options = cpu_compiler_options()
    return jax.jit(train_fn, static_argnames=("start", "stop"), compiler_options=options)


def save_weights(prepared: Pretraining, variables: Variables, folder: Path) -> None:
    """Writes the network, and a projection head beside it, with the names of our leaves.

    A network that was trained without a classifier gets the one that its seed draws.
    """
    config, network = prepared.config, strip(variables)
    named = ("method", "dataset", "model", "width", "stem", "epochs", "seed")
    metadata = {name: str(getattr(config, name)) for name in named}
    metadata["num_classes"] = str(prepared.images.num_classes)
    if prepared.method.encoder is not None:
        head = Variables({PROJECTOR: network.params[PROJECTOR]}, {})
        write_level(folder / PROJECTION, head, ones_masks(head.params), metadata)
        drawn = prepared.draw_network(jax.random.key(config.seed)).params[HEAD]
        network = prepared.method.encoder.to_network(network, drawn)
    write_level(folder / WEIGHTS, network, ones_masks(network.params), metadata)


def load_weights(prepared: Pretraining, path: Path) -> tuple[Variables, Params | None]:
    """A network to prune, and its projection head if one lies beside it.

    Raises:
      ValueError: In one line, if the file holds no such network.
    """
    encoder, beside = prepared.method.encoder, path.parent / PROJECTION
    if encoder is None or prepared.config.init_from is None:
        network = load_variables(path, prepared.model)
    else:
        drawn = prepared.draw_network(jax.random.key(prepared.config.seed))
        network = load_backbone(path, prepared.model, drawn, stem="file")
    if encoder is None or not beside.exists():
        return network, None
    projector = read_ticket(beside).rewind.params.get(PROJECTOR)
    fresh = jax.eval_shape(lambda: encoder.init_projector(jax.random.key(0), network))
    here, there = (jax.tree.map(np.shape, tree) for tree in (fresh, projector))
    require(there == here, str(beside), f"must hold a projection head of shapes {here}", there)
    return network, projector


def prepare_levels(prepared: Pretraining, weights: Path, console: Console) -> Setup:
    """The run that prunes given weights on the task of their pre-training.

    Level 0 is those weights, not trained any further.
    """
    config, method = prepared.config, prepared.method
    network, projector = load_weights(prepared, weights)
    train = config.level_train_config(epoch_steps=prepared.epoch_steps)

    def init(key):
        variables = method.start(key, network, projector)
        is_kept = method.rewind_fn is not None
        return add_optimizer(variables, make_optimizer(train)) if is_kept else variables

    shapes, blocks = jax.eval_shape(init, jax.random.key(0)).params, prepared.partition()
    progress = LevelProgress(
        seeds=config.level_config(epoch_steps=prepared.epoch_steps).seed_list,
        num_levels=config.levels + 1,
        steps=range(train.num_steps),
        console=console,
        metric=method.metric,
    )
    return Setup(
        train_data=prepared.train_data,
        test_data=prepared.test_data,
        init=init,
        apply_fn=method.apply_fn,
        shapes=shapes,
        blocks=blocks,
        execution=prepared.execution,
        progress=progress,
        scheme=_make_scheme(prepared, shapes, blocks, progress),
        about=_about(prepared, network),
        summary=f"{config.method} on {summarise_images(config.dataset, prepared.images)}",
    )


def _make_scheme(
    prepared: Pretraining, shapes: Params, blocks: BlockPartition, progress: LevelProgress
) -> Scheme:
    config, method, execution = prepared.config, prepared.method, prepared.execution
    train = config.level_train_config(epoch_steps=prepared.epoch_steps)
    leaf_sizes = tuple(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    return assemble_scheme(
        make_level_fn(method, train, prepared.drive),
        method.measure,
        start_fn=start_at,
        blocks=blocks,
        schedule=make_schedule(blocks, leaf_sizes, config.prune, num_levels=config.levels + 1),
        execution=execution,
        epoch_steps=prepared.epoch_steps,
        rewind_fn=method.rewind_fn,
        dense_fn=_leave_as_is,
        on_progress=progress.on_progress,
    )


def _leave_as_is(key, variables, masks, data, **options) -> tuple[Watched, TrainInfo]:
    """F of level 0: nothing is trained, so there is no loss."""
    del key, masks, data, options
    info = TrainInfo(loss=jnp.full(1, jnp.nan), is_finite=jnp.bool_(True))
    return Watched(variables, best=variables, best_correct=jnp.int32(-1)), info


def about_data(prepared: Pretraining) -> dict[str, Any]:
    """What config.json says of the data."""
    folder = prepared.train_data
    if isinstance(folder, ImageFolder):
        return about_folder(folder)
    return about_images(prepared.images)


def _about(prepared: Pretraining, network: Variables) -> dict[str, Any]:
    """What config.json of the levels says beyond the settings of an ordinary run."""
    config = prepared.config
    return about_data(prepared) | {
        "metric": f"test {prepared.method.metric} (%)",
        "method": config.method,
        "stem": config.stem,
        "normalize": config.normalize,
        "weights_sha256": digest(to_flat(network))[:16],
    }
