"""The pre-trainings that cells of a vision experiment start from, run by the experiment itself.

In: a config and an init METHOD:DATASET. Out: settings of `experiments.pretrain`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.studies.pretrain import config as pretrain_config
from experiments.studies.vision.config import Cell, Config, slug
from experiments.studies.vision.tasks import Task, load_images
from imp_rg.data import ImageData
from imp_rg.data.image_folder import PREFIX, load_folder
from imp_rg.runs.folder import has_finished

VIEWS = {"supervised": 1, "simclr": 2, "moco": 2}
"""Views of an image that a step of each method trains on."""


def source_folder(out: Path, init: str) -> Path:
    """Where the pre-training of an init lies below the output. House definition."""
    return out / "pretrain" / slug(init)


def pretrain_settings(config: Config, init: str, out: Path) -> pretrain_config.Config:
    """Settings of the pre-training of an init. House definition."""
    source = config.sources[init]
    return pretrain_config.Config(
        method=source.method,
        dataset=source.dataset,
        data_dir=config.data_dir,
        model=config.model,
        width=config.width,
        stem=config.stem,
        augment=config.augment,
        epochs=config.pretrain_epochs,
        batch_size=config.batch_size,
        device=config.device,
        dtype=config.dtype,
        deterministic=config.deterministic,
        out=source_folder(out, init),
        fresh=config.fresh,
    )


def num_pixels(config: Config, cells: Sequence[Cell], tasks: Mapping[str, Task], out: Path) -> int:
    """Pixels that the pre-trainings are still to see, of all that these cells start from."""
    total = 0
    for init in {cell.init for cell in cells} & config.sources.keys():
        if not config.fresh and has_finished(source_folder(out, init)):
            continue
        method, dataset = config.sources[init]
        images = tasks[dataset].images if dataset in tasks else _load(config, dataset)
        one = images.x_train[0].shape[0] * images.x_train[0].shape[1]
        total += config.pretrain_epochs * len(images.y_train) * one * VIEWS[method]
    return total


def _load(config: Config, dataset: str) -> ImageData:
    """Images of a set that is no task; of a streamed one their outline."""
    if dataset.startswith(PREFIX):
        return load_folder(dataset).outline()
    return load_images(config, dataset)
