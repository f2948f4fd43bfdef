"""Images too large for memory: folders of image files, streamed in batches by Grain.

``folder:PATH`` holds ``train/CLASS/*`` and ``val/CLASS/*`` (or ``test/CLASS/*``), images as jpg,
jpeg or png. A network sees parts of 224 pixels a side, or N with ``folder:PATH+resize=N``. In: the
name. Out: an `ImageFolder`, whose batches depend on seed and step alone, so that a run can go on at
any step.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from imp_rg.config import LastBatch, require
from imp_rg.data import ImageData
from imp_rg.data.derived import image_size, split_name
from imp_rg.data.image_files import CROP, Crop, central_crop, read_image_file, sample_crop
from imp_rg.data.statistics import IMAGENET_MEAN, IMAGENET_STD
from imp_rg.types import StreamBatch

PREFIX = "folder:"
SUFFIXES = (".jpg", ".jpeg", ".png")
EVALUATED = ("val", "test")
"""Where held-out images lie; the first that is there counts."""

IMAGE_SIZE = 224

_Row = tuple[np.ndarray, int]


class Files(NamedTuple):
    """Picture files of one split.

    Attributes:
      paths: Sorted by class, then by name.
      labels: Their classes, [example].
    """

    paths: tuple[Path, ...]
    labels: Int[np.ndarray, " example"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFolder:
    """A data set that is read from disk as it is needed.

    Attributes:
      name: As given to `load_folder`.
      classes: Names, sorted; their places are the labels.
      train: Training images.
      test: Held-out images.
      image_size: Height and width of what the network sees.
      crop: How training images are cut.
      num_crops: Parts of a training image; of several, a batch is [batch crop height width 3].
    """

    name: str
    classes: tuple[str, ...]
    train: Files
    test: Files
    image_size: int
    crop: Crop = CROP
    num_crops: int = 1

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def num_train(self) -> int:
        """Number of training images."""
        return len(self.train.paths)

    @property
    def num_test(self) -> int:
        """Number of held-out images."""
        return len(self.test.paths)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return (self.image_size, self.image_size, 3)

    @property
    def mean(self) -> Float[np.ndarray, " channel"]:
        """What to subtract, in raw pixel units: the constants of ImageNet."""
        return 255 * np.asarray(IMAGENET_MEAN, np.float32)

    @property
    def std(self) -> Float[np.ndarray, " channel"]:
        """What to divide by, in raw pixel units."""
        return 255 * np.asarray(IMAGENET_STD, np.float32)

    @property
    def sha256(self) -> str:
        """Names the files by their paths within the splits, not by what they hold."""
        names = ["/".join(path.parts[-2:]) for path in (*self.train.paths, *self.test.paths)]
        return hashlib.sha256("\n".join([str(self.num_train), *names]).encode()).hexdigest()[:16]

    def outline(self) -> ImageData:
        """Names, counts, labels and statistics as of arrays; their pixels are 0 and take no memory.

        House definition.
        """
        pixels = [
            np.broadcast_to(np.uint8(0), (num, *self.image_shape))
            for num in (self.num_train, self.num_test, 0)
        ]
        return ImageData(
            name=self.name,
            x_train=pixels[0],
            y_train=self.train.labels,
            x_test=pixels[1],
            y_test=self.test.labels,
            x_val=pixels[2],
            y_val=self.test.labels[:0],
            num_classes=self.num_classes,
            mean=self.mean,
            std=self.std,
            augment="none",
        )

    def train_batches(
        self, seed: int, *, batch_size: int, last_batch: LastBatch, start: int, stop: int
    ) -> Iterator[StreamBatch]:
        """Random crops of the steps [start, stop), a new order each epoch.

        Args:
          seed: Of order and crops, below 2**32.
          batch_size: Images a step.
          last_batch: Whether the incomplete batch at the end of an epoch is dropped or kept, filled
            up with weight 0.
          start: First step; its batch does not depend on it.
          stop: After the last step.

        Yields:
          One batch a step, read ahead by threads.

        Raises:
          ValueError: If a batch is larger than the data, or a file is damaged.

        References:
          House definition.
        """
        rule = f"must not exceed the {self.num_train} training images"
        require(1 <= batch_size <= self.num_train, "batch_size", rule, batch_size)
        left = self.num_train % batch_size if last_batch == "drop" else 0
        epoch = self.num_train - left
        sizes = [min(batch_size, epoch - first) for first in range(0, epoch, batch_size)]

        def position(step: int) -> int:
            return step // len(sizes) * epoch + step % len(sizes) * batch_size

        order = _grain().MapDataset.range(self.num_train).seed(seed).shuffle()[:epoch]
        rows = order.random_map(self._draw).repeat()[position(start) : position(stop)]
        return _batches(rows, [sizes[step % len(sizes)] for step in range(start, stop)], batch_size)

    def test_batches(self, batch_size: int) -> Iterator[StreamBatch]:
        """The centres of all held-out images in order, the last batch filled up with weight 0.

        Args:
          batch_size: Images a batch.

        Yields:
          Batches, read ahead by threads.

        Raises:
          ValueError: If a file is damaged.

        References:
          House definition.
        """
        rows = _grain().MapDataset.range(self.num_test).map(self._take)
        sizes = [min(batch_size, len(rows) - i) for i in range(0, len(rows), batch_size)]
        return _batches(rows, sizes, batch_size)

    def _draw(self, row: int, rng: np.random.Generator) -> _Row:
        image, label = read_image_file(self.train.paths[row]), self.train.labels[row]
        crops = [
            sample_crop(image, rng, size=self.image_size, crop=self.crop)
            for _ in range(self.num_crops)
        ]
        return (crops[0] if self.num_crops == 1 else np.stack(crops)), label

    def _take(self, row: int) -> _Row:
        image = read_image_file(self.test.paths[row])
        return central_crop(image, size=self.image_size), self.test.labels[row]


def load_folder(name: str) -> ImageFolder:
    """Lists the images of a folder; none is read.

    Args:
      name: ``folder:PATH`` or ``folder:PATH+resize=N``.

    Raises:
      ValueError: In one line, if the folder has not two splits with the same classes, a class has
        no image, N is no size, or Grain is not installed.

    References:
      House definition; layout as for torchvision's folders.
    """
    _grain()
    base, resized = split_name(name)
    size = image_size(resized[0].removeprefix("resize=")) if resized else IMAGE_SIZE
    root = Path(base.removeprefix(PREFIX)).expanduser()
    splits = [part for part in EVALUATED if (root / part).is_dir()]
    is_whole = (root / "train").is_dir() and len(splits) > 0
    require(is_whole, "dataset", "folder: needs PATH with train/ and val/ or test/", str(root))
    classes, test_classes = (_class_names(root / part) for part in ("train", splits[0]))
    rule = f"folder: train and {splits[0]} must have the same classes; in one of them only"
    strange = sorted(set(classes) ^ set(test_classes))
    require(not strange, "dataset", rule, strange[:5])
    require(len(classes) >= 2, "dataset", f"folder: {root / 'train'} needs 2 classes", classes)
    return ImageFolder(
        name=name,
        classes=classes,
        train=_list_files(root / "train", classes),
        test=_list_files(root / splits[0], classes),
        image_size=size,
    )


def _grain() -> Any:
    try:
        import grain
    except ImportError as error:
        rule = "dataset: folder: needs grain to be read: pip install 'imp-rg[stream]'"
        raise ValueError(rule) from error
    return grain


def _class_names(folder: Path) -> tuple[str, ...]:
    """Folders within a folder, but for hidden ones."""
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return tuple(sorted(name for name in names if not name.startswith(".")))


def _list_files(folder: Path, classes: tuple[str, ...]) -> Files:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(filter(_is_image, (folder / name).iterdir()))
        require(len(found) > 0, "dataset", f"folder: {folder / name} needs images", "none")
        paths += found
        labels += [label] * len(found)
    return Files(tuple(paths), np.asarray(labels, np.int32))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _batches(rows: Any, sizes: Iterable[int], batch_size: int) -> Iterator[StreamBatch]:
    """Groups the elements of a Grain dataset; its threads end with the iterator."""
    iterator = iter(rows.to_iter_dataset())
    try:
        for size in sizes:
            yield _stack(list(islice(iterator, size)), batch_size)
    finally:
        iterator.close()


def _stack(rows: list[_Row], batch_size: int) -> StreamBatch:
    padding = [rows[0]] * (batch_size - len(rows))
    x, y = zip(*rows, *padding, strict=True)
    weights = (np.arange(batch_size) < len(rows)).astype(np.float32)
    return StreamBatch(x=np.stack(x), y=np.asarray(y, np.int32), weights=weights)
