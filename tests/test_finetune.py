"""F on tokens: losses by hand, schedule, clipping, masks, what a level starts from, buckets."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from bert_inputs import random_tokens

from imp_rg.data.text import TextSplit
from imp_rg.data.text.tasks import TASKS
from imp_rg.imp.finetune import (
    FinetuneConfig,
    bucket_widths,
    make_adam,
    make_finetune_fn,
    make_rewind_fn,
    plan_level,
)
from imp_rg.imp.losses import LOSSES, classification_loss, regression_loss, span_loss
from imp_rg.imp.replicates import stack
from imp_rg.imp.text_measure import make_predict_fn, make_text_measure_fn
from imp_rg.models.bert import make_bert
from imp_rg.models.bert_config import BertConfig
from imp_rg.pytree import leaf_paths, ones_masks, to_flat
from imp_rg.types import Batch, Variables

CONFIG = BertConfig(num_words=20, width=8, num_layers=1, num_heads=2, intermediate_width=16)
MODEL = make_bert(CONFIG)
LENGTHS = np.array([3, 9, 5, 12, 4, 12, 7, 2, 11, 6], np.int32)
TOKENS = random_tokens(LENGTHS, 12, num_words=20)


def on_device(tokens, labels: Any) -> Any:
    return jax.tree.map(jnp.asarray, Batch(x=tokens, y=labels))


@pytest.fixture(scope="module")
def variables():
    return MODEL.init(jax.random.key(0))


@pytest.fixture(scope="module")
def data():
    return on_device(TOKENS, np.arange(len(LENGTHS), dtype=np.int32) % 2)


def test_losses_by_hand():
    length = jnp.array([2])
    logits = jnp.log(jnp.array([[1.0, 3.0]]))
    loss = classification_loss(logits, jnp.array([1]), length)
    np.testing.assert_allclose(loss, [-np.log(3 / 4)], rtol=1e-6)
    np.testing.assert_allclose(regression_loss(jnp.array([2.5]), jnp.array([4.0]), length), [2.25])


def test_span_loss_by_hand():
    """Start at token 0 of weights 1, 3; end at token 1 of weights 2, 6; the last is padding."""
    logits = jnp.log(jnp.array([[[1.0, 2.0], [3.0, 6.0], [50.0, 70.0]]]))
    loss = span_loss(logits, jnp.array([[0, 1]]), jnp.array([2]))
    np.testing.assert_allclose(loss, [-(np.log(1 / 4) + np.log(6 / 8)) / 2], rtol=1e-6)


@pytest.mark.parametrize(("schedule", "num_spanned"), [("level", 1), ("run", 5)])
def test_rate_falls_within_a_level_or_over_all(schedule, num_spanned):
    """Adam moves one weight of constant gradient by the rate; its value is the loss."""
    config = FinetuneConfig(epochs=2, batch_size=4, learning_rate=0.5, schedule=schedule)

    def apply_fn(variables, tokens, *, is_training, key):
        del is_training, key
        return variables.params["w"] * jnp.ones(tokens.shape[0]), {}

    train_fn: Any = make_finetune_fn(
        apply_fn, lambda y, *_: y, config=config, num_levels=5, widths=(12,)
    )
    start = Variables(params={"w": jnp.zeros(())}, batch_stats={})
    data = on_device(TOKENS, LENGTHS)
    trained, info = train_fn(jax.random.key(0), start, ones_masks(start.params), data)
    num_steps = 6  # 3 an epoch, the last one filled up
    rates = -np.diff([*info.loss, trained.params["w"]])
    expected = 0.5 * (1 - np.arange(num_steps) / (num_spanned * num_steps))
    # 1 - 0.999, by which Adam corrects its second moment, is rounded to 6e-5 of itself.
    np.testing.assert_allclose(rates, expected, rtol=5e-5)


def test_clipping_is_by_the_norm_of_all_weights():
    tx = make_adam(FinetuneConfig(clip_norm=1.0))
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    _, state = tx.update({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, tx.init(params), params)
    moments: Any = optax.tree_utils.tree_get(state, "mu")
    np.testing.assert_allclose([moments["a"][0], moments["b"][0]], [0.06, 0.08], rtol=1e-6)


@functools.cache
def train_fn() -> Any:
    """F of `MODEL`, compiled once for all tests."""
    return make_finetune_fn(
        MODEL.make_apply_fn(),
        LOSSES["classification"],
        config=FinetuneConfig(epochs=3, batch_size=8, learning_rate=1e-2),
        num_levels=2,
        widths=(12,),
    )


def test_pruned_weights_stay_zero_and_the_start_stays_whole(variables, data):
    rng = np.random.default_rng(1)
    masks = jax.tree.map(lambda p: jnp.asarray(rng.random(p.shape) < 0.5), variables.params)
    before = jax.tree.map(np.array, variables)
    trained, info = train_fn()(jax.random.key(0), variables, masks, data)
    for path, weight in to_flat(trained.params).items():
        mask = to_flat(masks)[path]
        assert not weight[~mask].any(), path
        assert (weight != to_flat(before.params)[path])[mask].any() or not mask.any(), path
    assert bool(info.is_finite) and info.loss.shape == (6,)
    jax.tree.map(np.testing.assert_array_equal, before, variables)


def test_same_key_same_bits(variables, data):
    masks = ones_masks(variables.params)
    first, again, other = (
        train_fn()(jax.random.key(seed), variables, masks, data)[0] for seed in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first.params["head"]["kernel"], other.params["head"]["kernel"])


def test_progress_and_part_of_a_level(variables, data):
    """The first steps of a level are those of the level."""
    masks, seen = ones_masks(variables.params), []
    options = {"stop": 4, "on_progress": lambda *call: seen.append(call)}
    whole = train_fn()(jax.random.key(0), variables, masks, data)[1].loss
    part = train_fn()(jax.random.key(0), variables, masks, data, **options)[1].loss
    np.testing.assert_array_equal(part, whole[:4])
    assert seen == [(4, float(part[-1]))]


def test_learns_a_planted_rule(variables):
    """The class is whether the first token belongs to the upper half of the words."""
    tokens = random_tokens(np.full(256, 4), 12, num_words=20)
    labels = np.asarray(tokens.ids[:, 0] >= 10, np.int32)
    data = on_device(tokens, labels)
    masks = ones_masks(variables.params)
    trained, info = train_fn()(jax.random.key(0), variables, masks, data)
    assert np.mean(info.loss[-4:]) < 0.5 * np.mean(info.loss[:4])
    split = TextSplit(tokens, labels, 0, 0)
    measure = make_text_measure_fn(MODEL.make_apply_fn(), TASKS["mrpc"], split, widths=(12,))
    percent = measure(stack([trained, variables]), data)
    assert percent.dtype == np.float64
    assert percent[0] == 100.0 and percent[1] < 75


def test_not_finite_is_said(variables, data):
    broken = jax.tree.map(lambda p: p * jnp.nan, variables)
    masks = ones_masks(variables.params)
    assert not train_fn()(jax.random.key(0), broken, masks, data)[1].is_finite


@pytest.mark.parametrize("kind", ["regression", "span"])
def test_buckets_change_neither_predictions_nor_their_order(kind):
    model = make_bert(CONFIG, kind=kind, num_outputs={"regression": 1, "span": 2}[kind])
    variables, data = model.init(jax.random.key(0)), on_device(TOKENS, LENGTHS)
    predict = make_predict_fn(model.make_apply_fn(), kind, widths=(6, 12))
    apply_fn = jax.jit(functools.partial(model.make_apply_fn(), is_training=False))
    expected = np.array(apply_fn(variables, data.x)[0])
    outputs = predict(variables, data)
    if kind == "span":  # an answer ends before the padding does
        is_real = np.arange(12) < LENGTHS[:, None]
        outputs, expected = outputs[is_real], expected[is_real]
    np.testing.assert_allclose(outputs, expected, atol=1e-6)


@pytest.mark.parametrize("scope", ["all_bert", "prunable_only"])
@pytest.mark.parametrize("reset_head", [False, True])
def test_what_a_level_starts_from(scope, reset_head, variables):
    trained = MODEL.init(jax.random.key(7))
    trained = trained._replace(params=jax.tree.map(lambda p: p + 1, trained.params))
    blocks = MODEL.partition("layer")
    config = FinetuneConfig(rewind_scope=scope, reset_head=reset_head)
    found = to_flat(make_rewind_fn(config, blocks.prunable)(trained, variables).params)
    new, old = to_flat(trained.params), to_flat(variables.params)
    for path, can in zip(leaf_paths(variables.params), blocks.prunable, strict=True):
        goes_back = reset_head if path.startswith("head/") else scope == "all_bert" or can
        np.testing.assert_array_equal(found[path], (old if goes_back else new)[path], path)


def test_epochs_are_whole_and_differ():
    config = FinetuneConfig(epochs=3, batch_size=4)
    plan = plan_level(jax.random.key(0), LENGTHS, config, (6, 12))
    assert len(plan) == config.level_steps(len(LENGTHS)) == 9
    epochs = [np.concatenate([b.rows[b.weights > 0] for b in plan[i : i + 3]]) for i in (0, 3, 6)]
    for rows in epochs:
        assert sorted(rows) == list(range(len(LENGTHS)))
    assert not np.array_equal(epochs[0], epochs[1])


@pytest.mark.parametrize(
    ("longest", "num", "expected"),
    [(64, 4, (16, 32, 48, 64)), (50, 4, (16, 32, 48, 50)), (64, 1, (64,)), (5, 4, (5,))],
)
def test_bucket_widths(longest, num, expected):
    assert bucket_widths(longest, num) == expected


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"buckets": 0}, "buckets"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"clip_norm": float("inf")}, "clip_norm"),
    ],
)
def test_bad_settings_are_named(settings, named):
    with pytest.raises(ValueError, match=f"^{named}: "):
        FinetuneConfig(**settings)
