"""Likeness of consecutive layers beside sigma: the paper's own explanation of a fixed point.

In: a checkpoint, a run folder and inputs of its task. Out: ``similarity.csv``, and its rank
correlation over layers with abs(sigma).
"""

from collections.abc import Sequence
from itertools import permutations
from math import factorial
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from scipy.stats import rankdata

from imp_rg.data.text.tokenize import Tokens
from imp_rg.foreign.bert_variables import find_checkpoint, load_bert, read_config
from imp_rg.imp.similarity import LayerSimilarity, layer_similarity
from imp_rg.models.bert import make_bert
from imp_rg.runs.files import read_csv, write_csv

MEASURES = LayerSimilarity._fields
"""``cka``, ``cka_first``, ``attention``: columns of ``similarity.csv``."""

NUM_INPUTS = 256

NUM_SHUFFLES = 5040
"""Orders of layers for a p-value: all of up to seven layers, as many drawn ones of more."""


def record_similarity(folder: Path, checkpoint: str, tokens: Tokens, *, task: str) -> None:
    """Writes ``similarity.csv`` of one task's run folder, unless it is there.

    Args:
      folder: Of the run. If it keeps the weights of its levels, the trained dense ones are
        measured, too.
      checkpoint: As of `find_checkpoint`; what the run started from.
      tokens: Inputs of the task; the first `NUM_INPUTS` are used.
      task: Its name.
    """
    path = folder / "similarity.csv"
    if path.exists():
        return
    source = find_checkpoint(checkpoint)
    model, key = make_bert(read_config(source)), jax.random.key(0)
    files = {"pretrained": [source]}
    files["trained"] = sorted((folder / "levels").glob("seed*/level00.safetensors"))
    frames = []
    for weights, paths in files.items():
        for seed, file in enumerate(paths):
            params = load_bert(key, file, model).variables.params
            found = layer_similarity(model, params, tokens[:NUM_INPUTS])
            columns = {"task": task, "weights": weights, "seed": seed}
            columns["layer"] = list(model.partitions["layer"])
            frames.append(pd.DataFrame(columns | found._asdict()))
    write_csv(path, pd.concat(frames, ignore_index=True))


def read_similarity(folder: Path, tasks: Sequence[str]) -> pd.DataFrame | None:
    """``similarity.csv`` of all tasks that have one; None if none has."""
    paths = [folder / task / "similarity.csv" for task in tasks]
    frames = [read_csv(path) for path in paths if path.is_file()]
    return pd.concat(frames, ignore_index=True) if frames else None


def rank_frame(similarity: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Spearman correlation over layers of each likeness with abs(sigma), by task and weights.

    Args:
      similarity: As `read_similarity` gives it; replicates are averaged.
      table: ``table3.csv``.

    Returns:
      Columns task, weights, measure, num_layers, rho, p (over orders of the layers).
    """
    sizes = table.set_index(["task", "block"])["sigma"].abs()
    rows = []
    for (task, weights), of_task in similarity.groupby(["task", "weights"], sort=False):
        means = of_task.groupby("layer", sort=False)[list(MEASURES)].mean()
        size = sizes.reindex([(task, layer) for layer in means.index]).to_numpy(float)
        for measure in MEASURES:
            likeness = means[measure].to_numpy(float)
            has_value = np.isfinite(likeness) & np.isfinite(size)
            rho, p = spearman(likeness[has_value], size[has_value])
            key = {"task": task, "weights": weights, "measure": measure}
            rows.append(key | {"num_layers": int(has_value.sum()), "rho": rho, "p": p})
    return pd.DataFrame(rows)


def spearman(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Rank correlation and its two-sided permutation p-value; NaN if all values are equal.

    References:
      Spearman, Am. J. Psychol. 15 (1904).
    """
    x, y = (rankdata(z) - (len(z) + 1) / 2 for z in (x, y))
    norm = np.sqrt(np.sum(x**2) * np.sum(y**2))
    if norm == 0:
        return np.nan, np.nan
    if factorial(len(x)) <= NUM_SHUFFLES:
        orders = np.array(list(permutations(range(len(x)))))
    else:
        drawn = np.random.default_rng(0).permuted(
            np.tile(np.arange(len(x)), (NUM_SHUFFLES, 1)), axis=1
        )
        orders = np.vstack([np.arange(len(x)), drawn])
    rho = x @ y / norm
    return float(rho), float(np.mean(np.abs(x[orders] @ y / norm) >= abs(rho) - 1e-12))
