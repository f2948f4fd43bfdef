"""A complete folder of a comparison without runs: planted exponents through the real writers."""

import numpy as np
from planted_runs import BLOCKS, SHIFT, SIGMA, planted_run
from run_folder import ENVIRONMENT

from imp_rg.rg import compare_exponents
from imp_rg.runs.comparison_tables import RunEntry, write_comparison
from imp_rg.runs.files import write_json


def three_runs(num_seeds=5):
    """Two of one class, one of another."""
    rng = np.random.default_rng(0)
    return [
        planted_run(rng, "digits-a", num_seeds=num_seeds),
        planted_run(rng, "digits-b", num_seeds=num_seeds),
        planted_run(rng, "cifar10", SIGMA + 2.5 * SHIFT, num_seeds=num_seeds),
    ]


def write_comparison_folder(folder, runs, *, notes=(), mask_overlap=None):
    """Compares the runs and writes everything that the page needs; returns the Comparison."""
    comparison = compare_exponents(runs, mask_overlap=mask_overlap)
    entries = [
        RunEntry(
            run.name, f"{run.name}/report.html", f"resnet14, planted, {run.name}", tuple(notes)
        )
        for run in runs
    ]
    write_comparison(folder, comparison, entries)
    write_json(folder / "environment.json", ENVIRONMENT)
    return comparison


def deeper_run(rng, name, *, num_seeds=5, blocks_per_stage=4):
    """The same profile over depth as `planted_run`, in a network with more blocks."""
    blocks = tuple(f"stage{s}/block{b}" for s in (1, 2, 3) for b in range(blocks_per_stage))
    places = np.linspace(0, 1, blocks_per_stage)
    sigma = np.concatenate([np.interp(places, [0, 1], SIGMA[i : i + 2]) for i in (0, 2, 4)])
    assert len(BLOCKS) == 6
    return planted_run(rng, name, sigma, num_seeds=num_seeds, blocks=blocks)
