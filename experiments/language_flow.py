"""Do the tickets of a pre-trained encoder flow, or does fine-tuning barely move the weights?

Runs iterative magnitude pruning with rewinding to the pre-trained weights on tasks of GLUE and
SQuAD, one run folder a task, and sets the exponents sigma_i of the layers (the paper's Table 3)
beside those of pruning the checkpoint without any training.

    python -m experiments.language_flow --source jsonl:PATH                # three small tasks
    python -m experiments.language_flow --source jsonl:PATH --tasks stsb cola
    python -m experiments.language_flow --preset paper --device gpu        # BERT-base, ten tasks

The three small tasks are 6,390 steps (213 of 32 inputs of up to 64 tokens, 10 levels, 3 seeds) of
about 1.2 s each on 2 CPU cores: about 2 hours. The command says how long it will take.

Source: Redman, Chen, Wang, Dogra, arXiv:2110.03210, Sec. 5.2 and Table 3; recipe of Chen et al.,
arXiv:2007.12223.
"""

import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.shell import cli
from experiments.shell.device import use_device
from experiments.shell.study import AS_IS, duration_text
from experiments.studies.language import page
from experiments.studies.language.assemble import (
    estimate_seconds,
    load_texts,
    prepare,
    resolved_settings,
)
from experiments.studies.language.config import OMITTED, PRESETS, Config
from experiments.studies.language.similarity import record_similarity
from experiments.trunk import run as imp_run
from experiments.trunk.assemble import headline
from imp_rg.data.text import TextData
from imp_rg.runs.files import read_json, write_json
from imp_rg.runs.folder import RunFolder, config_hash, has_finished


def run(config: Config) -> Path:
    """Runs or continues the experiment; returns the folder of its run folders."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    use_device(config.level_config(config.task_list[0], num_steps=1))
    texts = load_texts(config)
    out = config.out or _default_folder(config)
    waiting = [text for text in texts if config.fresh or not has_finished(out / text.task.name)]
    for text in texts:
        is_first = text in waiting[:1]
        _run_task(config, text, out, console, announced=waiting if is_first else [])
    _list_tasks(texts, out)
    page.report(out, console)
    return out


def _run_task(
    config: Config, text: TextData, out: Path, console: Console, *, announced: Sequence[TextData]
) -> None:
    """Runs or continues one task in a run folder of its own.

    Before the first task that has to be run, the time of all that are left is `announced`.
    """
    began = time.monotonic()
    setup = prepare(config, text, console)
    level_config = config.level_config(text.task, num_steps=setup.about["level_steps"])
    console.print(headline(level_config, setup), **AS_IS)
    settings = resolved_settings(config, text, setup)
    folder = RunFolder(out / text.task.name, settings, fresh=config.fresh)
    if imp_run.is_finished(folder):
        console.print("already finished; reporting again")
    else:
        if announced:
            needed = duration_text(estimate_seconds(config, announced, setup))
            console.print(f"about {needed} for all levels of all tasks", highlight=False)
        command = shlex.join(["python", "-m", "experiments.language_flow", *sys.argv[1:]])
        imp_run.run_levels(level_config, setup, folder, console, command=command, began=began)
    record_similarity(folder.path, config.checkpoint, text.validation.tokens, task=text.task.name)
    imp_run.report(folder, console)


def _list_tasks(texts: list[TextData], out: Path) -> None:
    """Tasks of earlier commands come first in the list of those that lie in a folder."""
    path = out / "config.json"
    known = read_json(path)["tasks"] if path.exists() else []
    tasks = [*known, *(text.task.name for text in texts if text.task.name not in known)]
    write_json(path, {"experiment": "language", "tasks": tasks})


def _default_folder(config: Config) -> Path:
    """``runs/language_flow/CHECKPOINT-HASH``: other settings, other folder; tasks share one."""
    flat = dataclasses.asdict(config)
    for name in OMITTED:
        del flat[name]
    name = f"{Path(config.checkpoint).name}-{config_hash(flat)}"
    return Path("runs") / "language_flow" / name


if __name__ == "__main__":
    cli.main(run, PRESETS, prog="python -m experiments.language_flow")
