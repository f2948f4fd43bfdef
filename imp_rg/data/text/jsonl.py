"""Rows of a task from JSON lines, plain or gzip-compressed: one file a split, one object a line."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imp_rg.config import require
from imp_rg.data.arrays import first_line
from imp_rg.data.text.tasks import Task

Row = Mapping[str, Any]


def read_jsonl(task: Task, folder: Path, split: str) -> Iterator[tuple[str, Row]]:
    """Yields the rows of one split, each with its place (file and line) for messages.

    Args:
      task: Whose rows they are.
      folder: Holds ``SPLIT.jsonl`` or ``SPLIT.jsonl.gz``, or a folder of the task's name that does,
        or else one of the task from which it borrows.
      split: ``train`` or ``validation``.

    Raises:
      ValueError: If there is no such file, it is damaged or empty, or a line is no JSON object.

    References:
      House definition; keys and labels are those of GLUE and SQuAD in TensorFlow Datasets.
    """
    path = _find_file(task, Path(folder).expanduser(), split)
    number = 0
    for number, line in enumerate(_lines(path), start=1):
        place = f"{path} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place}: must be JSON: {first_line(error)}") from error
        require(isinstance(row, dict), place, "must be a JSON object", type(row).__name__)
        yield place, row
    require(number > 0, str(path), "must hold rows", "an empty file")


def _find_file(task: Task, folder: Path, split: str) -> Path:
    require(folder.is_dir(), "source", "jsonl: needs the path of a folder", str(folder))
    names = (f"{split}.jsonl", f"{split}.jsonl.gz")
    folders = [folder / task.name, folder]
    folders += [] if task.borrowed is None else [folder / task.borrowed]
    found = [place / name for place in folders for name in names if (place / name).is_file()]
    rule = f"jsonl: must hold {names[0]} or {names[0]}.gz, or {task.name}/ with one of them"
    require(bool(found), "source", rule, str(folder))
    return found[0]


def _lines(path: Path) -> Iterator[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            yield from file
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {first_line(error)}") from error
