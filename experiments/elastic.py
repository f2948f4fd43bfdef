"""Which tickets can be moved between networks of different depth, and does sigma tell which?

Runs IMP on ResNets of several depths, compares their exponents block by block (the paper's Tables 4
to 6), moves their tickets to the other depths by copying or dropping whole residual blocks, and
asks whether the mismatch of sigma between source and target predicts what a moved ticket loses.

    python -m experiments.elastic                     # digits, ResNet-14, 20, 32 at half width
    python -m experiments.elastic --depths 14 20 32 44
    python -m experiments.elastic --map "20:32:0:0;1:1,3,4;2:2"
    python -m experiments.elastic --preset smoke      # a minute
    python -m experiments.elastic --preset cifar --device gpu
    python -m experiments.elastic --preset paper --device gpu

The default takes about 40 minutes on 2 CPU cores (estimated from its CPU time) and 2 GB. By the
default maps 15 of 22 tickets that count come within the margin of the target's own ticket. The
mismatch of sigma orders the losses of 13 routes between depths with a rank correlation of +0.11,
the ratio of depths alone with +0.30: too few to tell the two apart.

An estimate of the time is printed first. Every depth has a run folder of its own below the output,
and every training of a moved ticket is rows of cells.csv: the same command continues an unfinished
experiment, further depths, maps or densities add to a finished one.

Source: Chen et al., "The Elastic Lottery Ticket Hypothesis", arXiv:2103.16547; Redman, Chen, Wang,
Dogra, arXiv:2110.03210, Sec. 5.3 and Tables 4 to 6.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.shell import cli
from experiments.shell.device import use_device
from experiments.shell.study import Study
from experiments.studies.elastic import run as trainings
from experiments.studies.elastic.config import PRESETS, Config
from experiments.studies.elastic.findings import write_findings
from experiments.studies.elastic.page import make_page
from experiments.studies.elastic.run import Training
from experiments.trunk import several
from experiments.trunk.assemble import Setup
from experiments.trunk.config import Config as RunConfig
from imp_rg.runs.folder import RunFolder


def run(config: Config) -> Path:
    """Runs what is missing, then reports; returns the folder of the results."""
    study = Study("elastic")
    use_device(config)
    settings = config.shared_settings()
    path = config.out or study.default_folder(Path(config.dataset).stem, settings=settings)
    # Before anything is written: a wrong setting leaves no folder behind.
    routes = config.routes()
    configs = {depth: config.source_run(depth, path) for depth in config.depths}
    setups = several.prepare_all(configs)
    levels = {
        depth: trainings.levels_at(config.densities, setups[depth], depth)
        for depth in config.depths
    }
    planned = trainings.plan_trainings(routes, levels)
    folder = RunFolder(path, settings, fresh=config.fresh)
    seeds = configs[config.depths[0]].seed_list
    ledger = trainings.open_ledger(path, seeds, fresh=config.fresh)
    missing = [training for training in planned if training.key not in ledger]
    _announce(study, configs, setups, missing, num_planned=len(planned))
    runs = several.run_all(configs, study, title=lambda depth: f"ResNet-{depth}")
    seconds = trainings.train_all(
        missing,
        ledger,
        path,
        setups=setups,
        runs=runs,
        seeds=seeds,
        study=study,
        fresh=config.fresh,
    )
    study.describe(folder, seconds=several.seconds_of_runs(runs) + seconds)
    write_findings(config, path, planned)
    return study.report(make_page(path), path)


def _announce(
    study: Study,
    configs: Mapping[int, RunConfig],
    setups: Mapping[int, Setup],
    missing: Sequence[Training],
    *,
    num_planned: int,
) -> None:
    """Says how long the missing runs and trainings will take, from a few steps of each depth."""
    left = several.missing(configs)
    if not left and not missing:
        return
    study.say(
        f"{len(left)} of {len(configs)} networks and {len(missing)} of {num_planned} trainings of "
        "moved tickets are missing; timing them"
    )
    targets = [training.route.target_depth for training in missing]
    timed = {depth: run for depth, run in configs.items() if depth in {*left, *targets}}
    seconds = several.estimate_all(timed, setups)
    shared = next(iter(configs.values()))
    num_steps = shared.train.num_steps - shared.train.first_step
    whole = shared.train.rewind_step + (shared.levels + 1) * num_steps
    of_trainings = sum(seconds[depth] * num_steps / whole for depth in targets)
    study.announce(sum(seconds[depth] for depth in left) + of_trainings)


if __name__ == "__main__":
    cli.main(
        run,
        PRESETS,
        prog="python -m experiments.elastic",
        when_stopped="finished levels and trainings are saved, the same command goes on from there",
    )
