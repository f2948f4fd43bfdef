"""T = F o M on real networks: rewinds, levels, nested masks, compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_network import draw, one_block

from imp_rg.config import PruneConfig, TrainConfig
from imp_rg.imp.execution import Execution
from imp_rg.imp.levels import make_scheme, run_level
from imp_rg.imp.operator import ImpState, make_imp_step, start_state
from imp_rg.imp.prune import prune_masks, prune_schedule
from imp_rg.imp.replicates import stack, unstack
from imp_rg.imp.saliency import SCORES
from imp_rg.imp.train import make_optimizer, make_train_fn
from imp_rg.models import make_model
from imp_rg.pytree import is_nested, leaf_paths, num_kept
from imp_rg.types import POINTS, Variables

SHAPE = (8, 8, 1)
MODEL = one_block()
APPLY_FN = MODEL.make_apply_fn(np.array([6.0], np.float32), np.array([5.0], np.float32))
BLOCKS = MODEL.partition("block", SHAPE)
LEAF_SIZES = tuple(leaf.size for leaf in jax.tree.leaves(MODEL.shapes(SHAPE)))
NUM_LEVELS = 4
DISPATCHED = Execution("dispatch", "threads")


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def variables_of(seed):
    return draw(MODEL, 100 + seed, SHAPE)


def scheme_of(train_config, *, execution=DISPATCHED, **options):
    return make_scheme(
        options.pop("apply_fn", APPLY_FN),
        blocks=options.pop("blocks", BLOCKS),
        leaf_sizes=options.pop("leaf_sizes", LEAF_SIZES),
        num_examples=96,
        num_levels=NUM_LEVELS,
        prune_config=options.pop("prune_config", PruneConfig()),
        train_config=train_config,
        execution=execution,
        **options,
    )


def run_all(scheme, batch, *, num_seeds=2, variables=None):
    keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
    initial = variables or stack([variables_of(seed) for seed in range(num_seeds)])
    state = scheme.start(keys, initial, batch)
    states, records = [state], []
    for _ in range(NUM_LEVELS):
        state, record = run_level(scheme, keys, state, batch, batch)
        states.append(state)
        records.append(record)
    return states, records


@pytest.fixture(scope="module")
def module_batch():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 96)
    x = rng.integers(0, 9, (96, *SHAPE)) + 7 * (y[:, None, None, None] == 1)
    from imp_rg.types import Batch

    return Batch(jnp.asarray(x, jnp.uint8), jnp.asarray(y, jnp.int32))


@pytest.fixture(scope="module")
def run(module_batch):
    """Two replicates, four levels of a residual network, rewound to step 3 of 9."""
    scheme = scheme_of(TrainConfig(num_steps=9, rewind_step=3, batch_size=16))
    return scheme, *run_all(scheme, module_batch)


def test_counts_are_exact_and_masks_nest(run):
    scheme, states, _ = run
    kept = sum(BLOCKS.sizes) - scheme.schedule[:, 0].cumsum()
    for level, state in enumerate(states[1:]):
        for one in unstack(state):
            assert int(one.level) == level
            assert int(num_kept(one.masks, BLOCKS.prunable)) == kept[level]
    for before, after in zip(states[1:], states[2:], strict=False):
        assert bool(is_nested(after.masks, before.masks))
    assert not bool(is_nested(states[1].masks, states[-1].masks))


def test_only_prunable_leaves_are_pruned(run):
    _, states, _ = run
    for path, mask, can in zip(
        leaf_paths(states[-1].masks),
        jax.tree.leaves(states[-1].masks),
        BLOCKS.prunable,
        strict=True,
    ):
        assert can == path.endswith("kernel")
        assert can or bool(mask.all())


def test_the_rewind_point_never_moves_statistics_included(run):
    _, states, _ = run
    for state in states[1:]:
        assert_trees_equal(state.rewind, states[0].rewind)
    assert states[0].rewind.batch_stats


def test_pruned_weights_are_exactly_zero(run):
    _, states, _ = run
    params, masks = states[-1].variables.params, states[-1].masks
    for weight, mask in zip(jax.tree.leaves(params), jax.tree.leaves(masks), strict=True):
        assert bool((weight[~mask] == 0).all())


def test_each_level_is_trained_from_the_rewind_point_under_its_mask(run, module_batch):
    """Level 2 again, by F alone: the same weights to the bit."""
    scheme, states, _ = run
    config = TrainConfig(num_steps=9, rewind_step=3, batch_size=16)
    train_fn = make_train_fn(APPLY_FN, make_optimizer(config), config=config, driver="dispatch")
    state = unstack(states[3])[1]
    key = jax.random.split(jax.random.fold_in(jax.random.key(1), 2))[1]
    again, _ = train_fn(key, state.rewind, state.masks, module_batch)
    assert_trees_equal(again, state.variables)


def test_records_hold_three_points_a_level(run):
    scheme, states, records = run
    for level, record in enumerate(records):
        kept = record.flow.surviving[:, POINTS.index("trained")].sum(axis=-1)
        assert (kept == sum(BLOCKS.sizes) - scheme.schedule[: level + 1].sum()).all()
        np.testing.assert_array_equal(record.flow.surviving[:, 0], record.flow.surviving[:, 2])
        assert record.leaf_survivors.shape == (2, len(LEAF_SIZES))
        assert (0 <= record.test_metric).all() and (record.test_metric <= 100).all()
    trained, rewound, postprune = (
        [record.flow.magnitude[:, i] for record in records] for i in range(3)
    )
    before = states[1].variables.params
    masked = jax.tree.map(lambda p, m: jnp.where(m, p, 0), before, states[2].masks)
    leaves = jax.tree.leaves(masked)
    block = [np.abs(leaves[k][0]).sum() for k in BLOCKS.leaves_of(2)]
    assert float(np.sum(block)) == pytest.approx(float(postprune[1][0, 2]), rel=1e-5)
    assert not np.allclose(trained[1], rewound[1])


@pytest.mark.parametrize("after_rewind", ["continue", "restart"])
def test_level_zero_of_both_rewind_rules(after_rewind, module_batch):
    config = TrainConfig(num_steps=8, rewind_step=3, batch_size=16, after_rewind=after_rewind)
    train_fn = make_train_fn(APPLY_FN, make_optimizer(config), config=config, driver="dispatch")
    key, initial = jax.random.key(7), variables_of(7)
    state = start_state(key, initial, module_batch, train_fn=train_fn, config=config)
    refine_key = jax.random.split(jax.random.fold_in(key, 0))[1]
    rewind, _ = train_fn(refine_key, initial, state.masks, module_batch, start=0, stop=3)
    assert_trees_equal(state.rewind, rewind)
    assert config.first_step == (3 if after_rewind == "continue" else 0)
    assert_trees_equal(state.variables, rewind if after_rewind == "continue" else initial)


def test_no_rewind_step_rewinds_to_initialisation(module_batch):
    config = TrainConfig(num_steps=8, rewind_step=0, batch_size=16)
    train_fn = make_train_fn(APPLY_FN, make_optimizer(config), config=config, driver="dispatch")
    initial = variables_of(7)
    state = start_state(jax.random.key(7), initial, module_batch, train_fn=train_fn, config=config)
    assert_trees_equal(state.rewind, initial)


@pytest.mark.parametrize("data_order", ["reshuffled", "fixed"])
def test_a_fixed_order_replays_itself(data_order, module_batch):
    """Nothing pruned and one order: every level gives level 0 again. Reshuffled ones differ."""
    mlp = make_model("lenet12", num_classes=2)
    apply_fn = mlp.make_apply_fn(np.array([6.0], np.float32), np.array([5.0], np.float32))
    config = TrainConfig(num_steps=8, rewind_step=2, batch_size=16, data_order=data_order)
    train_fn = make_train_fn(apply_fn, make_optimizer(config), config=config, driver="scan")
    blocks = mlp.partition("block", SHAPE)
    imp_step = make_imp_step(
        train_fn,
        SCORES["magnitude"],
        prunable=blocks.prunable,
        schedule=np.zeros((3, 1), np.int32),
        data_order=data_order,
    )
    initial = draw(mlp, 5, SHAPE)
    state = start_state(jax.random.key(0), initial, module_batch, train_fn=train_fn, config=config)
    first, _ = imp_step(jax.random.key(0), state, module_batch)
    second, _ = imp_step(jax.random.key(0), first, module_batch)
    same = all(
        bool((a == b).all())
        for a, b in zip(
            jax.tree.leaves(first.variables), jax.tree.leaves(second.variables), strict=True
        )
    )
    assert same is (data_order == "fixed")


def test_one_program_serves_all_levels(module_batch):
    """scan: T is traced once for the whole run; dispatch: the step is."""
    mlp = make_model("lenet12", num_classes=2)
    plain = mlp.make_apply_fn(np.array([6.0], np.float32), np.array([5.0], np.float32))
    shapes = mlp.shapes(SHAPE)
    for execution in (Execution("scan", "vmap"), Execution("dispatch", "threads")):
        traces = []

        def apply_fn(variables, x, *, is_training, weights=None, traces=traces):
            if is_training:
                traces.append(1)
            return plain(variables, x, is_training=is_training, weights=weights)

        scheme = scheme_of(
            TrainConfig(num_steps=6, rewind_step=0, batch_size=16),
            execution=execution,
            apply_fn=apply_fn,
            blocks=mlp.partition("block", SHAPE),
            leaf_sizes=tuple(leaf.size for leaf in jax.tree.leaves(shapes)),
        )
        initial = stack([draw(mlp, 50 + i, SHAPE) for i in range(2)])
        states, _ = run_all(scheme, module_batch, variables=initial)
        assert int(states[-1].level[0]) == NUM_LEVELS - 1
        # The body of a scan may be traced twice by JAX itself, for its carry's types.
        assert len(traces) <= (2 if execution.driver == "scan" else 1)


def test_imp_step_is_jittable_and_equals_itself_run_eagerly(module_batch):
    config = TrainConfig(num_steps=5, rewind_step=0, batch_size=16)
    mlp = make_model("lenet12", num_classes=2)
    apply_fn = mlp.make_apply_fn(np.array([6.0], np.float32), np.array([5.0], np.float32))
    train_fn = make_train_fn(apply_fn, make_optimizer(config), config=config, driver="scan")
    blocks = mlp.partition("block", SHAPE)
    schedule = prune_schedule((768, 24), PruneConfig(), num_levels=3)
    imp_step = make_imp_step(
        train_fn, SCORES["magnitude"], prunable=blocks.prunable, schedule=schedule
    )
    initial = draw(mlp, 5, SHAPE)
    state = start_state(jax.random.key(0), initial, module_batch, train_fn=train_fn, config=config)
    state, _ = imp_step(jax.random.key(0), state, module_batch)
    eager, info = imp_step(jax.random.key(0), state, module_batch)
    jitted, jitted_info = jax.jit(imp_step)(jax.random.key(0), state, module_batch)
    for a, b in zip(
        jax.tree.leaves(eager.variables), jax.tree.leaves(jitted.variables), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    assert_trees_equal(eager.masks, jitted.masks)
    assert int(info.num_kept) == int(jitted_info.num_kept) == 792 - 158


def test_no_refinement_twice_at_c_is_once_at_c_squared():
    """M o M at x = 0.2 equals M at x = 0.36 bit for bit, at equal counts."""
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(0, 1, (60, 100)), "b": rng.normal(0, 2, (40, 100))}
    scores = jax.tree.map(jnp.abs, params)
    masks = jax.tree.map(lambda p: jnp.ones(p.shape, bool), params)
    first, second = prune_schedule((10_000,), PruneConfig(), num_levels=3)[1:, 0]
    kwargs = {"prunable": (True, True)}
    once = prune_masks(scores, masks, num_remove=jnp.array([first + second]), **kwargs)
    twice = prune_masks(scores, masks, num_remove=jnp.array([first]), **kwargs)
    twice = prune_masks(scores, twice, num_remove=jnp.array([second]), **kwargs)
    assert_trees_equal(once, twice)
    assert int(num_kept(once, (True, True))) == 6400


def test_levels_that_keep_fewer_weights_than_blocks_are_refused():
    with pytest.raises(ValueError, match="levels: the last level must keep a weight for each of 4"):
        scheme_of(TrainConfig(batch_size=16), prune_config=PruneConfig(prune_fraction=0.85))


def test_rewind_fn_says_what_a_level_starts_from():
    trained = Variables(params={"body": jnp.full(4, 2.0), "head": jnp.full(2, 5.0)}, batch_stats={})
    state = ImpState(
        level=jnp.int32(0),
        variables=trained,
        masks={"body": jnp.ones(4, bool), "head": jnp.ones(2, bool)},
        rewind=jax.tree.map(jnp.zeros_like, trained),
    )

    def keep_head(trained, rewind):
        return rewind._replace(params=rewind.params | {"head": trained.params["head"]})

    def step(rewind_fn):
        imp_step = make_imp_step(
            lambda key, variables, masks, data, **segment: (variables, None),
            SCORES["magnitude"],
            prunable=(True, False),
            schedule=np.array([[0], [1]]),
            rewind_fn=rewind_fn,
        )
        return imp_step(jax.random.key(0), state, None)[0].variables.params

    kept, all_rewound = step(keep_head), step(None)
    assert (kept["body"] == 0).all() and (kept["head"] == 5).all()
    assert (all_rewound["head"] == 0).all()
