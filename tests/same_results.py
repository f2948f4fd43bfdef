"""Do the commands write the same tables as at an earlier commit?

Runs commands in this tree and in an earlier one, taken from git, and compares every CSV byte by
byte; what takes seconds may differ, and this tree may write more tables.

    python -m tests.same_results                                  # imp_flow and rg_axioms
    python -m tests.same_results --commands imp_flow elastic --revision HEAD~1
"""

import csv
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import tyro

ROOT = Path(__file__).resolve().parents[1]
BEFORE_THE_REBUILDING = "35d5900"
OLD_NAMES = {"rg_axioms": "projection", "error_law": "exponents"}
"""What a command was called where the earlier tree has it under another name."""

SMALL_NET = ("--preset", "smoke", "--model", "resnet14", "--width", "0.25")
TEXT = Path(os.environ.get("IMP_RG_SHARED", ROOT.parent / "shared/data")) / "text"
RUNS: dict[str, tuple[str, ...]] = {
    "imp_flow": ("--preset", "smoke", "--save-levels", "--null", "shuffled"),
    "imp_flow:resnet": (*SMALL_NET, "--seeds", "4", "--levels", "4", "--save-levels"),
    "imp_flow:one-seed": (*SMALL_NET[:4], "--seeds", "1", "--levels", "2", "--save-levels"),
    "rg_axioms": ("--preset", "smoke"),
    "scaling": ("--preset", "smoke"),
    "scaling:percolation": ("--preset", "smoke", "--check", "percolation"),
    "ising": ("--preset", "smoke", "--run", "{imp_flow:resnet}"),
    "linear": ("{imp_flow:resnet}",),
    "error_law": ("{imp_flow:resnet}", "{scaling}/lenet-depth2-width1"),
    "analyse": ("{imp_flow:resnet}/levels",),
    "analyse:compare": ("{imp_flow:resnet}", "{analyse}"),
    "curvature": (
        *("{imp_flow:one-seed}/levels", "--model", "resnet14", "--num-examples", "200"),
        *("--top", "3", "--probes", "4"),
    ),
    "language_init": ("--checkpoint", "minilm"),
    "language_flow": (
        *("--preset", "smoke", "--source", f"jsonl:{TEXT}", "--tasks", "wnli", "rte"),
        *("--max-length", "16", "--levels", "2", "--seeds", "2"),
    ),
    "transfer": ("--preset", "smoke"),
    "elastic": ("--preset", "smoke"),
    "pretrain": ("--preset", "smoke", "--method", "moco", "--levels", "2"),
    "vision_flow": ("--preset", "smoke"),
}
"""Flags by command, and a word of one's own where it is run twice; ``{NAME}`` is a run's folder.

evaluate and benchmark write no table that could repeat; vision_exponents wants more levels than
fit here.
"""


class NoRevisionError(Exception):
    """There is no git here, or it does not know the revision."""


def export(revision: str, folder: Path) -> Path:
    """Puts the tree of a revision into a folder; returns the folder."""
    if shutil.which("git") is None:
        raise NoRevisionError("there is no git")
    made = subprocess.run(
        ["git", "archive", "--format=tar", revision], cwd=ROOT, capture_output=True, check=False
    )
    if made.returncode:
        raise NoRevisionError(f"git: {made.stderr.decode().strip().splitlines()[0]}")
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as tree:
        tree.extractall(folder, filter="data")
    return folder


def run_command(name: str, tree: Path, out: Path) -> Path:
    """Runs one of `RUNS`, first those it reads, in a tree; returns its folder below `out`.

    What is finished there is not run again.
    """
    folder = out / name.replace(":", "-")
    if folder.is_dir():
        return folder
    command, flags = name.partition(":")[0], []
    for flag in RUNS[name]:
        if flag.startswith("{"):
            read, _, rest = flag[1:].partition("}")
            flag = f"{run_command(read, tree, out)}{rest}"
        flags.append(flag)
    is_called_so = (tree / "experiments" / f"{command}.py").is_file()
    module = command if is_called_so else OLD_NAMES.get(command, command)
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{module}", *flags, "--out", str(folder)],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        told = done.stderr.strip().splitlines()[-1:]
        raise RuntimeError(f"{name} in {tree} ended with {done.returncode}: {' '.join(told)}")
    return folder


def differences(before: Path, after: Path) -> list[str]:
    """A line for each CSV of a folder that is missing or another in the other folder."""
    found = []
    for name in sorted(str(path.relative_to(before)) for path in before.rglob("*.csv")):
        if Path(name).name == "timing.csv":
            continue
        if not (after / name).is_file():
            found.append(f"{name}: is missing")
            continue
        old, new = (_without_seconds((folder / name).read_bytes()) for folder in (before, after))
        if old != new:
            pairs = list(zip(old, new, strict=False))
            first = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
            found.append(f"{name}: differs from line {first + 1} on")
    return found


def _without_seconds(table: bytes) -> list:
    """Lines of a table: as they stand, or as lists of cells if it has columns of seconds."""
    lines = list(csv.reader(io.StringIO(table.decode(), newline="")))
    kept = [i for i, name in enumerate(lines[0] if lines else []) if "seconds" not in name]
    if not lines or len(kept) == len(lines[0]):
        return table.splitlines(keepends=True)
    return [[line[i] for i in kept] for line in lines]


def compare(name: str, trees: tuple[Path, Path], out: Path) -> list[str]:
    """Runs one of `RUNS` in the earlier and in the later tree; returns what differs."""
    folders = [run_command(name, tree, out / str(i)) for i, tree in enumerate(trees)]
    assert list(folders[0].rglob("*.csv")), f"{name} wrote no table"
    return [f"{name}: {line}" for line in differences(*folders)]


def main(
    commands: tuple[str, ...] = ("imp_flow", "rg_axioms"),
    revision: str = BEFORE_THE_REBUILDING,
) -> int:
    """Compares the tables that commands write in an earlier tree and in this one.

    Args:
      commands: Which of them.
      revision: Of the earlier tree, as git knows it.

    Returns:
      1 if a table differs, 2 if there is no such command or no earlier tree.
    """
    known = {name.partition(":")[0] for name in RUNS}
    if unknown := set(commands) - known:
        names = ", ".join(sorted(known))
        print(f"error: commands: must be of {names}, got {unknown}", file=sys.stderr)
        return 2
    found = []
    with tempfile.TemporaryDirectory(prefix="imp_rg_same_") as folder:
        try:
            trees = export(revision, Path(folder) / "tree"), ROOT
        except NoRevisionError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        for name in RUNS:
            if name.partition(":")[0] in commands:
                lines = compare(name, trees, Path(folder))
                print(*(lines or [f"{name}: the same"]), sep="\n", flush=True)
                found += lines
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(tyro.cli(main, prog="python -m tests.same_results"))
