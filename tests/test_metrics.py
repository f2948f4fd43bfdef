"""Metrics against scikit-learn, SciPy, and cases of the official SQuAD script worked by hand."""

import math

import numpy as np
import pytest
import sklearn.metrics
from scipy import stats

from imp_rg.data import metrics
from imp_rg.data.text.tasks import TASKS


@pytest.fixture(params=range(3))
def classes(request):
    rng = np.random.default_rng(request.param)
    labels = rng.integers(0, 2, 200)
    return labels, np.where(rng.random(200) < 0.3, rng.integers(0, 2, 200), labels)


def test_classes_against_scikit_learn(classes):
    assert metrics.accuracy(*classes) == sklearn.metrics.accuracy_score(*classes)
    assert metrics.f1(*classes) == pytest.approx(sklearn.metrics.f1_score(*classes), rel=1e-12)
    expected = sklearn.metrics.matthews_corrcoef(*classes)
    assert metrics.matthews(*classes) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("digits", [0, 8])
def test_correlations_against_scipy(digits):
    rng = np.random.default_rng(0)
    labels = rng.uniform(0, 5, 300).round(digits)  # rounded to whole numbers, most are ties
    found = (labels + rng.normal(size=300)).astype(np.float32)
    assert metrics.pearson(labels, found) == pytest.approx(stats.pearsonr(labels, found)[0])
    assert metrics.spearman(labels, found) == pytest.approx(stats.spearmanr(labels, found)[0])


def test_by_hand():
    labels, found = np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0])
    assert metrics.accuracy(labels, found) == 3 / 5
    assert metrics.f1(labels, found) == 2 * 2 / (3 + 3)
    # 2 true positives, 1 true negative, 1 false of each: (2*1 - 1*1) / sqrt(3*3*2*2)
    assert metrics.matthews(labels, found) == pytest.approx(1 / 6)


def test_one_class_only():
    zeros, mixed = np.zeros(4, int), np.array([0, 1, 1, 0])
    assert metrics.matthews(mixed, zeros) == 0 and metrics.matthews(zeros, mixed) == 0
    assert metrics.f1(zeros, zeros) == 0 and metrics.f1(mixed, zeros) == 0
    assert math.isnan(metrics.pearson(mixed, np.full(4, 0.1)))
    assert math.isnan(metrics.spearman(np.full(4, 0.1), mixed))


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Cat.", "cat"),
        ("  an   owl,\ta bat\n", "owl bat"),
        ("theatre", "theatre"),  # an article only as a word
        ("the-end", "theend"),  # punctuation goes first, and joins
        ("U.S.A", "usa"),
        ("£5 – “six”", "£5 – “six”"),  # only ASCII punctuation
        ("a.", ""),
    ],
)
def test_answers_are_normalised(text, normal):
    assert metrics.normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("answers", "text", "exact", "overlap"),
    [
        (["Denver Broncos"], "the Denver Broncos.", 1, 1),
        (["Denver Broncos", "Broncos"], "broncos", 1, 1),  # the best answer counts
        (["in the year 1066"], "1066", 0, 2 * 1 / (3 + 1)),
        (["x x y"], "x z", 0, 2 * 1 / (3 + 2)),  # a word counts as often as both have it
        (["x x y"], "x x", 0, 2 * 2 / (3 + 2)),
        (["Denver"], "Carolina", 0, 0),
        (["The"], "a", 1, 0),  # nothing left of either: equal, but no word is shared
        (["Denver"], "", 0, 0),
    ],
)
def test_squad_by_hand(answers, text, exact, overlap):
    assert metrics.exact_match([answers], [text]) == exact
    assert metrics.squad_f1([answers], [text]) == pytest.approx(overlap)
    # A second question that is answered right pulls both half way to one.
    assert metrics.exact_match([answers, ["q"]], [text, "q"]) == (exact + 1) / 2
    assert metrics.squad_f1([answers, ["q"]], [text, "q"]) == pytest.approx((overlap + 1) / 2)


def test_unfit_lengths():
    with pytest.raises(ValueError, match="predictions: must be one for each of 3 labels, got 2"):
        metrics.accuracy(np.zeros(3, int), np.zeros(2, int))
    with pytest.raises(ValueError, match="labels: must not be empty"):
        metrics.pearson(np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="answers: example 1 needs at least one"):
        metrics.exact_match([["x"], []], ["x", "y"])


def test_every_task_has_known_metrics():
    assert {name for task in TASKS.values() for name in task.metrics} == set(metrics.METRICS)
