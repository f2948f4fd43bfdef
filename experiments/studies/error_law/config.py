"""Settings of `experiments.error_law`, and the folder of its results."""

import hashlib
from pathlib import Path

import tyro

from experiments.shell.settings import settings
from imp_rg.config import require

FOLDER, FORMER_FOLDER = Path("runs/error_law"), Path("runs/exponents")
"""Where results go, and where they went while the command was called exponents."""


@settings
class FitSettings:
    """What is fitted.

    Attributes:
      runs: Finished run folders.
      ci_level: Coverage of the intervals.
      out: Folder of the results; by default below runs/error_law.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    ci_level: float = 0.95
    out: Path | None = None

    def __post_init__(self):
        require(0 < self.ci_level < 1, "ci_level", "must lie in (0, 1)", self.ci_level)


@settings
class Config(FitSettings):
    """Fits the dependence of the error on density.

    Attributes:
      csv: Table with the columns density, error and, if there are several, seed and task.
      num_test: Number of test examples behind each error of the CSV.
      window: Densities d_L and d_C of the power law of Eq. 1; none by default.
    """

    csv: Path | None = None
    num_test: int | None = None
    window: tuple[float, float] | None = None

    def __post_init__(self):
        super().__post_init__()
        is_known = self.num_test is None or self.csv is not None
        require(is_known, "num_test", "goes with --csv, a run folder has its own", self.num_test)

    def folder(self) -> Path:
        """Of the results: NAMES-HASH by default; other sources or settings, other folder."""
        if self.out is not None:
            return self.out
        sources = [*self.runs, *([self.csv] if self.csv else [])]
        settings = repr([path.resolve() for path in sources]) + repr((self.num_test, self.window))
        digest = hashlib.sha256(f"{settings}{self.ci_level}".encode()).hexdigest()[:8]
        name = "-".join([sources[0].resolve().stem, str(len(sources)), digest])
        there = FORMER_FOLDER / name
        return there if there.is_dir() else FOLDER / name


def check_folder(out: Path) -> None:
    """Results go to a folder that is new, empty, or holds earlier results of this command."""
    is_ours = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    is_ours = is_ours or (out / "exponents.csv").is_file()
    require(is_ours, "out", "must be empty or hold earlier results of this command", str(out))


PRESETS = {"default": Config()}
