"""What each method of pre-training is made of: a start, a step of F, a test metric.

In: settings, images, a network. Out: a `Method`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.studies.pretrain.config import Config
from imp_rg.config import TrainConfig, require
from imp_rg.data import ImageData
from imp_rg.imp.contrastive_train import (
    add_key_encoder,
    begin_kept,
    keep_optimizer,
    make_moco_step,
    make_simclr_step,
    rewind_both,
)
from imp_rg.imp.evaluate import make_measure_fn
from imp_rg.imp.operator import RewindFn
from imp_rg.imp.retrieval import MeasureFn, make_key_fn, make_retrieval_fn
from imp_rg.imp.stream import make_stream_measure_fn
from imp_rg.imp.train import make_begin, make_optimizer, make_train_step
from imp_rg.models import Model
from imp_rg.models.projector import Encoder
from imp_rg.types import TrainFn, Variables

Drive = Callable[..., TrainFn]
"""From a step, its start and a schedule to F: `imp_rg.imp.drivers.drive`, or for a stream."""


class Method(NamedTuple):
    """What a method of pre-training is made of.

    Attributes:
      start: `(key, network, projector=None) -> variables`, from a network to what is trained, but
        for the optimizer; a projection head is drawn if none is given.
      make_step: From a schedule to one step, see `imp_rg.imp.drivers.drive`; its carry is the pair
        of variables and optimizer state.
      rewind_fn: What a level starts from; None where it is all of the rewind variables.
      measure: Test metric.
      metric: Its name.
      apply_fn: Network, or encoder.
      encoder: Where a projection head takes the place of the classifier, else None.
    """

    start: Callable[..., Variables]
    make_step: Callable[[TrainConfig], Callable[..., Any]]
    rewind_fn: RewindFn | None
    measure: MeasureFn
    metric: str
    apply_fn: Callable[..., Any]
    encoder: Encoder | None


def make_method(config: Config, images: ImageData, model: Model) -> Method:
    """Builds the method of the settings.

    Raises:
      ValueError: If the images are unfit for views.
    """
    lowest, peak = _pixel_range(config, images)
    mean, std = images.mean, images.std
    if config.scales_to_range:
        mean, std = np.zeros_like(mean), np.full_like(std, peak)
    if config.method == "supervised":
        return _supervised(config, model.make_apply_fn(mean, std), images)
    is_fit = lowest >= 0 and peak > 0
    require(is_fit, "dataset", "must have pixels from 0 up to draw views of", (lowest, peak))
    encoder = Encoder(model=model, num_outputs=config.num_outputs)
    make = _simclr if config.method == "simclr" else _moco
    views = {"views": config.views, "peak": peak}
    return make(config, encoder, encoder.make_encode_fn(mean, std), len(images.y_train), views)


def _pixel_range(config: Config, images: ImageData) -> tuple[float, float]:
    """Least and largest raw value of a training pixel; files of pictures hold 8 bits."""
    if config.is_streamed:
        return 0.0, 255.0
    return float(images.x_train.min()), float(images.x_train.max())


def _supervised(config: Config, apply_fn, images: ImageData) -> Method:
    if config.is_streamed:
        measure = make_stream_measure_fn(apply_fn, batch_size=config.batch_size)
    else:
        measure = make_measure_fn(apply_fn, driver="dispatch", strategy="loop")

    def make_step(train: TrainConfig):
        return make_train_step(apply_fn, make_optimizer(train), config=train, policy=images.augment)

    return Method(
        start=lambda key, network, projector=None: network,
        make_step=make_step,
        rewind_fn=None,
        measure=measure,
        metric="accuracy",
        apply_fn=apply_fn,
        encoder=None,
    )


def _simclr(config: Config, encoder: Encoder, encode_fn, num_images: int, views: Any) -> Method:
    contrast = config.contrastive_config(num_images=num_images)

    def make_step(train: TrainConfig):
        tx = make_optimizer(train)
        return make_simclr_step(encode_fn, tx, train=train, config=contrast, **views)

    return Method(
        start=encoder.attach,
        make_step=make_step,
        rewind_fn=rewind_both,
        measure=make_retrieval_fn(encode_fn, batch_size=config.batch_size, **views),
        metric="retrieval accuracy",
        apply_fn=encode_fn,
        encoder=encoder,
    )


def _moco(config: Config, encoder: Encoder, encode_fn, num_images: int, views: Any) -> Method:
    contrast = config.contrastive_config(num_images=num_images)

    def start(key, network, projector=None):
        projector_key, queue_key = jax.random.split(key)
        variables = encoder.attach(projector_key, network, projector)
        return add_key_encoder(queue_key, variables, contrast, num_outputs=config.num_outputs)

    def make_step(train: TrainConfig):
        tx = make_optimizer(train)
        return make_moco_step(encode_fn, tx, train=train, config=contrast, **views)

    sizes = {"batch_size": config.batch_size, "queue_size": contrast.queue_size}
    return Method(
        start=start,
        make_step=make_step,
        rewind_fn=rewind_both,
        measure=make_key_fn(encode_fn, **sizes, **views),
        metric="key accuracy",
        apply_fn=encode_fn,
        encoder=encoder,
    )


def make_kept_fn(method: Method, train: TrainConfig, drive: Drive) -> TrainFn:
    """F that takes the optimizer up where the variables left it."""
    return drive(keep_optimizer(method.make_step(train)), begin_kept, config=train)


def make_level_fn(method: Method, train: TrainConfig, drive: Drive) -> TrainFn:
    """F of a level; supervised ones begin with a fresh optimizer, as in the study."""
    if method.rewind_fn is not None:
        return make_kept_fn(method, train, drive)
    return drive(method.make_step(train), make_begin(make_optimizer(train)), config=train)
