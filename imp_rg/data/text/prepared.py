"""Rows of a task from prepared sets of TensorFlow Datasets (``glue/*``, ``squad/v1.1``)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from imp_rg.config import require
from imp_rg.data.arrays import first_line
from imp_rg.data.prepared import (
    check_format,
    find_prepared,
    not_prepared,
    open_split,
    prepared_root,
)
from imp_rg.data.text.jsonl import Row
from imp_rg.data.text.tasks import Task


def read_prepared(
    task: Task, split: str, *, data_dir: str | Path | None = None
) -> Iterator[tuple[str, Row]]:
    """Yields the rows of one split, each with its place (split and row) for messages.

    Args:
      task: Whose rows they are.
      split: ``train`` or ``validation``; of MNLI the matched one.
      data_dir: Folder of prepared sets, or the folder of one set; default as in TensorFlow
        Datasets.

    Raises:
      ValueError: If the set is not prepared in array_record format, or rows are missing.

    References:
      https://www.tensorflow.org/datasets/data_source
    """
    root = prepared_root(data_dir)
    folder = find_prepared(task.prepared, root)
    if folder is None:
        raise not_prepared(task.prepared, root)
    name = task.validation if split == "validation" else split
    try:
        source = _open_source(folder, name)
        for i in range(len(source)):
            yield f"{task.prepared} {name} row {i}", _plain(source[i])
    except Exception as error:  # TFDS and array_record raise many types for damaged files
        raise ValueError(f"data_dir: cannot read {str(folder)!r}: {first_line(error)}") from error


def _open_source(folder: Path, split: str) -> Any:
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(folder)
    check_format(builder)
    available = list(builder.info.splits)
    require(split in available, "splits", f"must hold {split}", available)
    return open_split(builder, split)


def _plain(value: Any) -> Any:
    """Values as JSON would have them: text for bytes, numbers and lists for arrays."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
