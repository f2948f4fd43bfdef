"""Contrastive losses against loops over the published formulas, and one step of each method."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imp_rg.config import TrainConfig
from imp_rg.data.views import ViewConfig
from imp_rg.imp.contrastive import (
    ContrastiveConfig,
    enqueue,
    info_nce,
    move_average,
    nt_xent,
    unit_rows,
)
from imp_rg.imp.contrastive_train import (
    KEY_ENCODER,
    OPTIMIZER,
    QUEUE,
    add_key_encoder,
    add_optimizer,
    begin_kept,
    keep_optimizer,
    make_moco_step,
    make_simclr_step,
    rewind_both,
    strip,
)
from imp_rg.imp.drivers import BatchPlan
from imp_rg.imp.retrieval import make_key_fn, make_retrieval_fn, num_retrieved
from imp_rg.imp.train import make_optimizer
from imp_rg.pytree import ones_masks
from imp_rg.types import Batch, Variables

NUM, DIM = 4, 3
PLAIN = ViewConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.5, jitter=0.0, grayscale=0.0)


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def nt_xent_by_loops(z, temperature, reduction):
    """Chen et al. 2020, Eq. 1, term by term."""
    z, ratios = np.asarray(z, np.float64), []
    for i in range(len(z)):
        terms = [np.exp(cosine(z[i], z[k]) / temperature) for k in range(len(z))]
        ratios.append(terms[(i + len(z) // 2) % len(z)] / (sum(terms) - terms[i]))
    return -np.mean(np.log(ratios)) if reduction == "mean_log" else -np.log(np.mean(ratios))


def info_nce_by_loops(q, keys, queue, temperature):
    """He et al. 2020, Eq. 1, term by term."""
    q, keys, queue = (np.asarray(x, np.float64) for x in (q, keys, queue))
    losses = []
    for query, key in zip(q, keys, strict=True):
        own = np.exp(query @ key / temperature)
        losses.append(-np.log(own / (own + sum(np.exp(query @ k / temperature) for k in queue))))
    return np.mean(losses)


def slope(fn, x, direction, step=1e-5):
    x = np.asarray(x, np.float64)
    return (fn(x + step * direction) - fn(x - step * direction)) / (2 * step)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(2 * NUM, DIM)), jnp.float32)


@pytest.mark.parametrize("reduction", ["mean_log", "log_mean"])
def test_nt_xent_is_its_formula_and_so_is_its_gradient(rows, reduction):
    def loss_fn(z):
        return nt_xent(z, temperature=0.5, reduction=reduction)

    loss, grad = jax.jit(jax.value_and_grad(loss_fn))(rows)
    np.testing.assert_allclose(loss, nt_xent_by_loops(rows, 0.5, reduction), rtol=1e-6)
    direction = np.random.default_rng(1).normal(size=rows.shape)
    expected = slope(lambda z: nt_xent_by_loops(z, 0.5, reduction), rows, direction)
    np.testing.assert_allclose(np.sum(grad * direction), expected, rtol=1e-4)


def test_nt_xent_of_what_can_be_done_in_the_head(rows):
    same = jnp.ones((2 * NUM, DIM))
    np.testing.assert_allclose(nt_xent(same, temperature=0.1), np.log(2 * NUM - 1), rtol=1e-6)
    apart = jnp.concatenate([jnp.eye(NUM)] * 2)  # partners equal, all others orthogonal
    expected = np.log1p((2 * NUM - 2) * np.exp(-1 / 0.5))
    np.testing.assert_allclose(nt_xent(apart, temperature=0.5), expected, rtol=1e-5)
    by_length = nt_xent(rows * jnp.arange(1.0, 9.0)[:, None], temperature=0.5)
    np.testing.assert_allclose(by_length, nt_xent(rows, temperature=0.5), rtol=1e-5)


def test_a_view_of_zeros_has_a_finite_gradient(rows):
    grad = jax.jit(jax.grad(lambda z: nt_xent(z, temperature=0.5)))(rows.at[0].set(0.0))
    assert np.isfinite(grad).all()


def test_info_nce_is_its_formula_and_so_is_its_gradient(rows):
    queries, keys = unit_rows(rows[:NUM]), unit_rows(rows[NUM:])
    queue = unit_rows(jax.random.normal(jax.random.key(1), (6, DIM)))
    grad_fn = jax.value_and_grad(functools.partial(info_nce, temperature=0.2), (0, 1, 2))
    loss, grads = jax.jit(grad_fn)(queries, keys, queue)
    np.testing.assert_allclose(loss, info_nce_by_loops(queries, keys, queue, 0.2), rtol=1e-5)
    direction = np.random.default_rng(2).normal(size=queries.shape)
    expected = slope(lambda q: info_nce_by_loops(q, keys, queue, 0.2), queries, direction)
    np.testing.assert_allclose(np.sum(grads[0] * direction), expected, rtol=1e-4)
    assert not np.any(grads[1]) and not np.any(grads[2])
    same = jnp.full((NUM, 1), 1.0)
    np.testing.assert_allclose(
        info_nce(same, same, jnp.ones((6, 1)), temperature=0.2), np.log(7), rtol=1e-6
    )


def test_the_queue_is_first_in_first_out():
    queue = jnp.arange(6.0)[:, None]
    queue = enqueue(queue, jnp.array([[10.0], [11.0]]))
    queue = enqueue(queue, jnp.array([[12.0], [13.0]]))
    np.testing.assert_array_equal(queue[:, 0], [4, 5, 10, 11, 12, 13])


def test_the_average_moves_by_its_formula():
    moved = move_average({"a": jnp.array([1.0, 2.0])}, {"a": jnp.array([3.0, 2.0])}, 0.75)
    np.testing.assert_array_equal(moved["a"], [1.5, 2.0])


def encode_fn(params, batch_stats, x, *, is_training):
    """A linear encoder that keeps a running mean of what it sees."""
    flat = x.reshape(x.shape[0], -1) / 16
    mean = jnp.mean(flat, axis=0) if is_training else batch_stats["mean"]
    features = (flat - mean[None]) @ params["kernel"]
    stats = {"mean": 0.9 * batch_stats["mean"] + 0.1 * mean} if is_training else batch_stats
    return features, features @ params["projector"]["dense1"]["kernel"], stats


TRAIN = TrainConfig(num_steps=100, rewind_step=0, batch_size=8, schedule="constant")
MOCO = ContrastiveConfig(temperature=0.2, queue_size=16, key_momentum=0.9)


@pytest.fixture
def variables():
    rng = np.random.default_rng(3)
    dense = {"kernel": jnp.asarray(rng.normal(size=(6, 5)), jnp.float32), "bias": jnp.zeros(5)}
    kernel = jnp.asarray(rng.normal(size=(64, 6)), jnp.float32)
    params = {"kernel": kernel, "projector": {"dense1": dense}}
    return Variables(params, {"mean": jnp.zeros(64)})


@functools.cache
def make_step(make):
    """A jitted step that keeps its optimizer, and the optimizer."""
    tx = make_optimizer(TRAIN)
    step = make(encode_fn, tx, train=TRAIN, config=MOCO, views=PLAIN, peak=16.0)
    return jax.jit(keep_optimizer(step)), tx


def run_steps(step, variables, masks, data, num_steps):
    """Variables before the first step and after each."""
    carry = begin_kept(variables, masks)
    batch = BatchPlan(indices=jnp.arange(8), weights=jnp.ones(8))
    seen = [carry[0]]
    for i in range(num_steps):
        carry, _ = step(carry, jax.random.key(5), masks, data, batch, i)
        seen.append(carry[0])
    return seen


def half_masks(params):
    masks = ones_masks(params)
    return {**masks, "kernel": masks["kernel"].at[:32].set(False)}


def with_queue(variables):
    return add_key_encoder(jax.random.key(7), variables, MOCO, num_outputs=5)


def test_a_step_of_moco_is_algorithm_1(variables, tiny_batch):
    """Key encoder moved before the keys, keys at the end of the queue, one step of SGD."""
    step, tx = make_step(make_moco_step)
    masks = ones_masks(variables.params)
    start, first, second = run_steps(
        step, add_optimizer(with_queue(variables), tx), masks, tiny_batch, 2
    )
    encoders = [seen.batch_stats[KEY_ENCODER] for seen in (start, first, second)]
    kernels = [encoder["params"]["kernel"] for encoder in encoders]
    np.testing.assert_allclose(kernels[1], start.params["kernel"], rtol=1e-6)
    moved = 0.9 * kernels[1] + 0.1 * first.params["kernel"]
    np.testing.assert_allclose(kernels[2], moved, rtol=1e-5, atol=1e-7)
    assert not np.allclose(first.params["kernel"], start.params["kernel"])
    queues = [seen.batch_stats[QUEUE] for seen in (start, first, second)]
    np.testing.assert_array_equal(queues[1][:8], queues[0][8:])
    np.testing.assert_array_equal(queues[2][:8], queues[1][8:])
    np.testing.assert_allclose(np.linalg.norm(queues[2], axis=1), 1.0, rtol=1e-5)
    query_mean, key_mean = second.batch_stats["mean"], encoders[2]["batch_stats"]["mean"]
    assert np.any(query_mean) and not np.allclose(query_mean, key_mean)


@pytest.mark.parametrize("make", [make_simclr_step, make_moco_step])
def test_pruned_weights_stay_zero_though_momentum_is_kept(make, variables, tiny_batch):
    step, tx = make_step(make)
    is_moco = make is make_moco_step
    start = add_optimizer(with_queue(variables) if is_moco else variables, tx)
    dense = run_steps(step, start, ones_masks(variables.params), tiny_batch, 2)[-1]
    momentum = jax.tree.leaves(dense.batch_stats[OPTIMIZER]["state"].inner_state)
    assert any(np.any(leaf) for leaf in momentum)
    masks = half_masks(variables.params)
    after = run_steps(step, rewind_both(dense, start), masks, tiny_batch, 2)[-1]
    kernels = [after.params["kernel"]]
    if is_moco:
        kernels.append(after.batch_stats[KEY_ENCODER]["params"]["kernel"])
    for kernel in kernels:
        assert not np.any(kernel[:32]) and np.all(kernel[32:])
    assert int(after.batch_stats[OPTIMIZER]["step"]) == 4


def test_rewinding_takes_back_encoders_but_neither_queue_nor_optimizer(variables, tiny_batch):
    step, tx = make_step(make_moco_step)
    masks = ones_masks(variables.params)
    start, *_, trained = run_steps(
        step, add_optimizer(with_queue(variables), tx), masks, tiny_batch, 3
    )
    begun = rewind_both(trained, start)
    for source, parts in ((trained, (OPTIMIZER, QUEUE)), (start, (KEY_ENCODER, "mean"))):
        for part in parts:
            here, there = begun.batch_stats[part], source.batch_stats[part]
            jax.tree.map(np.testing.assert_array_equal, here, there)
    jax.tree.map(np.testing.assert_array_equal, begun.params, start.params)
    assert set(strip(begun).batch_stats) == {"mean"}


def test_retrieval_counts_views_nearest_to_their_partner():
    features = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.8, 0.2]])
    # 0 and 2 find each other; 1 and 3 are partners, but 3 is nearer to 2.
    assert int(num_retrieved(features)) == 3


def test_test_metrics_of_a_perfect_and_a_blind_encoder(variables, tiny_batch):
    """Views that differ in nothing are found; an encoder that sees nothing finds by chance."""
    still = ViewConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0)
    settings = {"views": still, "peak": 16.0, "batch_size": 32}
    own = with_queue(variables)
    blind = own._replace(params=jax.tree.map(jnp.zeros_like, own.params))
    stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), own, blind)
    data = Batch(x=tiny_batch.x, y=tiny_batch.y)
    seen, unseen = make_retrieval_fn(encode_fn, **settings)(stacked, data)
    assert seen == 100.0 and unseen < 10.0
    seen, _ = make_key_fn(encode_fn, queue_size=64, **settings)(stacked, data)
    assert seen == 100.0


def test_bad_input_is_named(rows):
    with pytest.raises(ValueError, match="batch_size: must be at least 2 for NT-Xent.*got 1"):
        nt_xent(rows[:2], temperature=0.5)
    with pytest.raises(ValueError, match="embeddings: must be two for each image, got 5"):
        nt_xent(rows[:5], temperature=0.5)
    for queue_size in (4, 20):
        with pytest.raises(ValueError, match=f"queue_size: must be a multiple.*got {queue_size}"):
            ContrastiveConfig(queue_size=queue_size).check_queue(8)
    with pytest.raises(ValueError, match="key_momentum: must lie in"):
        ContrastiveConfig(key_momentum=1.0)
    with pytest.raises(ValueError, match="temperature: must be positive"):
        ContrastiveConfig(temperature=0.0)
