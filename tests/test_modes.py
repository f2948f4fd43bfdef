"""The IMP modes of the vision study: rewind points to the bit, schedules that keep its ratios."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imp_rg.blocks import make_partition
from imp_rg.config import PruneConfig
from imp_rg.imp.drivers import BatchPlan, Driver, plan_batches, steps_per_epoch
from imp_rg.imp.evaluate import make_count_fn
from imp_rg.imp.execution import Execution
from imp_rg.imp.levels import make_scheme, run_level
from imp_rg.imp.modes import scaled_config
from imp_rg.imp.replicates import unstack
from imp_rg.imp.train import (
    learning_rate,
    make_optimizer,
    make_train_fn,
    make_train_step,
)
from imp_rg.models.base import make_norm_fn
from imp_rg.pytree import apply_masks, leaf_paths, ones_masks
from imp_rg.types import Batch, ValidatedBatch, Variables

SHAPE = (8, 8, 1)
BATCH_SIZE = 16


class Net(nn.Module):
    """Stem, a residual layer and a head with norms: all kinds of leaves a ResNet has."""

    @nn.compact
    def __call__(self, x, *, is_training: bool):
        norm = make_norm_fn("one", is_training, None, None)
        x = x.reshape(len(x), -1)
        x = nn.relu(norm("stem_norm")(nn.Dense(8, use_bias=False, name="stem")(x)))
        x = x + nn.relu(norm("norm1")(nn.Dense(8, use_bias=False, name="body")(x)))
        return nn.Dense(2, name="head")(x)


def apply_fn(variables, x, *, is_training, weights=None):
    del weights
    logits, updated = Net().apply(
        variables._asdict(), x / 8.0 - 1.0, is_training=is_training, mutable=["batch_stats"]
    )
    return logits, updated.get("batch_stats", variables.batch_stats)


@functools.cache
def draw(seed):
    init = jax.jit(Net().init, static_argnames="is_training")
    return Variables(**init(jax.random.key(seed), jnp.zeros((1, *SHAPE)), is_training=False))


@pytest.fixture(scope="module")
def data():
    """Images whose class is the brighter half, a quarter of the labels wrong."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 160)
    x = rng.integers(0, 12, (160, *SHAPE))
    x[y == 1, :4] += 2
    x[y == 0, 4:] += 2
    y = np.where(rng.random(160) < 0.25, 1 - y, y)
    x, y = jnp.asarray(x, jnp.uint8), jnp.asarray(y, jnp.int32)
    return ValidatedBatch(x[:112], y[:112], x[112:], y[112:])


def config_of(mode, **settings):
    return scaled_config(
        mode, steps_per_epoch=7, batch_size=BATCH_SIZE, **{"epochs": 15, **settings}
    )


def run_modes(mode, data, *, driver: Driver = "dispatch", num_levels=3):
    """States before level 0 and after every level of one replicate."""
    params = draw(0).params
    scheme = make_scheme(
        apply_fn,
        blocks=make_partition(params, {"body": ("body",)}, prunable=("body/kernel",)),
        leaf_sizes=tuple(leaf.size for leaf in jax.tree.leaves(params)),
        num_examples=len(data.y),
        num_levels=num_levels,
        prune_config=PruneConfig(),
        train_config=config_of(mode),
        execution=Execution(driver, "loop"),
        rewinds_to_best=mode == "pt",
    )
    key = jax.random.key(5)[None]
    state = scheme.start(key, jax.tree.map(lambda x: x[None], draw(0)), data)
    states = [state]
    for _ in range(num_levels):
        state, _ = run_level(scheme, key, state, data, Batch(data.x_val, data.y_val))
        states.append(state)
    return [unstack(state)[0] for state in states]


@pytest.fixture(scope="module")
def rewound(data):
    return run_modes("rewind_lt", data)


@pytest.fixture(scope="module")
def refine(data):
    """F by itself: from a level's number, start and masks to what it trains."""
    config = config_of("rewind_lt")
    train_fn = make_train_fn(apply_fn, make_optimizer(config), config=config, driver="dispatch")

    def refine(level, variables, masks, stop=config.num_steps):
        _, key = jax.random.split(jax.random.fold_in(jax.random.key(5), level))
        return train_fn(key, variables, masks, data, start=0, stop=stop)[0]

    return refine


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b):
    """But for rounding: other programs, other last bits."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), a, b)


def test_the_dense_network_is_one_run_from_the_initial_weights(rewound, refine):
    assert_equal(rewound[1].variables, refine(0, draw(0), ones_masks(draw(0).params)))


def test_levels_are_rewound_to_a_step_of_the_dense_run(rewound, refine):
    """Stem, head and statistics included: all leaves, and all of them have moved."""
    early = refine(0, draw(0), ones_masks(draw(0).params), stop=config_of("rewind_lt").rewind_step)
    assert {"params/stem/kernel", "params/head/bias", "batch_stats/stem_norm/var"} <= set(
        leaf_paths({"params": early.params, "batch_stats": early.batch_stats})
    )
    for state in rewound:
        assert_equal(state.rewind, early)
    for start, end in zip(jax.tree.leaves(draw(0)), jax.tree.leaves(early), strict=True):
        assert bool((start != end).any())


def test_after_rewinding_the_whole_schedule_runs_again(rewound, refine):
    """From step 0 with a new optimizer; the first rate is that of warm-up."""
    config = config_of("rewind_lt", epochs=60)
    assert config.warmup_steps == 2
    rates = [float(learning_rate(jnp.int32(step), config)) for step in range(3)]
    np.testing.assert_allclose(rates, [0.05, 0.1, 0.1], rtol=1e-6)
    for level, state in enumerate(rewound[2:], start=1):
        start = state.rewind._replace(params=apply_masks(state.rewind.params, state.masks))
        assert_equal(state.variables, refine(level, start, state.masks))


def test_levels_start_from_the_very_weights_they_are_given(data, rewound):
    """Random ones (lt) or pre-trained ones (pt_trans)."""
    assert config_of("lt") == config_of("pt_trans")
    states = run_modes("lt", data, num_levels=1)
    assert_equal(states[-1].rewind, draw(0))
    assert_equal(states[1].variables, rewound[1].variables)


@pytest.fixture(scope="module")
def epochs(data):
    """Oracle: the dense network at the end of every epoch, all saved, and its right answers."""
    config = config_of("pt")
    tx, (_, key) = (
        make_optimizer(config),
        jax.random.split(jax.random.fold_in(jax.random.key(5), 0)),
    )
    order_key, augment_key = jax.random.split(key)
    plan = plan_batches(order_key, len(data.y), config, start=0, stop=config.num_steps)
    step_fn = jax.jit(make_train_step(apply_fn, tx, config=config))
    count = jax.jit(make_count_fn(apply_fn, driver="scan"))
    carry, masks = (draw(0), tx.init(draw(0).params)), ones_masks(draw(0).params)
    saved = []
    for step, batch in enumerate(zip(*plan, strict=True)):
        carry, _ = step_fn(carry, augment_key, masks, data, BatchPlan(*batch), step)
        if (step + 1) % steps_per_epoch(len(data.y), config) == 0:
            saved.append(carry[0])
    return saved, [int(count(one, Batch(data.x_val, data.y_val))) for one in saved]


@pytest.mark.parametrize(("driver", "num_levels"), [("dispatch", 2), ("scan", 1)])
def test_pt_rewinds_to_the_best_epoch_of_the_dense_run(driver, num_levels, data, epochs):
    """The first of several; the run itself goes on as if nobody had looked."""
    saved, correct = epochs
    best = int(np.argmax(correct))
    assert 0 < best < len(saved) - 1 and len(set(correct)) > 2  # or this would prove little
    _, *states = run_modes("pt", data, driver=driver, num_levels=num_levels)
    for state in states:
        assert_close(state.rewind, saved[best])
    assert_close(states[0].variables, saved[-1])
    for other in (saved[:best], saved[best + 1 :]):
        with pytest.raises(AssertionError):
            assert_close(states[0].rewind, other[-1])


def test_the_study_itself():
    config = scaled_config("rewind_lt", steps_per_epoch=175)
    assert (config.num_steps, config.warmup_steps, config.rewind_step) == (31850, 175, 1575)
    assert [round(m * config.num_steps) for m in config.milestones] == [91 * 175, 136 * 175]
    assert (config.batch_size, config.learning_rate, config.momentum) == (256, 0.1, 0.9)
    assert (config.weight_decay, config.nesterov, config.last_batch) == (2e-4, False, "drop")
    assert (config.after_rewind, config.first_step) == ("restart", 0)


@pytest.mark.parametrize("scale", [0.02, 10 / 182, 0.5, 2.0])
def test_a_shorter_schedule_keeps_every_ratio(scale):
    config = scaled_config("rewind_lt", steps_per_epoch=175, epochs_scale=scale)
    assert config.num_steps == round(31850 * scale)
    drops = [round(m * config.num_steps) for m in config.milestones]
    for step, epoch in zip((config.warmup_steps, config.rewind_step, *drops), (1, 9, 91, 136),
                           strict=True):  # fmt: skip
        assert abs(step - 175 * epoch * scale) <= 0.5
    assert config.milestones == scaled_config("lt", steps_per_epoch=175).milestones


@pytest.mark.parametrize("mode", ["lt", "pt", "pt_trans"])
def test_only_rewind_lt_has_a_rewind_step(mode):
    assert scaled_config(mode, steps_per_epoch=175).rewind_step == 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"epochs_scale": 0.002}, "epochs_scale: must leave a warm-up step, 1 of 182 epochs"),
        (
            {"epochs_scale": 0.0003},
            "must leave a step before the rewind, 9 of 182 epochs, of its 10",
        ),
        ({"epochs": 0.1}, "must leave a warm-up step"),
        ({"epochs_scale": 0.0}, "epochs_scale: must be positive and finite, got 0.0"),
        ({"epochs_scale": float("nan")}, "epochs_scale: must be positive and finite, got nan"),
        ({"epochs": -1}, "epochs: must be positive"),
    ],
)
def test_a_schedule_too_short_for_its_ratios(settings, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        scaled_config("rewind_lt", steps_per_epoch=175, **settings)
    assert "\n" not in str(error.value)
