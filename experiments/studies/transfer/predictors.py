"""Distances between tasks, from their flows alone, scored against measured transfer.

In: distances [source target] by predictor (`imp_rg.runs.task_distances`). Out: their scores as
frames. The control of every predictor knows no magnitudes, only how many weights each block keeps.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from imp_rg.rg import leave_one_task_out, score_predictor
from imp_rg.rg.permutation import holm
from imp_rg.runs.task_distances import ALL_LEVELS
from imp_rg.types import Bool, Float

CONTROL = "param_share"


class Predictor(NamedTuple):
    """How tables and figures call a distance.

    Attributes:
      title: Short.
      meaning: One clause.
      control: The predictor that it must beat; none for the controls themselves.
    """

    title: str
    meaning: str
    control: str | None = None


_SHORTFALL = "the same over blocks in which the source's exponent is the smaller one"

PREDICTORS = {
    "sigma": Predictor("σ", "root mean square over blocks of the difference of exponents", CONTROL),
    "sigma_se": Predictor(
        "σ (standard errors)", "the same, each difference over its standard error", CONTROL
    ),
    "sigma_shortfall": Predictor("σ shortfall (directed)", _SHORTFALL, "param_share_shortfall"),
    "excess_init": Predictor(
        "excess σ", "the first, of exponents minus those of the init null", CONTROL
    ),
    "excess_init_se": Predictor(
        "excess σ (standard errors)", "each difference over its standard error", CONTROL
    ),
    "mask_overlap": Predictor(
        "1 − mask overlap", "one minus (Jaccard minus chance), masks of one seed", CONTROL
    ),
    CONTROL: Predictor(
        "control: P profile", "difference of the blocks' shares of the kept weights"
    ),
    "param_share_shortfall": Predictor(
        "control: P shortfall (directed)",
        "the same over blocks in which the source keeps the smaller share",
    ),
    "dense_difference": Predictor(
        "control: dense metric", "difference of the two tasks' dense metrics"
    ),
    "target_error": Predictor("control: target", "the target's dense error, whatever the source"),
}
"""In the order of tables and figures."""

TITLES = {name: predictor.title for name, predictor in PREDICTORS.items()}


def score_frame(
    distances: Mapping[int, Mapping[str, np.ndarray]],
    losses: Mapping[int, Float[np.ndarray, "source target"]],
    transfers: Mapping[int, Bool[np.ndarray, "source target"]],
    *,
    num_permutations: int,
) -> pd.DataFrame:
    """Every predictor at every level, directed and symmetrised, beside its control.

    `p_holm` is Holm's correction over the predictors that are no controls, within one level and
    version. The P profile has no control of its own.
    """
    rows = []
    for level, loss in losses.items():
        for name, predictor in PREDICTORS.items():
            of_level, control = distances[level], predictor.control or CONTROL
            scores = score_predictor(
                of_level[name],
                loss,
                control=of_level[control],
                transfers=transfers.get(level),
                num_permutations=num_permutations,
                num_resamples=max(num_permutations // 5, 1),
            )
            about = {
                "predictor": name,
                "role": "control" if predictor.control is None else "predictor",
                "control": control,
                "outcome": "minimal_density" if level == ALL_LEVELS else "loss",
                "level": None if level == ALL_LEVELS else level,
            }
            rows += [
                {**about, "version": version, **score._asdict()}
                for version, score in scores._asdict().items()
            ]
    frame = pd.DataFrame(rows).astype({"level": "Int64"})
    of_itself = frame["predictor"] == frame["control"]
    frame.loc[of_itself, ["difference", "ci_low", "ci_high"]] = np.nan
    frame.loc[of_itself, "verdict"] = "is the control"
    of_predictors = frame[frame["role"] == "predictor"]
    for column, name in (("p_value", "p_holm"), ("p_smallest", "p_holm_smallest")):
        adjusted = of_predictors.groupby(["outcome", "level", "version"], dropna=False)[column]
        frame[name] = adjusted.transform(lambda p: holm(p.to_numpy(float)))
    return frame


def leave_one_out_frame(
    distances: Mapping[int, Mapping[str, np.ndarray]],
    transfers: Mapping[int, Bool[np.ndarray, "source target"]],
    counted: Mapping[int, Bool[np.ndarray, "source target"]],
    tasks: tuple[str, ...],
) -> pd.DataFrame:
    """Will it transfer? By predictor, with each task left out, beside the more frequent answer."""
    rows = []
    for level in transfers:
        found = leave_one_task_out(distances[level], transfers[level], counted=counted[level])
        for name, out in found.items():
            shared = {"level": level, "predictor": name, "majority": out.majority}
            shared["num_cells"] = out.num_cells
            rows.append({**shared, "task": "all", "accuracy": out.accuracy})
            by_task = zip(tasks, out.accuracy_by_task, out.threshold, strict=True)
            rows += [
                {**shared, "task": task, "accuracy": accuracy, "threshold": threshold}
                for task, accuracy, threshold in by_task
            ]
    columns = ["level", "predictor", "task", "accuracy", "threshold", "majority", "num_cells"]
    return pd.DataFrame(rows, columns=pd.Index(columns))
