"""Which files of a folder are which level of which seed.

In: a path to a pruning run made elsewhere. Out: a `RunLayout`. No tensor is read; files are only
looked at to tell checkpoints from whatever else lies beside them.
"""

import re
from pathlib import Path
from typing import NamedTuple

from imp_rg.foreign.manifest import find_manifest, read_manifest
from imp_rg.foreign.sequence import (
    LevelFiles as LevelFiles,
)
from imp_rg.foreign.sequence import (
    Named,
    check_gaps,
    level_number,
    natural_key,
    order_levels,
)
from imp_rg.foreign.tensors import is_tensor_file, open_tensors


class RunLayout(NamedTuple):
    """The files of a run, axis order seed, level.

    Attributes:
      kind: ``open_lth``, ``saved levels`` (our own), ``sequence``, or ``single`` for one level.
      seeds: Names of the seed folders, or ``("0",)``.
      levels: Files by seed and level; every seed has as many levels.
      rewind: For each seed the weights at the rewind point or at initialisation, None without.
    """

    kind: str
    seeds: tuple[str, ...]
    levels: tuple[tuple[LevelFiles, ...], ...]
    rewind: tuple[Path | None, ...]


class _Seed(NamedTuple):
    """One replicate, with the numbers its files give to the levels."""

    kind: str
    levels: tuple[LevelFiles, ...]
    numbers: tuple[int, ...]
    rewind: Path | None


_ASIDE = re.compile(r"optim|sched|scaler|rng_state|training_args", re.I)
_MASK = re.compile(r"mask", re.I)
_REWIND = re.compile(r"(?<![a-z])(init|rewind|rewound)", re.I)
_BEST = re.compile(r"best", re.I)
_LEVEL_FOLDER = re.compile(
    r"(level|lvl|round|state|iter|iteration|checkpoint|ckpt)?[-_ ]*\d+", re.I
)
_SUFFIXES = {".pt", ".pth", ".th", ".bin", ".ckpt", ".safetensors", ".npz", ".msgpack"}
_STEP = re.compile(r"model_ep(\d+)_it(\d+)\.pth")


def find_levels(path: Path) -> RunLayout:
    """Finds the checkpoints of a pruning run.

    Recognised are one checkpoint; a folder with one checkpoint a level, in natural order, and mask
    files beside them; one folder a level; the level folders of open_lth; folders of any of these,
    one a seed; the ``levels/`` of our own runs; and whatever a manifest spells out (see
    `read_manifest`). Formats may be mixed. Logs, optimizer states and hidden files are passed over.

    Args:
      path: A file or a folder.

    Returns:
      The files by seed and level.

    Raises:
      ValueError: If nothing is there, a level is missing or there twice, seeds have different
        levels, or masks and weights do not pair; in one line that names the folder.

    References:
      House definition; folders of open_lth as facebookresearch/open_lth writes them.
    """
    if not path.exists():
        raise ValueError(f"{path}: must exist, there is no such file or folder")
    manifest = find_manifest(path)
    if manifest is not None:
        return _collect(manifest, _read_manifest(manifest))
    if path.is_file() or is_tensor_file(path):
        open_tensors(path)
        return _collect(path, {"0": _Seed("single", (LevelFiles(path, None),), (0,), None)})
    path = _enter(path)
    seed = _read_seed(path)
    return _collect(path, {"0": seed} if seed else _read_seeds(path))


def _collect(path: Path, seeds: dict[str, _Seed]) -> RunLayout:
    """Checks that all seeds have the same levels."""
    union = sorted({number for seed in seeds.values() for number in seed.numbers})
    for name, seed in seeds.items():
        missing = [str(number) for number in union if number not in seed.numbers]
        if missing:
            raise ValueError(
                f"{path}: seeds must have the same levels, {name} is missing level "
                f"{', '.join(missing)}"
            )
    return RunLayout(
        kind="single" if len(union) == 1 else next(iter(seeds.values())).kind,
        seeds=tuple(seeds),
        levels=tuple(seed.levels for seed in seeds.values()),
        rewind=tuple(seed.rewind for seed in seeds.values()),
    )


def _read_manifest(path: Path) -> dict[str, _Seed]:
    manifest = read_manifest(path)
    named = [file for levels in manifest.seeds.values() for files in levels for file in files]
    for file in filter(None, (*named, *manifest.rewind.values())):
        if not is_tensor_file(file):
            open_tensors(file)  # raises, and says what is wrong with it
    return {
        name: _Seed("sequence", levels, tuple(range(len(levels))), manifest.rewind[name])
        for name, levels in manifest.seeds.items()
    }


def _enter(path: Path) -> Path:
    """Goes from a folder around a run to the run itself."""
    if (path / "config.json").exists() and (path / "flow.csv").exists():
        if not (path / "levels").is_dir():
            raise ValueError(f"{path}: must hold levels/, made with --save-levels; it does not")
        return path / "levels"
    runs = [folder for folder in _folders(path) if folder.name.startswith("lottery_")]
    if len(runs) > 1:
        names = ", ".join(folder.name for folder in runs)
        raise ValueError(f"{path}: must be one run of open_lth, it holds {names}")
    if level_number(path.name) is not None and (path / "main").is_dir():
        return path / "main"
    return runs[0] if runs else path


def _read_seeds(path: Path) -> dict[str, _Seed]:
    """One seed from each sub-folder that holds checkpoints."""
    found = {folder.name: _read_seed(folder) for folder in _folders(path)}
    seeds = {name: seed for name, seed in found.items() if seed}
    if not seeds:
        raise ValueError(f"{path}: must hold checkpoints, there are none")
    if _is_our_own(path, seeds):
        tickets = {name: path.parent / "tickets" / f"{name}-level00.safetensors" for name in seeds}
        return {
            name: seed._replace(
                kind="saved levels", rewind=tickets[name] if tickets[name].exists() else None
            )
            for name, seed in seeds.items()
        }
    if len(seeds) == 1 and not any(seed.kind == "open_lth" for seed in seeds.values()):
        raise ValueError(f"{path}: must hold several seeds or be one, it holds only {min(seeds)}")
    return seeds


def _is_our_own(path: Path, seeds: dict[str, _Seed]) -> bool:
    """Whether this is the ``levels/`` of a run made with ``--save-levels``."""
    files = [files.weights.name for seed in seeds.values() for files in seed.levels]
    is_level = all(re.fullmatch(r"level\d\d+\.safetensors", name) for name in files)
    return path.name == "levels" and is_level and all(re.fullmatch(r"seed\d+", s) for s in seeds)


def _read_seed(folder: Path) -> _Seed | None:
    """The levels that a folder holds, None if it holds none."""
    folders = _folders(folder)
    mains = {sub.name: sub / "main" for sub in folders if (sub / "main").is_dir()}
    if any(level_number(name) is not None for name in mains):
        return _read_open_lth(folder, mains)
    files = _checkpoints(folder)
    if any(_STEP.fullmatch(file.name) for file in files):
        return _read_open_lth(folder, {"level_0": folder})
    if files:
        items = [Named(file.name, file) for file in files]
        return _read_sequence(folder, items)
    content = {sub: _checkpoints(sub) for sub in folders}
    content = {sub: files for sub, files in content.items() if files}
    if len(content) > 1 and all(_LEVEL_FOLDER.fullmatch(sub.name) for sub in content):
        return _read_level_folders(folder, content)
    return None


def _read_sequence(folder: Path, items: list[Named]) -> _Seed:
    """Checkpoints of all levels: masks and the rewind point are told by their names."""
    masks = [item for item in items if _MASK.search(item.path.name)]
    starts = [item for item in items if _REWIND.search(item.name) and item not in masks]
    weights = [item for item in items if item not in masks and item not in starts]
    # Some programs keep the last and the best epoch of each level; masks are made from the last.
    weights = [item for item in weights if not _BEST.search(item.name)] or weights
    if not weights:
        names = ", ".join(item.name for item in items)
        raise ValueError(f"{folder}: must hold weights, it holds only {names}")
    if len(starts) > 1:
        names = ", ".join(item.name for item in starts)
        raise ValueError(f"{folder}: must hold one file of initial weights, got {names}")
    levels, numbers = order_levels(folder, weights, masks)
    return _Seed("sequence", levels, numbers, starts[0].path if starts else None)


def _read_level_folders(folder: Path, content: dict[Path, list[Path]]) -> _Seed | None:
    """One folder a level with one checkpoint, None if some hold more: those are seeds."""
    items = []
    for sub, files in content.items():
        num_weights = sum(not _MASK.search(file.name) for file in files)
        if num_weights > 1 and sub.name.isdecimal():
            return None
        if num_weights != 1 or len(files) > 2:
            names = ", ".join(file.name for file in files)
            raise ValueError(f"{sub}: must hold one checkpoint of one level, got {names}")
        if len(files) == 2 and sub.name.startswith("checkpoint"):
            # BERT-Tickets writes the weights of a level beside the masks of the next one.
            raise ValueError(
                f"{sub}: must not leave open whether its masks belong to its weights or to the "
                "next level; say it in a manifest.json"
            )
        items += [Named(sub.name, file) for file in files]
    return _read_sequence(folder, items)


def _read_open_lth(folder: Path, mains: dict[str, Path]) -> _Seed:
    """``level_K/main`` with ``mask.pth`` and ``model_epE_itI.pth`` at the first and the last step.

    Weights that are masked in every forward pass move once more in the optimizer, so the files of
    trained weights are not zero where the masks are: a level must have its masks.
    """
    level_of = {
        number: main for name, main in mains.items() if (number := level_number(name)) is not None
    }
    numbers = sorted(level_of)
    check_gaps(folder, numbers, first=0)
    steps = {number: _steps(level_of[number]) for number in numbers}
    last = max(step for there in steps.values() for step in there)
    levels = []
    for number, main in sorted(level_of.items()):
        mask = main / "mask.pth"
        if last not in steps[number]:
            name = f"model_ep{last[0]}_it{last[1]}.pth"
            raise ValueError(
                f"{main}: must hold {name}, the end of training; remove what is unfinished"
            )
        if number > 0 and not mask.exists():
            raise ValueError(f"{main}: must hold mask.pth, it does not")
        levels.append(LevelFiles(steps[number][last], mask if mask.exists() else None))
    first = min(steps[numbers[0]])
    rewind = steps[numbers[0]][first] if first != last else None
    if rewind is None and "level_pretrain" in mains:
        before = _steps(mains["level_pretrain"])
        rewind = before[max(before)]
    return _Seed("open_lth", tuple(levels), tuple(numbers), rewind)


def _steps(main: Path) -> dict[tuple[int, int], Path]:
    """Models of a level by epoch and iteration."""
    found = {_STEP.fullmatch(file.name): file for file in _visible(main)}
    steps = {(int(step[1]), int(step[2])): file for step, file in found.items() if step}
    if not steps:
        raise ValueError(f"{main}: must hold model_ep*_it*.pth, there is none")
    return steps


def _visible(folder: Path) -> list[Path]:
    return sorted(
        (path for path in folder.iterdir() if not path.name.startswith(".")),
        key=lambda path: natural_key(path.name),
    )


def _folders(folder: Path) -> list[Path]:
    """Sub-folders in natural order; a checkpoint that is a folder is none of them."""
    return [path for path in _visible(folder) if path.is_dir() and not is_tensor_file(path)]


def _checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in a folder, without the states of optimizers and the like."""
    files = (path for path in _visible(folder) if not _ASIDE.search(path.name))
    return [path for path in files if _is_checkpoint(path)]


def _is_checkpoint(path: Path) -> bool:
    """Whether a path is to be read; a file with the name of a checkpoint must be one."""
    is_readable = is_tensor_file(path)
    if not is_readable and path.is_file() and _SUFFIXES & set(path.suffixes):
        open_tensors(path)  # raises, and says what is wrong with it
    return is_readable
