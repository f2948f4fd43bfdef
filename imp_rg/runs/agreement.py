"""How far two lists of exponents agree: signs, ranks, distance."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from imp_rg.rg.estimate import MISSING


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Of the blocks that both lists have.

    Attributes:
      num_blocks: Blocks with both values.
      num_same_sign: Of them, how many agree in sign.
      rank_correlation: Spearman's; NaN with fewer than three blocks or where all values are equal.
      rms: Root mean square of the differences; NaN without blocks.
      largest: Largest absolute difference.
      largest_block: Where it occurs; empty without blocks.
    """

    num_blocks: int
    num_same_sign: int
    rank_correlation: float
    rms: float
    largest: float
    largest_block: str

    def text(self) -> str:
        """All of it in one clause."""
        ranks = self.rank_correlation
        return (
            f"same sign in {self.num_same_sign} of {self.num_blocks} blocks, rank correlation "
            f"{MISSING if np.isnan(ranks) else f'{ranks:.2f}'}, largest difference "
            f"{self.largest:.3f} ({self.largest_block})"
        )


def agreement(ours: pd.Series, theirs: pd.Series) -> Agreement:
    """Compares two series of exponents indexed by block. House definition."""
    both = pd.concat([ours, theirs], axis=1, join="inner").dropna()
    x, y = both.to_numpy(float).T
    difference = np.abs(x - y)
    square = (ours - theirs).dropna() ** 2
    has_ranks = len(x) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0
    return Agreement(
        num_blocks=len(x),
        num_same_sign=int((np.sign(x) == np.sign(y)).sum()),
        rank_correlation=np.corrcoef(rankdata(x), rankdata(y))[0, 1] if has_ranks else np.nan,
        rms=float(np.sqrt(square.mean())) if len(square) else np.nan,
        largest=difference.max() if len(x) else np.nan,
        largest_block=str(both.index[int(difference.argmax())]) if len(x) else "",
    )
