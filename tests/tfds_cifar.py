"""Test helper: the real CIFAR sets as TensorFlow Datasets would prepare them, as array_record.

Images come from the shared lossless copy (`IMP_RG_SHARED`, else `../shared/data` beside the
repository), the directory from TFDS's own writer, so reading it exercises the real library. Run
`python -m tests.tfds_cifar OUT_DIR --dataset cifar100` for a full set, then
`--dataset cifar100 --data-dir OUT_DIR`; without `--dataset` it is CIFAR-10.
"""

import argparse
import importlib.util
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

SHARED = Path(os.environ.get("IMP_RG_SHARED", Path(__file__).parents[2] / "shared" / "data"))
CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()


def read_shared(
    split: str, num: int | None = None, *, dataset: str = "cifar10"
) -> tuple[np.ndarray, np.ndarray]:
    """First `num` images (uint8 [example 32 32 3]) and labels of a split of a shared set."""
    spec = importlib.util.spec_from_file_location("shared_decode", SHARED / "decode.py")
    assert spec is not None and spec.loader is not None
    decode = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(decode)
    shards = [0] if split == "train" and num is not None and num <= 25_000 else None
    x, y = decode.load_images(dataset, split, shards)
    return x[:num], y[:num]


def encode_png(image: np.ndarray) -> io.BytesIO:
    """A picture, uint8 [height width channel], as the bytes of a PNG file."""
    png = io.BytesIO()
    Image.fromarray(image.squeeze()).save(png, format="PNG")
    png.seek(0)
    return png


class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """CIFAR-10 under its TFDS name; images travel as PNG, which needs no TensorFlow."""

    name = "cifar10"
    VERSION = tfds.core.Version("3.0.2")
    label = tfds.features.ClassLabel(names=CLASSES)
    code_path = None  # TFDS only looks for checksums there, with a package it does not require

    def __init__(self, *, sizes: dict[str, int | None], **kwargs: Any):
        """Remember how many images each split gets (None: all)."""
        self.sizes = sizes
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": self.label,
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split, num) for split, num in self.sizes.items()}

    def _generate_examples(self, split: str, num: int | None) -> Iterator[tuple[int, dict]]:
        images = read_shared(split, num, dataset=self.name)
        for i, (image, label) in enumerate(zip(*images, strict=True)):
            name = f"{split}_{i:05d}"
            yield i, {"id": name, "image": encode_png(image), "label": int(label)}


class Cifar100(Cifar10, skip_registration=True):
    """CIFAR-100 with its fine labels, likewise."""

    name = "cifar100"
    label = tfds.features.ClassLabel(num_classes=100)


BUILDERS = {builder.name: builder for builder in (Cifar10, Cifar100)}


def write_cifar(
    data_dir: str | Path,
    *,
    dataset: str = "cifar10",
    num_train: int | None = None,
    num_test: int | None = None,
    file_format: str = "array_record",
) -> Path:
    """Write the first images of both splits with TFDS and return the builder directory."""
    builder = BUILDERS[dataset](
        sizes={"train": num_train, "test": num_test}, data_dir=data_dir, file_format=file_format
    )
    builder.download_and_prepare()
    return Path(builder.data_dir)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write CIFAR as an array_record directory.")
    parser.add_argument("data_dir")
    parser.add_argument("--dataset", choices=sorted(BUILDERS), default="cifar10")
    parser.add_argument("--num-train", type=int, help="training images (default: all 50,000)")
    parser.add_argument("--num-test", type=int, help="test images (default: all 10,000)")
    options = parser.parse_args()
    start = time.perf_counter()
    sizes = {"num_train": options.num_train, "num_test": options.num_test}
    path = write_cifar(options.data_dir, dataset=options.dataset, **sizes)
    print(f"{path} written in {time.perf_counter() - start:.0f} s")
