"""From a path to a flow: recognizes what lies there and has it measured.

Runs of other code are measured by `imp_rg.foreign`; ours hold their own tables (`imp_rg.runs.own`).
"""

from pathlib import Path

import pandas as pd

from imp_rg.config import PruneConfig
from imp_rg.foreign.measure_run import OnLevel, measure_run
from imp_rg.foreign.observe import observe_run
from imp_rg.foreign.run import open_run
from imp_rg.runs.flow import Flow
from imp_rg.runs.own import is_run_folder, read_run_folder
from imp_rg.runs.tables import unmeasured_metrics

ONE_SHOT_LEVELS = 12


def _say_nothing(seed: str, level: int) -> None:
    del seed, level


def read(
    path: str | Path,
    *,
    blocks: str | Path = "auto",
    one_shot: PruneConfig = PruneConfig(),  # noqa: B008  (frozen)
    levels: int = ONE_SHOT_LEVELS,
    observe: bool = False,
    on_level: OnLevel = _say_nothing,
) -> Flow:
    """Reads the flow of a pruning run, ours or anybody's.

    Recognised are a run folder of this package, a folder of checkpoints with one file a level
    (PyTorch, safetensors, npz, Orbax, Flax msgpack; several seeds as sub-folders), the level
    folders of open_lth, a manifest, and a single checkpoint, of which the flow of one-shot pruning
    is read.
    Masks may be zeros in the weights, ``weight_orig`` and ``weight_mask`` pairs, files of their own
    or mask trees.

    Args:
      path: File or folder.
      blocks: ``auto`` (by the names of the tensors), a preset such as ``cifar-resnet``, patterns as
        ``NAME=PATTERN,...``, or a TOML file. A run folder of ours keeps its own blocks.
      one_shot: How a single checkpoint is pruned.
      levels: Last level of that pruning.
      observe: Whether to compute the companion observables, too; it reads everything twice.
      on_level: Called with seed and level after each level that was read.

    Returns:
      The flow, with nulls; `Flow.spectrum` gives its exponents, `Flow.frame` a pandas frame.

    Raises:
      ValueError: In one line, if there is nothing readable, masks are not nested, density rises,
        levels differ in their tensors or are missing, weights are not finite, or a pattern of
        `blocks` matches nothing.

    References:
      Redman et al., arXiv:2110.03210, Eqs. 13-14.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: must be a file or folder, there is none")
    if is_run_folder(path):
        if blocks != "auto":
            raise ValueError(
                f"blocks: a run of ours keeps its own; to divide {path} anew give its folder "
                f"levels (written by --save-levels), got {blocks}"
            )
        flow = read_run_folder(path)
        for seed in flow.seeds:
            on_level(str(seed), len(flow.trajectory.num_kept) - 1)
        return flow
    run = open_run(path, blocks=blocks)
    measured = measure_run(run, on_level, one_shot=one_shot, levels=levels)
    has_observables = observe and not run.is_single
    return Flow(
        name=path.resolve().stem,
        seeds=run.seed_names,
        trajectory=measured.trajectory,
        settings=measured.settings,
        metrics=unmeasured_metrics(run.seed_names, measured.trajectory.density, measured.collapsed),
        observables=observe_run(run, on_level) if has_observables else pd.DataFrame(),
        read_masks=None if run.is_single else run.read_masks,
    )
