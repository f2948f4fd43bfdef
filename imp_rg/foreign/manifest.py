"""A manifest: the files of a run spelled out, for names that do not speak for themselves.

In: ``manifest.json`` or ``manifest.toml``. Out: paths that exist and lie in the manifest's folder.
"""

import json
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from imp_rg.config import require
from imp_rg.foreign.sequence import LevelFiles

_NAMES = ("manifest.json", "manifest.toml")
_MAX_BYTES = 1_000_000


class Manifest(NamedTuple):
    """Files by seed.

    Attributes:
      seeds: The levels of each seed, in order.
      rewind: Weights at the rewind point of each seed, None without.
    """

    seeds: dict[str, tuple[LevelFiles, ...]]
    rewind: dict[str, Path | None]


def find_manifest(path: Path) -> Path | None:
    """The manifest at a path: the file itself, or in the folder.

    Raises:
      ValueError: If a folder holds two.
    """
    if path.is_file():
        return path if path.name in _NAMES else None
    there = [path / name for name in _NAMES if (path / name).is_file()]
    require(len(there) < 2, f"{path}", "must hold one manifest", [file.name for file in there])
    return there[0] if there else None


def read_manifest(path: Path) -> Manifest:
    """Reads a manifest.

    ``seeds`` maps the name of a seed to the list of its levels, each ``{"weights": FILE}``,
    with ``"masks": FILE`` if masks are in a file of their own; ``rewind`` maps names of seeds to
    files. Paths are relative to the manifest and stay within its folder, links followed.

    Raises:
      ValueError: If it is not such a file, or a path leaves the folder or leads nowhere.

    References:
      House definition.
    """
    content = _parse(path)
    shape = (
        'must be {"seeds": {NAME: [{"weights": FILE, "masks": FILE}, ...]}, "rewind": {NAME: FILE}}'
    )
    seeds, rewind = content.get("seeds") or {}, content.get("rewind") or {}
    is_right = bool(seeds) and isinstance(seeds, dict) and isinstance(rewind, dict)
    is_right = is_right and set(content) <= {"seeds", "rewind"}
    require(is_right, f"{path}", shape, sorted(content))
    unknown = sorted(set(rewind) - set(seeds))
    require(not unknown, f"{path}", "rewind must name seeds", unknown)
    levels = {}
    for name, entries in seeds.items():
        is_list = isinstance(entries, list) and bool(entries)
        require(is_list, f"{path}", f"seed {name} must be a list of levels", entries)
        levels[name] = tuple(_read_level(path, name, entry) for entry in entries)
    start = {name: _resolve(path, rewind[name]) if name in rewind else None for name in seeds}
    return Manifest(levels, start)


def _parse(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    require(size <= _MAX_BYTES, f"{path}", f"must be at most {_MAX_BYTES:,} bytes", size)
    try:
        text = path.read_text("utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: must be a readable manifest, got {reason}") from error
    require(isinstance(content, dict), f"{path}", "must be a table", type(content).__name__)
    return content


def _read_level(path: Path, seed: str, entry: Any) -> LevelFiles:
    is_level = isinstance(entry, dict) and "weights" in entry
    is_level = is_level and set(entry) <= {"weights", "masks"}
    rule = f"a level of seed {seed} must be a table of weights and perhaps masks"
    require(is_level, f"{path}", rule, entry)
    masks = entry.get("masks")
    return LevelFiles(
        _resolve(path, entry["weights"]), None if masks is None else _resolve(path, masks)
    )


def _resolve(path: Path, name: Any) -> Path:
    """A file within the manifest's folder."""
    rule = "a path must be relative and stay within the folder"
    is_text = isinstance(name, str) and bool(name) and "\0" not in name
    require(is_text, f"{path}", rule, name)
    given = Path(name)
    require(not given.is_absolute() and ".." not in given.parts, f"{path}", rule, name)
    file = path.parent / given
    try:
        is_inside = file.resolve().is_relative_to(path.parent.resolve())
        is_there = file.exists()
    except (OSError, RuntimeError):  # a loop of links, a name that is too long
        is_inside, is_there = True, False
    require(is_inside, f"{path}", rule, name)
    require(is_there, f"{path}", "a path must lead to a file", name)
    return file
