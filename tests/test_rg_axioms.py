"""IMP as an RG scheme: one outcome, symmetry, composition; and that each check can fail."""

import dataclasses
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import rg_axioms
from experiments.studies.rg_axioms.checks import COMMUTES, COMPOSES, ONE_OUTCOME
from experiments.studies.rg_axioms.findings import invariance
from experiments.studies.rg_axioms.page import VERDICTS, make_page
from experiments.trunk import run
from imp_rg.config import PruneConfig, TrainConfig
from imp_rg.imp.execution import Execution
from imp_rg.imp.levels import make_scheme
from imp_rg.imp.projection import (
    collapsed_layers,
    commutes_with_permutation,
    differing_leaves,
    outcome_shares,
    prune_in_steps,
)
from imp_rg.imp.prune import prune_masks, prune_masks_on_host, prune_schedule
from imp_rg.models import make_model
from imp_rg.pytree import leaf_paths, ones_masks
from imp_rg.runs.files import read_csv

MODEL = make_model("lenet12-6", num_classes=2)
SHAPE = (8, 8, 1)
BLOCKS = MODEL.partition("layer", SHAPE)
SIZES = BLOCKS.sizes
JITTED = jax.jit(prune_masks, static_argnames="prunable")
PRUNE_FNS = [JITTED, prune_masks_on_host]


def draw(seed, *, num_ties=False):
    """Scores of a real network, with many equal ones if asked for."""
    params = MODEL.init(jax.random.key(seed), SHAPE).params
    scores = jax.tree.map(jnp.abs, params)
    if num_ties:
        scores = jax.tree.map(lambda s: jnp.round(10 * s) / 10, scores)
    return scores, ones_masks(params)


@pytest.mark.parametrize("prune_fn", PRUNE_FNS)
@pytest.mark.parametrize("num_ties", [False, True])
@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_prunings_compose_to_the_bit(prune_fn, num_ties, scope):
    scores, masks = draw(0, num_ties=num_ties)
    config = PruneConfig(prune_fraction=0.2, scope=scope)
    counts = prune_schedule(SIZES, config, num_levels=5)[1:]
    options = {"prunable": BLOCKS.prunable, "prune_fn": prune_fn}
    stepwise = prune_in_steps(scores, masks, num_remove=counts, **options)
    at_once = prune_in_steps(scores, masks, num_remove=counts.sum(axis=0)[None], **options)
    assert differing_leaves(stepwise, at_once) == ()
    one_less = prune_in_steps(scores, masks, num_remove=counts[:-1], **options)
    assert differing_leaves(stepwise, one_less) != ()


def test_refinement_breaks_the_composition():
    """Negative control: other scores between the prunings, other masks."""
    (scores, masks), (refined, _) = draw(0), draw(1)
    counts = prune_schedule(SIZES, PruneConfig(prune_fraction=0.3), num_levels=3)[1:]
    options = {"prunable": BLOCKS.prunable, "prune_fn": JITTED}
    half_way = prune_in_steps(scores, masks, num_remove=counts[:1], **options)
    stepwise = prune_in_steps(refined, half_way, num_remove=counts[1:], **options)
    at_once = prune_in_steps(scores, masks, num_remove=counts.sum(axis=0)[None], **options)
    assert differing_leaves(stepwise, at_once) != ()


@pytest.mark.parametrize("prune_fn", PRUNE_FNS)
def test_mask_operator_knows_no_places(prune_fn):
    scores, masks = draw(0)
    options = {"prunable": BLOCKS.prunable, "prune_fn": prune_fn}
    masks = prune_in_steps(scores, masks, num_remove=np.array([[50]]), **options)
    options["num_remove"] = np.array([100])
    assert commutes_with_permutation(jax.random.key(1), scores, masks, **options)
    tied, masks = draw(0, num_ties=True)
    assert not commutes_with_permutation(jax.random.key(2), tied, masks, **options)


def test_bits_are_compared_as_bits():
    tree = {"a": jnp.array([0.0, jnp.nan]), "b": jnp.array([1.0])}
    assert differing_leaves(tree, tree) == ()
    assert differing_leaves(tree, tree | {"a": jnp.array([-0.0, jnp.nan])}) == ("a",)
    assert differing_leaves(tree, tree | {"b": jnp.array([1.0 + 2**-23])}) == ("b",)
    with pytest.raises(ValueError, match="b: must have the structure of a"):
        differing_leaves(tree, {"a": tree["a"]})


def test_shares_of_outcomes():
    one, other = {"w": np.array([1.0])}, {"w": np.array([np.nextafter(1.0, 2)])}
    np.testing.assert_array_equal(outcome_shares([one, one, one]), [1.0])
    np.testing.assert_array_equal(outcome_shares([other, one, one, one]), [0.75, 0.25])
    with pytest.raises(ValueError, match="outcomes: must hold at least one, got 0"):
        outcome_shares([])


def test_empty_layer_is_named():
    _, masks = draw(0)
    assert collapsed_layers(masks, prunable=BLOCKS.prunable) == ()
    paths, (leaves, structure) = leaf_paths(masks), jax.tree.flatten(masks)
    emptied = [
        jnp.zeros_like(m) if path.endswith(("dense1/kernel", "bias")) else m
        for path, m in zip(paths, leaves, strict=True)
    ]
    emptied = jax.tree.unflatten(structure, emptied)
    named = collapsed_layers(emptied, prunable=BLOCKS.prunable)
    assert named == ("dense1",)


@pytest.mark.parametrize("driver", ["scan", "dispatch"])
def test_operator_has_one_outcome(driver, tiny_batch):
    """Same key, same order, same bits; another key, another state."""
    config = TrainConfig(num_steps=6, rewind_step=2, batch_size=16)
    scheme = make_scheme(
        MODEL.make_apply_fn(np.array([6.0], np.float32), np.array([5.0], np.float32)),
        blocks=BLOCKS,
        leaf_sizes=tuple(leaf.size for leaf in jax.tree.leaves(MODEL.shapes(SHAPE))),
        num_examples=96,
        num_levels=3,
        prune_config=PruneConfig(),
        train_config=config,
        execution=Execution(driver, "loop"),
    )

    def two_levels(seed):
        keys = jax.vmap(jax.random.key)(jnp.array([seed]))
        initial = jax.tree.map(lambda x: x[None], MODEL.init(jax.random.key(7), SHAPE))
        state = scheme.start(keys, initial, tiny_batch)
        for _ in range(2):
            state, _ = scheme.step(keys, state, tiny_batch)
        return state

    assert outcome_shares([two_levels(0) for _ in range(3)]).tolist() == [1.0]
    assert differing_leaves(two_levels(0), two_levels(1)) != ()


SMALL = dataclasses.replace(
    rg_axioms.PRESETS["smoke"],
    model="lenet12-6",
    levels=2,
    train=TrainConfig(num_steps=12, rewind_step=2),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The experiment on the smallest network, without the pages of its runs."""
    config = dataclasses.replace(SMALL, out=tmp_path_factory.mktemp("projection") / "run")
    with mock.patch.object(run, "report"):
        return config, rg_axioms.run(config)


def test_experiment_writes_its_tables(finished):
    _, folder = finished
    checks = read_csv(folder / "checks.csv").set_index("check")["holds"]
    assert checks[[ONE_OUTCOME, COMPOSES, COMMUTES]].all()
    assert not checks["another key: the same state"]
    differences = read_csv(folder / "differences.csv")
    assert set(differences["x_a"]) == {0.36} and set(differences["x_b"]) == {0.2}
    sigma = read_csv(folder / "sigma.csv").set_index(["x", "estimator", "block"])["sigma"]
    for row in differences.to_dict("records"):
        a, b = (sigma[row[x], row["estimator"], row["block"]] for x in ("x_a", "x_b"))
        assert row["mean"] == pytest.approx(a - b, abs=1e-12)
    overlap = read_csv(folder / "overlap.csv")
    steps = overlap[overlap["kind"] == "step"]
    assert (steps["above_chance"] > 0.1).all() and (steps["jaccard"] <= 1).all()
    assert len(steps) == 2 * 2
    assert not len(read_csv(folder / "empty_layers.csv"))
    assert 0 < read_csv(folder / "null_differences.csv")["largest"].item() < 1e-2


def test_page_is_a_function_of_the_folder(finished):
    _, folder = finished
    page = make_page(folder)
    verdict = invariance(read_csv(folder / "differences.csv"))
    assert page.answers[0].startswith(VERDICTS[verdict])
    tables: Any = {section.title: section.table for section in page.sections}
    assert list(tables["Checked by applying the operators"]["holds"][:2]) == ["yes", "no"]
    shown = tables["Is sigma invariant under c?"]
    assert list(shown["difference"]) == 3 * ["0.36 − 0.2"]
    assert len(tables["Masks at equal densities"]) == 2
    assert VERDICTS[verdict] in (folder / "report.html").read_text()


def test_finished_experiment_reports_the_same(finished):
    config, folder = finished
    names = ("checks", "sigma", "differences", "overlap")
    before = [(folder / f"{name}.csv").read_bytes() for name in names]
    with (
        mock.patch.object(run, "report"),
        mock.patch.object(run, "run_levels") as levels,
        mock.patch.object(rg_axioms, "check_operators") as checks,
    ):
        rg_axioms.run(config)
    levels.assert_not_called()
    checks.assert_not_called()
    assert [(folder / f"{name}.csv").read_bytes() for name in names] == before


@pytest.mark.parametrize(
    ("mean", "half", "p", "verdict"),
    [
        (0.001, 0.01, 0.9, "not refuted"),
        (0.010, 0.005, 0.01, "small dependence"),
        (0.200, 0.05, 0.01, "dependence"),
        (0.001, np.nan, np.nan, "unknown"),
    ],
)
def test_verdict_on_invariance(mean, half, p, verdict):
    row = {"estimator": "paper", "x_a": 0.36, "x_b": 0.2, "block": "b", "mean": mean, "p_holm": p}
    other = row | {"estimator": "slope", "mean": 9.0, "low": 8.0, "high": 9.0, "p_holm": 0.0}
    row |= {"low": mean - half, "high": mean + half}
    assert invariance(pd.DataFrame([row, other])) == verdict


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"divisions": (1,)}, "divisions: must be at least 2 different positive numbers"),
        ({"divisions": (2, 2)}, "divisions: must be at least 2 different"),
        ({"divisions": (0, 2)}, "divisions: must be at least 2 different"),
        ({"repeats": 1}, "repeats: must be at least 2, got 1"),
        ({"levels": 0}, "levels: must be at least 1, got 0"),
        ({"prune_fraction": 1.2}, "prune_fraction: must lie strictly between 0 and 1"),
    ],
)
def test_bad_settings(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SMALL, **change)
