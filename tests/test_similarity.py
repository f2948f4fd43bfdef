"""Likeness of consecutive layers: against direct formulas, and what must leave it unchanged."""

import jax
import numpy as np
import pytest
from bert_inputs import random_tokens
from scipy.special import softmax

from imp_rg.imp.similarity import (
    attention_similarity,
    layer_cka,
    layer_similarity,
    linear_cka,
)
from imp_rg.models.bert import make_bert
from imp_rg.models.bert_config import BertConfig

SIZES = {"num_words": 40, "width": 12, "num_layers": 3, "num_heads": 3, "intermediate_width": 48}
MODEL = make_bert(BertConfig(**SIZES, init_std=0.4))
HIDDEN_STATES, ATTENTION_MAPS = jax.jit(MODEL.hidden_states), jax.jit(MODEL.attention_maps)
TOKENS = random_tokens([5, 3, 6, 4] * 10, 6, num_words=40)


@pytest.fixture(scope="module")
def params():
    return MODEL.init(jax.random.key(0)).params


def test_cka_of_a_small_case():
    """One centred column each: the squared correlation; and a case done by hand."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50, 1))
    expected = np.corrcoef(x[:, 0], y[:, 0])[0, 1] ** 2
    assert linear_cka(x, y) == pytest.approx(expected, abs=1e-12)
    # Centred already: X'X = diag(2, 2), Y'X = (2, 0), Y'Y = 2, so 4 / (2 sqrt(2) 2).
    x = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    assert linear_cka(x, x[:, :1]) == pytest.approx(1 / np.sqrt(2), abs=1e-12)


def test_cka_is_that_of_kernels():
    """The other form of the paper, by centred kernel matrices."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(3, 1, (40, 7)), rng.normal(-1, 2, (40, 5))
    centre = np.eye(40) - 1 / 40
    k, m = (centre @ z @ z.T @ centre for z in (x, y))
    expected = np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))
    assert linear_cka(x, y) == pytest.approx(expected, abs=1e-12)


def test_cka_knows_no_rotation_scale_or_shift():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(60, 6)), rng.normal(size=(60, 6))
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x @ rotation, y) == pytest.approx(linear_cka(x, y), abs=1e-12)
    stretched = y * np.array([10.0, 1, 1, 1, 1, 1])
    assert abs(linear_cka(x, stretched) - linear_cka(x, y)) > 0.01


def test_cka_without_an_answer():
    constant = np.full((7, 2), 0.1)  # its mean is not 0.1 to the last bit
    assert np.isnan(linear_cka(constant, np.arange(14.0).reshape(7, 2)))
    with pytest.raises(ValueError, match="y: must have the 5 rows of x, got 4"):
        linear_cka(np.ones((5, 2)), np.ones((4, 2)))


def test_attention_maps_are_softmax_by_hand(params):
    tokens = TOKENS[:4]
    maps = np.asarray(ATTENTION_MAPS(params, tokens))
    assert maps.shape == (3, 4, 3, 6, 6)
    np.testing.assert_allclose(maps.sum(axis=-1), 1, atol=1e-6)
    states = np.asarray(HIDDEN_STATES(params, tokens), float)
    for layer in range(3):
        attention = params[f"layer{layer}"]["attention"]
        query, key = (states[layer] @ np.asarray(attention[n]["kernel"]) for n in ("query", "key"))
        for example, length in enumerate(tokens.length):
            for head in range(3):
                part = slice(4 * head, 4 * head + 4)
                products = query[example][:, part] @ key[example][:length, part].T / 2
                expected = np.zeros((6, 6))
                expected[:, :length] = softmax(products, axis=1)
                np.testing.assert_allclose(maps[layer, example, head], expected, atol=1e-5)
    assert maps.std(axis=-1).max() > 0.2  # uneven, so that the comparison means something


def test_attention_similarity_by_hand():
    """Two inputs of two real tokens and one padded, one head, two layers."""
    one = np.array([[1.0, 0, 0], [0, 1, 0], [0.3, 0.7, 0]])
    other = np.array([[0.0, 1, 0], [0, 1, 0], [0.9, 0.1, 0]])
    maps = np.stack([np.stack([one, one]), np.stack([one, other])])[:, :, None]
    found = attention_similarity(maps, np.array([2, 2]))
    np.testing.assert_allclose(found, [[np.nan, 1], [np.nan, 0.5]], atol=1e-12)


def test_attention_similarity_knows_no_order_of_heads():
    rng = np.random.default_rng(0)
    maps = rng.dirichlet(np.ones(4), (2, 5, 3, 4))
    maps[1] = maps[0, :, [2, 0, 1]].swapaxes(0, 1)
    np.testing.assert_allclose(attention_similarity(maps, np.full(5, 4))[:, 1], 1, atol=1e-12)


def test_similarity_of_an_encoder_is_that_of_its_real_tokens(params):
    found = layer_similarity(MODEL, params, TOKENS)  # more than one batch
    states = np.asarray(HIDDEN_STATES(params, TOKENS))
    rows = [np.concatenate([s[i, :n] for i, n in enumerate(TOKENS.length)]) for s in states]
    np.testing.assert_allclose(found.cka, layer_cka(np.stack(rows)), atol=1e-6)
    np.testing.assert_allclose(found.cka_first, layer_cka(states[:, :, 0]), atol=1e-6)
    maps = ATTENTION_MAPS(params, TOKENS)
    expected = attention_similarity(maps, TOKENS.length).mean(axis=0)
    np.testing.assert_allclose(found.attention, expected, atol=1e-6)
    assert np.ptp(found.cka) > 0.01 and np.all((found.cka > 0) & (found.cka < 1))
