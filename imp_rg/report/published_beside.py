"""What the run says: the answer in sentences, P beside M, published numbers beside ours.

In: `RunTables`. Out: sentences and small result objects for the page.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from imp_rg import published
from imp_rg.plots.style import Frame
from imp_rg.report.lead import lead_nulls
from imp_rg.report.run_tables import RunTables
from imp_rg.report.words import block_list, count_text

SOURCE_SETTINGS = {
    "dataset": "cifar10",
    "augment": "flip_crop",
    "normalize": "imagenet",
    "width": 1.0,
    "shortcut": "projection",
    "gamma_init": "uniform",
    "prune_fraction": 0.2,
    "fraction_of": "remaining",
    "scope": "global",
    "count_rule": "ceil+1",
    "num_steps": 62560,
    "rewind_step": 1000,
    "after_rewind": "continue",
    "batch_size": 128,
    "last_batch": "keep",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "schedule": "step",
    "milestones": [0.5, 0.75],
}
"""Recipe behind the paper's Tables 4 to 6, from the public code of its source study."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two lists of exponents agree.

    Attributes:
      num_blocks: Blocks with both values.
      num_same_sign: Of them, how many agree in sign.
      rank_correlation: Spearman's; NaN with fewer than three blocks or without spread.
      largest: Largest absolute difference.
      largest_block: Where it occurs; empty without blocks.
    """

    num_blocks: int
    num_same_sign: int
    rank_correlation: float
    largest: float
    largest_block: str


def agreement(ours: pd.Series, theirs: pd.Series) -> Agreement:
    """Compares two series of exponents indexed by block. House definition."""
    both: Frame = pd.concat([ours, theirs], axis=1, join="inner").dropna()
    x, y = both.to_numpy(float).T
    difference = np.abs(x - y)
    has_ranks = len(x) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0
    return Agreement(
        num_blocks=len(x),
        num_same_sign=int((np.sign(x) == np.sign(y)).sum()),
        rank_correlation=np.corrcoef(rankdata(x), rankdata(y))[0, 1] if has_ranks else np.nan,
        largest=difference.max() if len(x) else np.nan,
        largest_block=str(both.index[difference.argmax()]) if len(x) else "",
    )


def agreement_text(result: Agreement) -> str:
    """The same in words."""
    ranks = result.rank_correlation
    rank_text = "not defined" if np.isnan(ranks) else f"{ranks:.2f}"
    return (
        f"same sign in {result.num_same_sign} of {result.num_blocks} blocks, rank correlation "
        f"{rank_text}, largest difference {result.largest:.3f} ({result.largest_block})"
    )


def answer(tables: RunTables) -> list[str]:
    """The result in a few sentences. House definition."""
    rows = tables.listed()
    if rows["sigma"].isna().all():
        return ["No block has an exponent: no seed reached the last level with weights in it."]
    if rows["ci_low"].isna().all():
        sentences = [_signs(rows)]
    else:
        has_sigma = rows["sigma"].notna()
        classes = {
            "relevant (their share grows)": rows["relevance"] == "relevant",
            "irrelevant (their share shrinks)": rows["relevance"] == "irrelevant",
            "marginal (the interval holds zero)": rows["relevance"] == "marginal",
            "undetermined (no interval)": (rows["relevance"] == "undetermined") & has_sigma,
            "without exponent (the share vanishes)": ~has_sigma,
        }
        parts = [f"{is_so.sum()} {name}" for name, is_so in classes.items() if is_so.any()]
        sentences = [f"Of {count_text(len(rows), 'block')}: {'; '.join(parts)}."]
    if "sigma_init" in rows:
        beside = agreement(*(rows.set_index("block")[c] for c in ("sigma", "sigma_init")))
        sentences.append(
            "Signs alone are no evidence of learning: the rewind weights, pruned without any "
            f"training, have the same sign in {beside.num_same_sign} of {beside.num_blocks}."
        )
    found = [_differs(rows, null) for null in lead_nulls(rows)]
    if found and rows["ci_low"].notna().any():
        sentences.append(f"The excess differs from zero {' and '.join(found)}.")
    return sentences


def _signs(rows: Frame) -> str:
    texts = [
        f"sigma is {word} for {block_list(rows.loc[is_so, 'block'])}"
        for word, is_so in (("positive", rows["sigma"] > 0), ("negative", rows["sigma"] < 0))
        if is_so.any()
    ]
    return f"Without an interval no block can be classified; {' and '.join(texts)}."


def _differs(rows: Frame, null: str) -> str:
    differs = (rows[f"excess_{null}_low"] > 0) | (rows[f"excess_{null}_high"] < 0)
    return f"in {differs.sum()} of {len(rows)} blocks over {null}"


@dataclass(frozen=True, kw_only=True)
class Published:
    """The paper's numbers for the blocks of this run.

    Attributes:
      source: Where they stand.
      sigma: Printed value by block.
      differing: Setting, ours, theirs, where they differ.
    """

    source: str
    sigma: pd.Series
    differing: list[tuple[str, str, str]]


def published_for(tables: RunTables) -> Published | None:
    """Published exponents that name blocks of this run; None if there are none.

    References:
      Redman et al., arXiv:2110.03210, Tables 2 and 4-6.
    """
    config = tables.config
    depths = {f"resnet{depth}": depth for depth in published.CIFAR_DEPTHS}
    tasks = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
    recipe = {}
    model, dataset = config.get("model"), config.get("dataset")
    if model in depths:
        sigma = published.cifar_resnet_sigma(depths[model])
        source, recipe = "Tables 4 to 6 (CIFAR-10)", SOURCE_SETTINGS
    elif model == "resnet50" and dataset in tasks:
        sigma = published.resnet50_sigma(tasks[dataset])
        source = f"Table 2 ({tasks[dataset]}, no pre-training)"
    else:
        return None
    of_ours = {block: sigma[block] for block in tables.listed()["block"] if block in sigma}
    if not of_ours:
        return None
    differing = [
        (name, str(config[name]), str(theirs))
        for name, theirs in recipe.items()
        if name in config and config[name] != theirs
    ]
    return Published(source=source, sigma=pd.Series(of_ours, dtype=float), differing=differing)
