import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_network import draw, one_block

from imp_rg.config import TrainConfig
from imp_rg.imp.drivers import plan_batches, steps_per_epoch
from imp_rg.imp.evaluate import make_count_fn
from imp_rg.imp.replicates import map_replicates, stack
from imp_rg.imp.train import learning_rate, make_optimizer, make_train_fn
from imp_rg.models import make_model
from imp_rg.pytree import ones_masks
from imp_rg.types import Batch, Variables

SHAPE = (8, 8, 1)
STATISTICS = (np.array([6.0], np.float32), np.array([5.0], np.float32))


def network(model):
    return model, model.make_apply_fn(*STATISTICS)


RESNET, MLP = one_block(), make_model("lenet16", num_classes=2)


def sparse_masks(params, seed=0, density=0.5):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda p: (
            jnp.asarray(rng.random(p.shape) < density) if p.ndim > 1 else jnp.ones(p.shape, bool)
        ),
        params,
    )


# Data order


def test_an_epoch_sees_every_example_once_and_drops_the_rest():
    config = TrainConfig(batch_size=10, num_steps=20, rewind_step=0)
    plan = plan_batches(jax.random.key(0), 47, config, start=0, stop=12)
    assert plan.indices.shape == (12, 10)
    for epoch in range(3):
        rows = np.asarray(plan.indices[4 * epoch : 4 * epoch + 4]).ravel()
        assert len(set(rows)) == 40
    assert bool((plan.weights == 1).all())


def test_the_incomplete_batch_is_kept_when_asked():
    config = TrainConfig(batch_size=10, num_steps=20, rewind_step=0, last_batch="keep")
    assert steps_per_epoch(47, config) == 5
    plan = plan_batches(jax.random.key(0), 47, config, start=0, stop=5)
    seen = np.asarray(plan.indices)[np.asarray(plan.weights) > 0]
    assert sorted(seen) == list(range(47))
    np.testing.assert_array_equal(plan.weights[4], [1] * 7 + [0] * 3)


def test_the_published_recipe_has_391_steps_an_epoch():
    config = TrainConfig(batch_size=128, last_batch="keep")
    assert steps_per_epoch(50_000, config) == 391


def test_a_level_that_starts_late_skips_the_batches_before():
    config = TrainConfig(batch_size=10, num_steps=20, rewind_step=0)
    whole = plan_batches(jax.random.key(0), 47, config, start=0, stop=20)
    late = plan_batches(jax.random.key(0), 47, config, start=7, stop=20)
    np.testing.assert_array_equal(late.indices, whole.indices[7:])


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="batch_size: must not exceed the 47 training examples"):
        steps_per_epoch(47, TrainConfig(batch_size=48))


# Schedule and optimizer


def test_step_schedule_drops_at_the_milestones():
    config = TrainConfig(num_steps=200)
    rates = [float(learning_rate(jnp.int32(s), config)) for s in (0, 99, 100, 149, 150, 199)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-6)


def test_warm_up_multiplies_the_schedule():
    config = TrainConfig(num_steps=100, warmup_steps=4, schedule="constant", rewind_step=0)
    rates = [float(learning_rate(jnp.int32(s), config)) for s in range(5)]
    np.testing.assert_allclose(rates, [0.025, 0.05, 0.075, 0.1, 0.1], rtol=1e-6)


def test_cosine_ends_near_zero():
    config = TrainConfig(num_steps=100, schedule="cosine")
    assert float(learning_rate(jnp.int32(0), config)) == pytest.approx(0.1)
    assert float(learning_rate(jnp.int32(50), config)) == pytest.approx(0.05)
    assert float(learning_rate(jnp.int32(99), config)) < 1e-4


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_pytorchs(nesterov):
    """v = mu v + (g + wd theta); theta -= lr (v, or g + wd theta + mu v), written out."""
    config = TrainConfig(weight_decay=0.01, momentum=0.9, nesterov=nesterov)
    tx = make_optimizer(config)
    theta, grads = jnp.array([1.0, -2.0]), [jnp.array([0.3, 0.1]), jnp.array([-0.2, 0.4])]
    state: Any = tx.init(theta)
    params: Any = theta
    expected, v = np.array(theta, float), np.zeros(2)
    for g, lr in zip(grads, (0.1, 0.02), strict=True):
        state.hyperparams["learning_rate"] = jnp.float32(lr)
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        d = np.asarray(g, float) + 0.01 * expected
        v = 0.9 * v + d
        expected = expected - lr * (d + 0.9 * v if nesterov else v)
    np.testing.assert_allclose(params, expected, rtol=1e-6)


# F keeps pruned weights at zero, whatever the optimizer does


@pytest.mark.parametrize("driver", ["scan", "dispatch"])
def test_pruned_weights_stay_zero_through_momentum_and_decay(driver, tiny_batch):
    model, apply_fn = network(MLP)
    config = TrainConfig(num_steps=30, batch_size=16, weight_decay=0.1, rewind_step=0)
    train_fn = make_train_fn(apply_fn, make_optimizer(config), config=config, driver=driver)
    variables = draw(model, 0, SHAPE)
    masks = sparse_masks(variables.params)
    trained, info = train_fn(jax.random.key(1), variables, masks, tiny_batch)
    for weight, mask in zip(jax.tree.leaves(trained.params), jax.tree.leaves(masks), strict=True):
        assert bool((weight[~mask] == 0).all())
        assert bool((weight[mask] != 0).any())
    assert float(info.loss[-5:].mean()) < 0.5 * float(info.loss[:5].mean())
    assert bool(info.is_finite)


def test_a_loss_that_explodes_is_reported(tiny_batch):
    model, apply_fn = network(MLP)
    config = TrainConfig(num_steps=30, batch_size=16, learning_rate=1e12, rewind_step=0)
    train_fn = make_train_fn(apply_fn, make_optimizer(config), config=config, driver="scan")
    variables = draw(model, 0, SHAPE)
    _, info = train_fn(jax.random.key(1), variables, ones_masks(variables.params), tiny_batch)
    assert not bool(info.is_finite)


def test_padding_does_not_reach_loss_or_statistics(tiny_batch):
    """Kept incomplete batches: whatever stands in the filled-up rows, the result is the same."""
    model, apply_fn = network(RESNET)
    variables = draw(model, 0, SHAPE)
    x, weights = tiny_batch.x[:8], jnp.array([1.0] * 5 + [0.0] * 3)
    _, full = apply_fn(variables, x[:5], is_training=True)
    for filler in (0, 200):
        padded = x.at[5:].set(filler)
        _, stats = apply_fn(variables, padded, is_training=True, weights=weights)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), stats, full
        )


# Drivers and strategies give equal numbers


@pytest.fixture(scope="module")
def train_all(tiny_images):
    """Two replicates of a residual network by a driver and a strategy, each way once."""

    @functools.cache
    def train(driver, strategy, num_steps, dtype):
        model, apply_fn = network(RESNET)
        data = (
            Batch(tiny_images.x.astype(dtype), tiny_images.y) if dtype == "float64" else tiny_images
        )
        config = TrainConfig(num_steps=num_steps, batch_size=16, rewind_step=0)
        train_fn = make_train_fn(apply_fn, make_optimizer(config), config=config, driver=driver)
        keys = jax.vmap(jax.random.key)(jnp.arange(2))
        initial = stack([draw(model, 9 + i, SHAPE) for i in range(2)])
        variables = jax.tree.map(lambda p: p.astype(dtype), initial)
        masks = stack([sparse_masks(jax.tree.map(lambda p: p[0], variables.params))] * 2)
        mapped = map_replicates(lambda _, *args: train_fn(*args), strategy)
        return mapped(keys, variables, masks, data)

    return train


COMBINATIONS = [
    ("dispatch", "threads"),
    ("dispatch", "loop"),
    ("scan", "vmap"),
    ("scan", "loop"),
    ("scan", "threads"),
]


@pytest.mark.parametrize(("driver", "strategy"), COMBINATIONS[1:])
def test_drivers_and_strategies_agree_in_float64(driver, strategy, train_all):
    """50 steps to 1e-10: the drivers compute the same thing, in another order of sums."""
    with jax.enable_x64(True):
        reference, info = train_all(*COMBINATIONS[0], 50, "float64")
        other, other_info = train_all(driver, strategy, 50, "float64")
        for a, b in zip(jax.tree.leaves(reference), jax.tree.leaves(other), strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)
        np.testing.assert_allclose(info.loss, other_info.loss, rtol=0, atol=1e-10)


# Dispatching threads and loops are compared to the bit below; scanned ones are one program.
@pytest.mark.parametrize(("driver", "strategy"), [("scan", "vmap"), ("scan", "threads")])
def test_drivers_and_strategies_agree_in_float32(driver, strategy, train_all):
    """5 steps to 1e-5; later, equal paths part company in float32."""
    reference, _ = train_all(*COMBINATIONS[0], 5, "float32")
    other, _ = train_all(driver, strategy, 5, "float32")
    for a, b in zip(jax.tree.leaves(reference), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_threads_change_no_bit(train_all):
    one, two = (
        train_all("dispatch", strategy, 5, "float32")[0] for strategy in ("threads", "loop")
    )
    jax.tree.map(np.testing.assert_array_equal, one, two)
    with jax.enable_x64(True):
        one, two = (
            train_all("dispatch", strategy, 50, "float64")[0] for strategy in ("threads", "loop")
        )
        jax.tree.map(np.testing.assert_array_equal, one, two)


def test_dispatch_reports_progress_and_compiles_one_step(tiny_batch):
    model, apply_fn = network(MLP)
    traces = []

    def counting_apply(variables, x, **kwargs):
        traces.append(x.shape)
        return apply_fn(variables, x, **kwargs)

    config = TrainConfig(num_steps=25, batch_size=16, rewind_step=5)
    train_fn: Any = make_train_fn(
        counting_apply, make_optimizer(config), config=config, driver="dispatch"
    )
    variables = draw(model, 0, SHAPE)
    masks = ones_masks(variables.params)
    seen = []
    report = lambda step, loss: seen.append((step, loss))  # noqa: E731  (one line)
    start, _ = train_fn(jax.random.key(1), variables, masks, tiny_batch, start=0, stop=5)
    train_fn(jax.random.key(1), start, masks, tiny_batch, on_progress=report)
    assert [step for step, _ in seen] == [15, 25]
    assert len(traces) == 1  # segments of other length share the compiled step


# Evaluation


@pytest.mark.parametrize("driver", ["scan", "dispatch"])
@pytest.mark.parametrize("num_examples", [7, 96])
def test_right_answers_are_counted_exactly(driver, num_examples, tiny_batch, monkeypatch):
    from imp_rg.imp import evaluate

    monkeypatch.setattr(evaluate, "MAX_BATCH", 20)  # several batches, the last one filled up
    model, apply_fn = network(MLP)
    variables = draw(model, 3, SHAPE)
    data = Batch(tiny_batch.x[:num_examples], tiny_batch.y[:num_examples])
    logits, _ = apply_fn(variables, data.x, is_training=False)
    expected = int((np.argmax(np.asarray(logits), 1) == np.asarray(data.y)).sum())
    assert int(make_count_fn(apply_fn, driver=driver)(variables, data)) == expected
    assert isinstance(variables, Variables)
