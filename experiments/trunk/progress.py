"""The display of a run that is made of levels."""

from rich.console import Console

from experiments.shell.progress import Progress


class LevelProgress(Progress):
    """Shows level, seed, loss, test metric, density and the time left of a run.

    `on_progress` is called from the threads of all replicates.
    """

    def __init__(
        self,
        *,
        seeds: list[int],
        num_levels: int,
        steps: range,
        console: Console,
        metric: str = "accuracy",
    ):
        """Describes the whole run; `steps` are those of one level, `metric` is a name."""
        super().__init__(console, total=num_levels * len(steps) * len(seeds))
        self._seeds, self._steps, self._num_levels = seeds, steps, num_levels
        self._metric, self._measured = metric, ""
        self._before, self._in_level = 0, dict.fromkeys(seeds, 0)

    def start_level(self, level: int, density: float, active: list[int]) -> None:
        """Announces a level."""
        self._level = f"level {level}/{self._num_levels - 1} · density {density:.3f}"
        self._active = [self._seeds[i] for i in active]
        self._in_level = dict.fromkeys(self._active, 0)
        self._before = level * len(self._steps) * len(self._seeds)
        if self._before > self._done:
            self.skip(self._before)
        self.show(self._level)

    def on_progress(self, replicate: int, step: int, loss: float) -> None:
        """Reports a replicate's step and loss; raises `KeyboardInterrupt` after Ctrl-C."""
        seed = self._active[replicate]
        if step > self._steps.start:  # steps before are the way to the rewind point
            self._in_level[seed] = step - self._steps.start
        self.show(
            f"{self._level} · seed {seed} · step {step}/{self._steps.stop} · loss {loss:.3f}"
            f"{self._measured}",
            done=self._before + sum(self._in_level.values()),
        )

    def end_level(self, percent: float) -> None:
        """Reports the test metric of the level, mean over seeds."""
        self._measured = f" · {self._metric} {percent:.1f} %"
        done = self._before + len(self._steps) * len(self._active)
        self.show(self._level + self._measured, done=done, force=True)
