"""Prepared image-classification sets of TensorFlow Datasets, by name.

A set is read once through TFDS, without TensorFlow, and kept as uint8 arrays in the user's cache
folder; later runs need no TFDS.
"""

import difflib
import hashlib
import os
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from imp_rg.config import require
from imp_rg.data.arrays import Splits, check_labels, check_splits, first_line, read_arrays
from imp_rg.data.prepared import (
    check_format,
    find_prepared,
    not_prepared,
    open_split,
    prepared_root,
)

_CACHED = ("x_train", "y_train", "x_test", "y_test", "num_classes")


def load_tfds(name: str, *, data_dir: str | Path | None = None) -> Splits:
    """Reads a prepared image-classification set of TensorFlow Datasets, or its cached copy.

    Args:
      name: ``NAME[/CONFIG][:VERSION]``; without a version the highest prepared one.
      data_dir: Folder of prepared sets, or the folder of one set; default ``$TFDS_DATA_DIR``, else
        ``~/tensorflow_datasets``.

    Returns:
      Split ``train``, and ``test`` or else ``validation``; uint8 images of one size.

    Raises:
      ValueError: If the name is unknown, the set is not prepared in array_record format, rows are
        missing, or it is no set of equally sized images with one label each.

    References:
      https://www.tensorflow.org/datasets/data_source
    """
    root = prepared_root(data_dir)
    folder = find_prepared(name, root)
    cache_path = _cache_path(name, root)
    cached = _read_cache(cache_path, fingerprint=folder and _fingerprint(folder))
    if cached is not None:
        return cached
    if folder is None:
        _raise_not_found(name, root)
    splits = _read_prepared(name, folder)
    _write_cache(cache_path, splits, fingerprint=_fingerprint(folder))
    return splits


def _raise_not_found(name: str, root: Path) -> NoReturn:
    """Says what to do about a set that is neither prepared nor cached."""
    try:
        import tensorflow_datasets as tfds

        known = tfds.list_builders(with_community_datasets=False)
    except ImportError:
        known = ["cifar10", "cifar100", "fashion_mnist", "mnist", "svhn_cropped"]
    if re.split("[/:]", name)[0] not in known:
        near = difflib.get_close_matches(name, ["digits", *known], n=3)
        rule = "must be digits, npz:PATH or the name of a prepared TensorFlow Datasets set"
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise ValueError(f"dataset: {rule}, got {name!r}{hint}")
    raise not_prepared(name, root)


def _read_prepared(name: str, folder: Path) -> Splits:
    """Reads all rows through TFDS; whatever it raises becomes one line naming the folder."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        rule = "needs tensorflow-datasets to be read the first time: pip install 'imp_rg[tfds]'"
        raise ValueError(f"dataset: {rule}, got {name!r}") from error
    try:
        builder: Any = tfds.builder_from_directory(folder)
        image, label = _feature_names(builder, name)
        available = list(builder.info.splits)
        test = "test" if "test" in available else "validation"
        rule = "needs the splits train and test (or validation)"
        require({"train", test} <= set(available), "dataset", rule, available)
        x_train, y_train = _read_split(builder, "train", image, label)
        x_test, y_test = _read_split(builder, test, image, label)
        num_classes = builder.info.features[label].num_classes
        return check_splits(Splits(x_train, y_train, x_test, y_test, num_classes))
    except Exception as error:  # TFDS and array_record raise many types for damaged files
        raise ValueError(f"data_dir: cannot read {str(folder)!r}: {first_line(error)}") from error


def _feature_names(builder: Any, name: str) -> tuple[str, str]:
    """Names of the image and the class of a set that can be used."""
    import tensorflow_datasets as tfds

    info, base = builder.info, re.split("[/:]", name)[0]
    require(info.name == base, "dataset", f"must be {info.name!r}, which the folder holds", base)
    check_format(builder)
    keys: Any = info.supervised_keys or ()
    kinds = [type(info.features[k]) for k in keys]
    rule = "supervised keys must be an image and a class"
    require(kinds == [tfds.features.Image, tfds.features.ClassLabel], "dataset", rule, keys)
    return keys


def _read_split(builder: Any, split: str, image: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [example height width channel] and labels int32 [example] of one split."""
    num = builder.info.splits[split].num_examples
    require(num > 0, split, "must not be empty", num)
    source = open_split(builder, split)
    shape, dtype = source[0][image].shape, source[0][image].dtype
    is_fit = dtype == np.uint8 and shape[2:] in ((1,), (3,))
    require(is_fit, split, "must hold 8-bit grey or RGB images", f"{dtype} {shape}")
    x, y = np.empty((num, *shape), np.uint8), np.empty(num, np.int64)
    for i, row in enumerate(source):
        size = row[image].shape
        require(size == shape, split, f"images must be of one size {shape}", size)
        x[i], y[i] = row[image], row[label]
    return x, check_labels(f"label of {split}", y)


def _cache_path(name: str, root: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "imp_rg" / "data"
    digest = hashlib.sha256(f"{name}\n{root}".encode()).hexdigest()[:12]
    return cache / f"{re.sub(r'[^A-Za-z0-9.]', '-', name)}-{digest}.npz"


def _fingerprint(folder: Path) -> str:
    """Changes when a set is prepared anew: description, file names and file sizes."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        if path.suffix == ".json":
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _read_cache(path: Path, *, fingerprint: str | None) -> Splits | None:
    """The cached arrays, None if there are none, they are damaged, or the files have changed."""
    try:
        arrays = read_arrays(path, ("fingerprint", *_CACHED))
    except ValueError:
        return None
    if fingerprint not in (None, str(arrays.pop("fingerprint"))):
        return None
    num_classes = int(arrays.pop("num_classes"))
    return Splits(**arrays, num_classes=num_classes)


def _write_cache(path: Path, splits: Splits, *, fingerprint: str) -> None:
    """Writes beside and renames, so that a cache is whole or absent; failing is only a warning."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            try:
                arrays = {name: getattr(splits, name) for name in _CACHED}
                np.savez(file, fingerprint=np.asarray(fingerprint), **arrays)
                file.close()
                os.replace(file.name, path)
            except BaseException:  # Ctrl-C too: no half file stays, and it is raised again
                os.unlink(file.name)
                raise
    except OSError as error:
        warnings.warn(f"data cache not written: {first_line(error)}", stacklevel=2)
