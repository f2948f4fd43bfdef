"""From settings to everything a run needs: data, network, blocks, scheme.

In: a config. Out: a `Setup`; whatever is wrong with a setting is said here, before anything runs.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from experiments.shell.settings import identity
from experiments.shell.study import seconds_of
from experiments.trunk.config import Config
from experiments.trunk.progress import LevelProgress
from imp_rg import data
from imp_rg.blocks import BlockPartition, parse_blocks
from imp_rg.imp.execution import Execution, choose_execution
from imp_rg.imp.levels import Scheme, make_scheme
from imp_rg.imp.replicates import num_usable_cores, stack
from imp_rg.models import make_model
from imp_rg.pytree import ones_masks
from imp_rg.types import Batch, Key, Params, Variables

if TYPE_CHECKING:  # a run of arrays reads no folders
    from imp_rg.data.image_folder import ImageFolder

TIMED_STEPS = 8


class Setup(NamedTuple):
    """Everything that settings determine, for images and texts.

    Attributes:
      train_data: Training set on the device (`Batch`, `ValidatedBatch`), or a `Stream`.
      test_data: Held-out set, `Batch` or `Stream`.
      init: From a key to the initial variables of a replicate.
      apply_fn: Network.
      shapes: Of its params.
      blocks: Partition.
      execution: Driver and strategy.
      progress: Display, fed by the scheme.
      scheme: M, F and T, lifted over the seeds.
      about: What config.json says of data and metric beyond the settings.
      summary: What the first line says of the data.
      program: What setups with the same settings of pruning and training must share for one
        compiled program to serve them; empty if that is not known.
    """

    train_data: Any
    test_data: Any
    init: Callable[[Key], Variables]
    apply_fn: Callable[..., Any]
    shapes: Params
    blocks: BlockPartition
    execution: Execution
    progress: LevelProgress
    scheme: Scheme
    about: Mapping[str, Any]
    summary: str
    program: tuple[Any, ...] = ()

    @property
    def num_kept(self) -> np.ndarray:
        """Surviving prunable weights of each level."""
        return sum(self.blocks.sizes) - self.scheme.schedule.sum(axis=1).cumsum()


def prepare(config: Config, console: Console) -> Setup:
    """Loads data and builds the scheme; every setting has been checked when it returns."""
    augment = None if config.augment == "default" else config.augment
    images = data.load(
        config.dataset, data_dir=config.data_dir, augment=augment, normalize=config.normalize
    )
    model = make_model(
        config.model,
        num_classes=images.num_classes,
        width=config.width,
        shortcut=config.shortcut,
        gamma_init=config.gamma_init,
    )
    if config.head == "dense":
        model = model.with_dense_head()
    input_shape = images.x_train.shape[1:]
    shapes = model.shapes(input_shape)
    blocks = model.partition(parse_blocks(config.blocks), input_shape)
    best = choose_execution(has_convolutions=model.has_convolutions)
    driver = best.driver if config.driver == "auto" else config.driver
    strategy = best.strategy if config.replicates == "auto" else config.replicates
    execution = Execution(driver, strategy)
    steps = range(config.train.first_step, config.train.num_steps)
    progress = LevelProgress(
        seeds=config.seed_list, num_levels=config.levels + 1, steps=steps, console=console
    )
    apply_fn = model.make_apply_fn(images.mean, images.std)
    scheme = make_scheme(
        apply_fn,
        blocks=blocks,
        leaf_sizes=tuple(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes)),
        num_examples=len(images.y_train),
        num_levels=config.levels + 1,
        prune_config=config.prune,
        train_config=config.train,
        execution=execution,
        score=config.score,
        policy=images.augment,
        on_progress=progress.on_progress,
    )
    return Setup(
        train_data=Batch(jnp.asarray(images.x_train), jnp.asarray(images.y_train)),
        test_data=Batch(jnp.asarray(images.x_test), jnp.asarray(images.y_test)),
        init=lambda key: model.init(key, input_shape),
        apply_fn=apply_fn,
        shapes=shapes,
        blocks=blocks,
        execution=execution,
        progress=progress,
        scheme=scheme,
        about=about_images(images),
        summary=summarise_images(config.dataset, images),
        program=(repr(model.module), images.mean.tobytes(), images.std.tobytes(), images.augment)
        + tuple(array.shape for array in (images.x_train, images.x_test)),
    )


def about_images(images: data.ImageData) -> dict[str, Any]:
    """What config.json says of a set of images. House definition."""
    return {
        "augment": images.augment,
        "data_sha256": _data_digest(images),
        "num_test": len(images.y_test),
        "metric": "test accuracy (%)",
    }


def about_folder(folder: "ImageFolder") -> dict[str, Any]:
    """What config.json says of a streamed set, which is known by the names of its files.

    House definition.
    """
    return {
        "augment": "random_crop",
        "data_sha256": folder.sha256,
        "num_test": folder.num_test,
        "metric": "test accuracy (%)",
    }


def summarise_images(dataset: str, images: data.ImageData) -> str:
    """A set of images in one line. House definition."""
    size = "x".join(map(str, images.x_train.shape[1:]))
    return (
        f"{dataset}: {len(images.y_train):,} training and {len(images.y_test):,} test images, "
        f"{size}, {images.num_classes} classes"
    )


def headline(config: Config, setup: Setup) -> str:
    """The first line a user sees: device, data, model."""
    device = jax.devices()[0]
    where = f"{num_usable_cores()} CPU cores" if device.platform == "cpu" else device.device_kind
    total = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(setup.shapes))
    return (
        f"{where} · {setup.summary} · "
        f"{config.model}: {sum(setup.blocks.sizes):,} of {total:,} weights prunable · "
        f"seeds {config.seed_list}, levels 0 to {config.levels} · "
        f"{setup.execution.driver}, {setup.execution.strategy} · compiling"
    )


def _data_digest(images: data.ImageData) -> str:
    """Names the arrays themselves: a file may change under its name."""
    sha = hashlib.sha256()
    for array in (images.x_train, images.y_train, images.x_test, images.y_test):
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()[:16]


def estimate_seconds(config: Config, setup: Setup) -> float:
    """Time of the whole run, from a few steps of all replicates after some that compile.

    The steps are those of the scheme itself: the run need not compile them again where they are
    dispatched.
    """
    train, num_tried = config.train, min(TIMED_STEPS, config.train.num_steps)
    take_steps = make_trial(config, setup, num_steps=num_tried)

    steps = train.rewind_step + (config.levels + 1) * (train.num_steps - train.first_step)
    return steps * seconds_of(lambda: jax.block_until_ready(take_steps())) / num_tried


def make_trial(config: Config, setup: Setup, *, num_steps: int) -> Callable[[], Any]:
    """A call that takes the first steps of all replicates, unpruned, and returns what they gave.

    House definition.
    """
    init_fn, try_steps = jax.jit(setup.init), setup.scheme.make_try(num_steps)
    keys = jax.vmap(jax.random.key)(jnp.arange(config.seeds))
    variables = stack([init_fn(jax.random.key(seed)) for seed in config.seed_list])
    masks = ones_masks(variables.params)
    return lambda: try_steps(jax.random.clone(keys), variables, masks, setup.train_data)


def resolved_settings(config: Config, setup: Setup) -> dict[str, Any]:
    """Every setting that makes a run what it is, flat and in JSON types.

    Left out: where the run lies, how it is started, and which files beside the results it keeps.
    """
    return identity(config) | determined(setup)


def determined(setup: Setup) -> dict[str, Any]:
    """What config.json says beyond the settings: device, execution, blocks, data."""
    return {
        "device": jax.default_backend(),
        "driver": setup.execution.driver,
        "replicates": setup.execution.strategy,
        "block_names": list(setup.blocks.names),
        "num_listed": setup.blocks.num_listed,
        "num_prunable": sum(setup.blocks.sizes),
        **setup.about,
    }
