"""How good predictions are: the metrics of GLUE and SQuAD, as fractions.

Arrays or texts in, one number out. All lie in [0, 1] or, for correlations, in [-1, 1]; reports
multiply by 100.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from imp_rg.config import require

Labels = Int[np.ndarray, " example"]
Values = Float[np.ndarray, " example"]

POSITIVE = 1
"""The class that F1 is about: duplicates, paraphrases."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def accuracy(labels: Labels, predictions: Labels) -> float:
    """Share of predictions that equal their label."""
    _check_lengths(labels, predictions)
    return float(np.mean(labels == predictions))


def f1(labels: Labels, predictions: Labels) -> float:
    """Harmonic mean of precision and recall of class 1; 0 where nothing is of that class."""
    _check_lengths(labels, predictions)
    is_positive, is_predicted = labels == POSITIVE, predictions == POSITIVE
    total = is_positive.sum() + is_predicted.sum()
    return float(2 * (is_positive & is_predicted).sum() / total) if total else 0.0


def matthews(labels: Labels, predictions: Labels) -> float:
    """Matthews correlation of two classes; 0 if labels or predictions are all of one class.

    References:
      Matthews, Biochim. Biophys. Acta 405 (1975) 442.
    """
    _check_lengths(labels, predictions)
    x, y = (values - np.mean(values) for values in (labels, predictions))
    norm = np.sqrt(np.sum(x * x) * np.sum(y * y))
    return float(np.sum(x * y) / norm) if norm else 0.0


def pearson(labels: Values, predictions: Values) -> float:
    """Linear correlation; NaN if labels or predictions are constant."""
    _check_lengths(labels, predictions)
    x, y = (np.asarray(values, np.float64) for values in (labels, predictions))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def spearman(labels: Values, predictions: Values) -> float:
    """Correlation of the ranks, ties sharing theirs; NaN if labels or predictions are constant."""
    _check_lengths(labels, predictions)
    return pearson(stats.rankdata(labels), stats.rankdata(predictions))


def exact_match(answers: Sequence[Sequence[str]], predictions: Sequence[str]) -> float:
    """Share of predicted texts that equal one of their answers once both are normalised.

    References:
      Rajpurkar et al., arXiv:1606.05250, Sec. 6.1.
    """
    return _best_mean(lambda answer, text: float(answer == text), answers, predictions)


def squad_f1(answers: Sequence[Sequence[str]], predictions: Sequence[str]) -> float:
    """Mean overlap of words between predicted texts and the best-fitting of their answers.

    The overlap is the F1 of the two bags of normalised words.

    References:
      Rajpurkar et al., arXiv:1606.05250, Sec. 6.1.
    """
    return _best_mean(_word_f1, answers, predictions)


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and spare whitespace.

    References:
      Rajpurkar et al., arXiv:1606.05250, Sec. 6.1; punctuation goes before articles do.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _word_f1(answer: str, text: str) -> float:
    expected, found = answer.split(), text.split()
    num_shared = sum((Counter(expected) & Counter(found)).values())
    # Nothing shared is 0 even if both are empty, as in the official script.
    return 2 * num_shared / (len(expected) + len(found)) if num_shared else 0.0


def _best_mean(
    score: Callable[[str, str], float], answers: Sequence[Sequence[str]], predictions: Sequence[str]
) -> float:
    _check_lengths(answers, predictions)
    total = 0.0
    for i, (allowed, text) in enumerate(zip(answers, predictions, strict=True)):
        require(len(allowed) > 0, "answers", f"example {i} needs at least one", list(allowed))
        text = normalize_answer(text)
        total += max(score(normalize_answer(answer), text) for answer in allowed)
    return total / len(predictions)


def _check_lengths(labels: Sequence | np.ndarray, predictions: Sequence | np.ndarray) -> None:
    require(len(labels) > 0, "labels", "must not be empty", len(labels))
    rule = f"must be one for each of {len(labels)} labels"
    require(len(predictions) == len(labels), "predictions", rule, len(predictions))


METRICS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
    "exact_match": exact_match,
    "squad_f1": squad_f1,
}
"""Metrics by name; all take labels (or answers), then predictions."""
