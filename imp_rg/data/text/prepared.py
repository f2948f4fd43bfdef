"""Rows of a task from prepared sets of TensorFlow Datasets (``glue/*``, ``squad/v1.1``)."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from imp_rg.config import require
from imp_rg.data.arrays import first_line
from imp_rg.data.images import _find_prepared
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
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    root = root.expanduser().resolve()
    folder = _find_prepared(task.prepared, root)
    command = (
        f"import tensorflow_datasets as t; t.data_source('{task.prepared}', data_dir='{root}')"
    )
    if folder is None:
        raise ValueError(
            f"data_dir: {task.prepared!r} is not prepared in {str(root)!r}; pass another folder, "
            "or prepare it once with a network: pip install 'imp_rg[tfds]', then "
            f'python -c "{command}"'
        )
    name = task.validation if split == "validation" else split
    try:
        source = _open_source(folder, name)
        for i in range(len(source)):
            yield f"{task.prepared} {name} row {i}", _plain(source[i])
    except Exception as error:  # TFDS and array_record raise many types for damaged files
        raise ValueError(f"data_dir: cannot read {str(folder)!r}: {first_line(error)}") from error


def _open_source(folder: Path, split: str) -> Any:
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordReader

    builder: Any = tfds.builder_from_directory(folder)
    file_format = builder.info.file_format.value
    rule = "file format must be array_record, as tfds.data_source prepares it"
    require(file_format == "array_record", "dataset", rule, file_format)
    available = list(builder.info.splits)
    require(split in available, "dataset", f"must have the split {split}", available)
    info = builder.info.splits[split]
    for path, promised in zip(info.filepaths, info.shard_lengths, strict=True):
        rule = f"must hold the {promised} rows that dataset_info.json lists"
        found = ArrayRecordReader(str(path)).num_records()
        require(found == promised, path.name, rule, found)
    return builder.as_data_source(split=split)


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
