"""Prepared sets of TensorFlow Datasets on disk: where they lie, and whether they are whole.

In: a name and a folder. Out: the folder of the set, and data sources of its splits, read without
TensorFlow.
"""

import os
import re
from pathlib import Path
from typing import Any

from imp_rg.config import require

_NAME = re.compile(r"(?P<base>\w+)(/(?P<config>[\w.\-]+))?(:(?P<version>[\d.*]+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def prepared_root(data_dir: str | Path | None) -> Path:
    """The folder of prepared sets: as given, else as TensorFlow Datasets has it.

    References:
      https://www.tensorflow.org/datasets/data_source
    """
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(root).expanduser().resolve()


def find_prepared(name: str, root: Path) -> Path | None:
    """The folder with the ``dataset_info.json`` of a set, None if there is none."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        return None
    if (root / "dataset_info.json").is_file():
        return root
    base, version = root / parts["base"], parts["version"] or "*"
    if parts["config"]:
        return _newest(base / parts["config"], version)
    by_config = {f.name: _newest(f, version) for f in base.glob("*/")}
    prepared = sorted(config for config, folder in by_config.items() if folder)
    rule = f"needs one of the prepared configs {', '.join(prepared)}, as NAME/CONFIG"
    require(len(prepared) <= 1, "dataset", rule, name)
    return by_config[prepared[0]] if prepared else _newest(base, version)


def _newest(folder: Path, version: str) -> Path | None:
    """The highest prepared version that fits a pattern such as ``3.*.*``."""
    found = [
        p
        for p in folder.glob(version)
        if _VERSION.fullmatch(p.name) and (p / "dataset_info.json").is_file()
    ]
    return max(found, key=lambda p: [int(n) for n in p.name.split(".")], default=None)


def not_prepared(name: str, root: Path) -> ValueError:
    """Says what to do about a set that is not there."""
    command = f"import tensorflow_datasets as tfds; tfds.data_source('{name}', data_dir='{root}')"
    return ValueError(
        f"data_dir: {name!r} is not prepared in {str(root)!r}; pass another folder, or prepare it "
        f"once with a network: pip install 'imp_rg[tfds]', then python -c \"{command}\""
    )


def check_format(builder: Any) -> None:
    """Raises `ValueError` unless a set can be read without TensorFlow."""
    file_format = builder.info.file_format.value
    rule = "file format must be array_record, as tfds.data_source prepares it"
    require(file_format == "array_record", "dataset", rule, file_format)


def open_split(builder: Any, split: str) -> Any:
    """A data source of one split, after each shard has been counted.

    Raises:
      ValueError: If a shard holds other than the promised number of rows: the reader of TensorFlow
        Datasets takes a truncated one for an empty one.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    info = builder.info.splits[split]
    for path, promised in zip(info.filepaths, info.shard_lengths, strict=True):
        rule = f"must hold the {promised} rows that dataset_info.json lists"
        found = ArrayRecordReader(str(path)).num_records()
        require(found == promised, path.name, rule, found)
    return builder.as_data_source(split=split)
