"""Steps on masked words and steps in parts: losses by hand, gradients of the whole batch."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from bert_inputs import random_tokens

from imp_rg.data.text.masking import UNASKED, Masking, mask_tokens
from imp_rg.imp.finetune import FinetuneConfig, make_finetune_fn, make_finetune_step
from imp_rg.imp.losses import LOSSES, make_mask_fn, masked_loss
from imp_rg.imp.text_measure import make_predict_fn
from imp_rg.models.bert import make_bert
from imp_rg.models.bert_config import BertConfig
from imp_rg.pytree import ones_masks
from imp_rg.types import Batch, Variables

NUM_WORDS, WIDTH = 40, 12
MASKING = Masking(mask=4, special=(0, 1, 2, 3, 4), num_words=NUM_WORDS)
TOKENS = random_tokens([7, 3, 9, 5, 9, 2, 8, 8], 9, num_words=NUM_WORDS)
OUTPUTS = {"classification": 3, "regression": 1, "span": 2, "masked": NUM_WORDS}
LABELS = {
    "classification": np.arange(8, dtype=np.int32) % 3,
    "regression": np.linspace(0, 5, 8, dtype=np.float32),
    "span": np.array([[1, 1]] * 8, np.int32),
    "masked": np.zeros(8, np.int32),
}
# The last two are there to fill the batch up.
WEIGHTS = np.array([1, 1, 1, 1, 1, 1, 0, 0], np.float32)


def batch_of(tokens, labels) -> Any:
    return jax.tree.map(jnp.asarray, Batch(x=tokens, y=labels))


def test_masked_loss_by_hand():
    """ln(sum of exp) less the logit of the word, on the words to guess alone."""
    logits = jnp.log(jnp.array([[[1.0, 3.0], [2.0, 2.0], [9.0, 1.0]]] * 2))
    labels = jnp.array([[0, UNASKED, 1], [UNASKED] * 3])
    losses = masked_loss(logits, labels, jnp.array([3, 3]))
    np.testing.assert_allclose(losses, [(np.log(4) + np.log(10)) / 2, 0], rtol=1e-6)


def test_words_of_a_batch_count_the_same():
    batch = batch_of(TOKENS, LABELS["masked"])
    drawn: Any
    drawn, weights = make_mask_fn(MASKING)(jax.random.key(5), batch, jnp.asarray(WEIGHTS))
    tokens, labels = mask_tokens(jax.random.key(5), batch.x, MASKING)
    np.testing.assert_array_equal(drawn.y, labels)
    np.testing.assert_array_equal(drawn.x.ids, tokens.ids)
    num = np.sum(np.asarray(labels) != UNASKED, axis=1)
    assert len(set(num[:6])) > 1
    np.testing.assert_array_equal(weights, num * WEIGHTS)


def toy_network(variables: Variables, tokens: Any, *, is_training, key, kind, rate=0.0):
    """Embedding, tanh, optional dropout, one matrix: as small as a network of tokens can be."""
    del is_training
    x = jnp.tanh(variables.params["word"][tokens.ids])
    x = x * jax.random.bernoulli(key, 1 - rate, x.shape)
    y = x @ variables.params["kernel"]
    y = y if kind in ("span", "masked") else y.mean(1)
    return y[:, 0] if kind == "regression" else y, {}


def step_of(kind, *, accumulate, weights: Any = WEIGHTS, tokens: Any = TOKENS, rate=0.0):
    """Loss and gradient of one step: the optimizer hands the gradient through."""
    rng = np.random.default_rng(0)
    shapes = {"word": (NUM_WORDS, WIDTH), "kernel": (WIDTH, OUTPUTS[kind])}
    params = {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}
    step = make_finetune_step(
        partial(toy_network, kind=kind, rate=rate),
        LOSSES[kind],
        optax.identity(),
        accumulate=accumulate,
        sample_fn=make_mask_fn(MASKING) if kind == "masked" else None,
    )
    carry, key = (Variables(params, {}), ()), jax.random.key(3)
    batch = batch_of(tokens, LABELS[kind])
    rest = ones_masks(params), batch, weights, 1, np.float32(1)
    (after, _), loss = jax.jit(step)(carry, key, *rest)
    return float(loss), jax.tree.map(lambda a, b: np.float64(a) - b, params, after.params)


def assert_equal_steps(first, second):
    assert first[0] == pytest.approx(second[0], rel=1e-5)
    scale = max(np.abs(g).max() for g in first[1].values())
    assert scale > 0.01
    for name, g in first[1].items():
        np.testing.assert_allclose(g, second[1][name], atol=1e-5 * scale)


def test_loss_is_the_mean_over_real_examples():
    """By NumPy, without those that fill the batch up."""
    rng = np.random.default_rng(0)
    word, kernel = rng.normal(size=(NUM_WORDS, WIDTH)), rng.normal(size=(WIDTH, 1))
    scores = (np.tanh(word[TOKENS.ids]) @ kernel).mean((1, 2))
    expected = np.mean((scores - LABELS["regression"])[:6] ** 2)
    assert step_of("regression", accumulate=2)[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_parts_add_up_to_the_batch(kind):
    """Whatever fills the batch up, and in whichever part it stands."""
    whole = step_of(kind, accumulate=1)
    assert_equal_steps(whole, step_of(kind, accumulate=4))
    if kind == "classification":
        filled = TOKENS[np.array([0, 1, 2, 3, 4, 5, 0, 1])]
        assert_equal_steps(whole, step_of(kind, accumulate=4, tokens=filled))


def test_parts_draw_dropout_of_their_own():
    """Equal examples: with equal draws, each part would give the gradient of the first."""
    same = partial(step_of, "span", accumulate=8, tokens=TOKENS[np.zeros(8, int)], rate=0.5)
    all_parts, first = (same(weights=w)[1]["kernel"] for w in (np.ones(8), np.eye(8)[0]))
    assert np.abs(all_parts - first).max() > 1e-3


def test_parts_take_less_memory():
    """As the compiler counts it; nothing runs."""
    batch = batch_of(random_tokens([64] * 512, 64, num_words=NUM_WORDS), np.zeros(512, np.int32))
    params = {"word": jnp.ones((NUM_WORDS, WIDTH)), "kernel": jnp.ones((WIDTH, 3))}
    rest = jax.random.key(0), ones_masks(params), batch, np.ones(512, np.float32), 1, np.float32(1)
    network, loss_fn = partial(toy_network, kind="classification"), LOSSES["classification"]

    def temporary(accumulate):
        step = make_finetune_step(network, loss_fn, optax.identity(), accumulate=accumulate)
        compiled: Any = jax.jit(step).lower((Variables(params, {}), ()), *rest).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(4) < 0.4 * temporary(1)


def test_a_batch_without_a_word_to_guess():
    tokens = replace(TOKENS, ids=np.full_like(TOKENS.ids, 3))
    loss, grads = step_of("masked", accumulate=1, tokens=tokens)
    assert loss == 0 and not any(np.any(g) for g in grads.values())


def test_masked_words_are_learned():
    """Texts that repeat one word: what is hidden can be read off its neighbours."""
    words = np.random.default_rng(0).integers(5, NUM_WORDS, 64)
    tokens = random_tokens([10] * 64, 10, num_words=NUM_WORDS)
    tokens.ids[:] = words[:, None]
    tokens.ids[:, 0], tokens.ids[:, 9] = 2, 3
    sizes: dict[str, Any] = {
        "width": WIDTH,
        "num_layers": 1,
        "num_heads": 3,
        "intermediate_width": 24,
    }
    rates: dict[str, Any] = {"dropout": 0.0, "attention_dropout": 0.0, "init_std": 0.3}
    config = BertConfig(num_words=NUM_WORDS, **sizes, **rates)
    model = make_bert(config, kind="masked", num_outputs=0)
    variables = model.init(jax.random.key(0))
    train_fn = make_finetune_fn(
        model.make_apply_fn(),
        LOSSES["masked"],
        config=FinetuneConfig(epochs=100, batch_size=32, learning_rate=1e-2, accumulate=2),
        num_levels=1,
        widths=(10,),
        sample_fn=make_mask_fn(MASKING),
    )
    data = batch_of(tokens, np.zeros(64, np.int32))
    trained, info = train_fn(jax.random.key(1), variables, ones_masks(variables.params), data)
    loss = np.asarray(info.loss)
    assert info.is_finite and loss[:10].mean() > 2 and loss[-20:].mean() < 0.7
    hidden = replace(tokens, ids=np.where(np.arange(10)[None] == 4, MASKING.mask, tokens.ids))
    predict = make_predict_fn(model.make_apply_fn(), "masked", widths=(10,))
    guesses = predict(trained, batch_of(hidden, data.y))
    assert guesses.shape == (64, 10) and guesses.dtype == np.int32
    assert np.mean(guesses[:, 4] == words) > 0.9


def test_parts_that_do_not_divide_the_batch():
    rule = "accumulate: must divide the batch size 32, got 5"
    with pytest.raises(ValueError, match=rule):
        FinetuneConfig(accumulate=5)
    with pytest.raises(ValueError, match="accumulate: must be at least 1"):
        FinetuneConfig(accumulate=0)
