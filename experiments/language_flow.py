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

import time
from collections.abc import Sequence
from pathlib import Path

from experiments.shell import cli
from experiments.shell.device import use_device
from experiments.shell.study import Study
from experiments.studies.language.assemble import (
    estimate_seconds,
    load_texts,
    prepare,
    resolved_settings,
)
from experiments.studies.language.config import PRESETS, Config
from experiments.studies.language.findings import read_tasks, write_tables
from experiments.studies.language.page import make_page, table3
from experiments.studies.language.similarity import record_similarity
from experiments.trunk import run as trunk
from experiments.trunk.assemble import headline
from imp_rg.data.text import TextData
from imp_rg.runs.files import read_csv, read_json, write_json
from imp_rg.runs.folder import RunFolder, has_finished


def run(config: Config) -> Path:
    """Runs or continues the experiment; returns the folder of its run folders."""
    use_device(config)
    study = Study("language_flow")
    texts = load_texts(config)
    stem, settings = Path(config.checkpoint).name, config.folder_settings()
    out = config.out or study.default_folder(stem, settings=settings)
    waiting = [text for text in texts if config.fresh or not has_finished(out / text.task.name)]
    for text in texts:
        is_first = text in waiting[:1]
        _run_task(config, text, out, study, announced=waiting if is_first else [])
    _list_tasks(texts, out)
    return report(out, study)


def _run_task(
    config: Config, text: TextData, out: Path, study: Study, *, announced: Sequence[TextData]
) -> None:
    """Runs or continues one task in a run folder of its own.

    Before the first task that has to be run, the time of all that are left is `announced`.
    """
    began = time.monotonic()
    setup = prepare(config, text, study.console)
    level_config = config.level_config(text.task, num_steps=setup.about["level_steps"])
    study.say(headline(level_config, setup))
    settings = resolved_settings(config, text, setup)
    folder = RunFolder(out / text.task.name, settings, fresh=config.fresh)

    def announce() -> None:
        if announced:
            seconds = estimate_seconds(config, announced, setup)
            study.announce(seconds, "all levels of all tasks")

    trunk.run_or_report(level_config, setup, folder, study, began=began, announce=announce)
    record_similarity(folder.path, config.checkpoint, text.validation.tokens, task=text.task.name)


def _list_tasks(texts: list[TextData], out: Path) -> None:
    """Tasks of earlier commands come first in the list of those that lie in a folder."""
    path = out / "config.json"
    known = read_json(path)["tasks"] if path.exists() else []
    tasks = [*known, *(text.task.name for text in texts if text.task.name not in known)]
    write_json(path, {"experiment": "language", "tasks": tasks})


def report(folder: Path, study: Study) -> Path:
    """Writes tables and page of all finished tasks, whichever the command names."""
    flows = read_tasks(folder)
    ci_level = next(iter(flows.values())).settings["ci_level"]
    write_tables(folder, flows, ci_level=ci_level)
    page = make_page(folder)
    study.table(table3(read_csv(folder / "table3.csv")))
    return study.report(page, folder)


if __name__ == "__main__":
    cli.main(run, PRESETS, prog="python -m experiments.language_flow")
