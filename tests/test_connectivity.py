"""Barriers of lines whose answer is known, and batch statistics estimated afresh."""

from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imp_rg.imp.connectivity import barrier_height, linear_path, make_statistics_fn
from imp_rg.imp.evaluate import make_count_fn
from imp_rg.models import make_model
from imp_rg.types import Batch, Variables

STATISTICS = (np.array([6.0], np.float32), np.array([5.0], np.float32))
ALPHA = np.linspace(0, 1, 5)


class Normed(nn.Module):
    """A small network with a norm, of a momentum that nobody is told."""

    @nn.compact
    def __call__(self, x, *, is_training, weights=None):
        mask = None if weights is None else (weights > 0)[:, None]
        x = nn.Dense(8)(x.reshape(x.shape[0], -1))
        norm = nn.BatchNorm(use_running_average=not is_training, momentum=0.7)
        return nn.Dense(2)(nn.relu(norm(x, mask=mask)))


NORMED = replace(make_model("lenet8", num_classes=2), module=Normed())
MLP = make_model("lenet8", num_classes=2)


def network(model, seed):
    init = jax.jit(model.init, static_argnums=1)
    return model.make_apply_fn(*STATISTICS), init(jax.random.key(seed), (8, 8, 1))


def forward(apply_fn, *, is_training):
    return jax.jit(lambda variables, x: apply_fn(variables, x, is_training=is_training)[0])


def signed_product(variables, x, *, is_training, weights=None):
    """Logits +-u v: right where both weights have one sign, so that u = v = 0 is a pass."""
    del is_training, weights
    logit = variables.params["u"] * variables.params["v"] * jnp.ones(x.shape[0])
    return jnp.stack([jnp.zeros_like(logit), logit], axis=1), variables.batch_stats


def point(weight):
    return Variables(params={"u": jnp.float32(weight), "v": jnp.float32(weight)}, batch_stats={})


@pytest.mark.parametrize(
    "values, height",
    [
        ([1, 1, 3, 1, 1], 2.0),
        ([0, 1, 2, 3, 4], 0.0),
        ([2, 0, 0, 0, 2], 0.0),
        ([0, 3, 2, 3, 4], 2.0),
    ],
)
def test_height_above_the_chord(values, height):
    assert barrier_height(ALPHA, np.array(values, float)) == height


def test_two_mirror_solutions_have_a_known_barrier():
    """Weights (2, 2) and (-2, -2) are one function; their middle knows nothing."""
    data = Batch(x=jnp.zeros((30, 1, 1, 1)), y=jnp.ones(30, jnp.int32))
    path = linear_path(signed_product, point(2.0), point(-2.0), data, num_points=5, max_batch=7)
    logit = 4 * np.array([1, 0.25, 0, 0.25, 1])
    np.testing.assert_allclose(path.loss, np.log1p(np.exp(-logit)), atol=1e-6)
    assert path.error.tolist() == [0, 0, 100, 0, 0]  # ties go to class 0
    assert path.error_barrier == 100
    assert path.loss_barrier == pytest.approx(np.log(2) - np.log1p(np.exp(-4)), rel=1e-6)


def test_ends_are_the_solutions_themselves(tiny_batch):
    apply_fn, start = network(NORMED, 0)
    _, end = network(NORMED, 1)
    path = linear_path(apply_fn, start, end, tiny_batch, num_points=3, max_batch=40)
    num_correct = make_count_fn(apply_fn, driver="dispatch")
    for k, variables in ((0, start), (2, end)):
        assert path.error[k] == pytest.approx(
            100 - 100 * int(num_correct(variables, tiny_batch)) / 96
        )
    same = linear_path(apply_fn, start, start, tiny_batch, num_points=3)
    assert same.loss_barrier < 1e-6 and same.error_barrier == 0


def test_statistics_are_those_of_the_data(tiny_batch):
    """One slice: the network in evaluation equals the one that normalises by its own batch."""
    apply_fn, variables = network(NORMED, 0)
    fresh = make_statistics_fn(apply_fn, tiny_batch)(variables)
    trained = forward(apply_fn, is_training=True)(variables, tiny_batch.x)
    evaluate = forward(apply_fn, is_training=False)
    evaluated, stale = evaluate(fresh, tiny_batch.x), evaluate(variables, tiny_batch.x)
    np.testing.assert_allclose(evaluated, trained, rtol=1e-3, atol=1e-4)
    assert np.abs(stale - trained).max() > 0.1


def test_statistics_are_the_mean_over_slices_and_forget_the_old(tiny_batch):
    apply_fn, variables = network(NORMED, 0)
    alone = [
        make_statistics_fn(apply_fn, jax.tree.map(lambda a, s=s: a[s], tiny_batch))(variables)
        for s in (slice(0, 48), slice(48, 96))
    ]
    expected = jax.tree.map(lambda a, b: (a + b) / 2, *alone).batch_stats
    old = variables._replace(batch_stats=jax.tree.map(lambda s: s + 7, variables.batch_stats))
    found = make_statistics_fn(apply_fn, tiny_batch, max_batch=48)(old).batch_stats
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_fresh_statistics_are_used_along_the_line(tiny_batch):
    apply_fn, start = network(NORMED, 0)
    _, end = network(NORMED, 1)
    path = linear_path(apply_fn, start, end, tiny_batch, num_points=3, statistics_data=tiny_batch)
    middle = jax.tree.map(lambda a, b: (a + b) / 2, start, end)
    logits = forward(apply_fn, is_training=True)(middle, tiny_batch.x)
    log_p = jax.nn.log_softmax(logits)[jnp.arange(96), tiny_batch.y]
    assert path.loss[1] == pytest.approx(float(-log_p.mean()), rel=1e-3)


def test_networks_without_norms_have_nothing_to_estimate(tiny_batch):
    apply_fn, variables = network(MLP, 0)
    assert make_statistics_fn(apply_fn, tiny_batch)(variables) is variables


def test_bad_input_gets_one_line(tiny_batch):
    apply_fn, start = network(MLP, 0)
    with pytest.raises(ValueError, match="num_points: must be at least 3, got 2"):
        linear_path(apply_fn, start, start, tiny_batch, num_points=2)
    other = start._replace(params={"w": jnp.ones(2)})
    with pytest.raises(ValueError, match="end: must have the structure of start, got another"):
        linear_path(apply_fn, start, other, tiny_batch)
