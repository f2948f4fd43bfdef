import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import loop_flow
from small_network import draw

from imp_rg.blocks import BlockPartition
from imp_rg.config import PruneConfig
from imp_rg.flow import FlowPoint, FlowTrajectory, flow_point
from imp_rg.imp.controls import null_flow, null_sources, shuffle_masks
from imp_rg.imp.prune import prune_masks, prune_schedule
from imp_rg.models import make_model
from imp_rg.rg import measure_spectrum

MODEL = make_model("resnet14", num_classes=10)
BLOCKS = MODEL.partition("block", (8, 8, 1))


@functools.cache
def params():
    return draw(MODEL, 0, (8, 8, 1)).params


measure = jax.jit(flow_point, static_argnames="blocks")


def random_masks(seed, density=0.4):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(rng.random(p.shape) < density), params())


def test_a_point_equals_a_slow_loop():
    masks = random_masks(0)
    point = measure(params(), masks, blocks=BLOCKS)
    magnitude, surviving, total = loop_flow(
        jax.tree.leaves(params()), jax.tree.leaves(masks), BLOCKS.block_of
    )
    np.testing.assert_allclose(point.magnitude, magnitude, rtol=1e-6)
    np.testing.assert_array_equal(point.surviving, surviving)
    np.testing.assert_allclose(point.total, total, rtol=1e-6)
    np.testing.assert_allclose(point.magnitude_share, magnitude / magnitude.sum(), rtol=1e-6)
    np.testing.assert_allclose(point.param_share, surviving / surviving.sum(), rtol=1e-6)
    np.testing.assert_allclose(point.share_all, magnitude / total, rtol=1e-6)
    listed = magnitude[: BLOCKS.num_listed]
    np.testing.assert_allclose(point.share_blocks(6), listed / listed.sum(), rtol=1e-6)


def test_seeds_are_one_vmapped_pass():
    masks = [random_masks(s) for s in range(3)]
    stacked = jax.tree.map(lambda *m: jnp.stack(m), *masks)
    many = jax.jit(jax.vmap(lambda m: flow_point(params(), m, blocks=BLOCKS)))(stacked)
    for i, mask in enumerate(masks):
        one = measure(params(), mask, blocks=BLOCKS)
        np.testing.assert_allclose(many.magnitude_share[i], one.magnitude_share, rtol=1e-6)
        np.testing.assert_array_equal(many.surviving[i], one.surviving)


def test_sums_over_85_million_weights_are_exact_to_a_millionth():
    """A bias in the last bits, which a running float32 sum would turn into a wrong third digit."""
    blocks = BlockPartition(names=("a", "b"), block_of=(0, 1), sizes=(80_000_000, 5_000_000))
    rng = np.random.default_rng(0)
    tree = {
        "a": rng.standard_normal((8000, 10_000), np.float32) * 0.02,
        "b": np.abs(rng.standard_normal(5_000_000, np.float32)),
    }
    masks = {k: jnp.ones(v.shape, bool) for k, v in tree.items()}
    point = measure(jax.tree.map(jnp.asarray, tree), masks, blocks=blocks)
    expected = [np.abs(tree[k]).sum(dtype=np.float64) for k in "ab"]
    np.testing.assert_allclose(np.asarray(point.magnitude, float), expected, rtol=1e-6)
    np.testing.assert_array_equal(point.surviving, [80_000_000, 5_000_000])


def test_nothing_left_gives_nan_shares():
    masks = jax.tree.map(jnp.zeros_like, random_masks(0))
    point = measure(params(), masks, blocks=BLOCKS)
    assert bool(jnp.isnan(point.magnitude_share).all())
    assert bool(jnp.isnan(point.param_share).all())


def test_masks_of_other_structure_are_refused():
    with pytest.raises(ValueError, match="structure"):
        flow_point(params(), {"w": jnp.ones(3, bool)}, blocks=BLOCKS)


def test_trajectory_scale_factors_multiply_to_the_whole_density():
    num_kept = np.array([1000, 800, 640, 512])
    blank = FlowPoint(np.ones((1, 4, 1)), np.ones((1, 4, 1)), np.ones((1, 4)))
    flow = FlowTrajectory(
        blocks=BlockPartition(names=("a",), block_of=(0,), sizes=(1000,)),
        num_kept=num_kept,
        points={"trained": blank},
        nulls={},
    )
    np.testing.assert_allclose(flow.density, num_kept / 1000)
    assert np.prod(flow.scale_factor) == pytest.approx(1000 / 512)


def null(name, seed, levels=17):
    sizes = [
        s.size for s, can in zip(jax.tree.leaves(params()), BLOCKS.prunable, strict=True) if can
    ]
    schedule = prune_schedule(tuple(sizes), PruneConfig(), num_levels=levels)
    return null_flow(
        jax.random.key(seed),
        null_sources(params(), params())[name],
        blocks=BLOCKS,
        schedule=schedule,
        prune_fn=jax.jit(prune_masks, static_argnames="prunable"),
    )


def test_random_pruning_has_no_flow():
    """Every sigma of P_i is zero within 4 standard errors, taken from the surviving counts."""
    flow = null("random", 1, levels=11)
    shares = np.asarray(flow.param_share, float)[None]
    sigma = measure_spectrum(shares, 1.25).sigma["paper"]
    survivors = np.asarray(flow.surviving[-1], float)
    se = np.sqrt((1 - 0.8**10) / survivors) / (10 * np.log(1.25))
    assert np.all(np.abs(sigma) < 4 * se)
    biased = measure_spectrum(np.asarray(null("init", 1, levels=11).param_share, float)[None], 1.25)
    assert np.any(np.abs(biased.sigma["paper"]) > 4 * se)


def test_magnitude_pruning_of_initial_weights_is_not_flat():
    """The published sign pattern without learning: early blocks grow, the last one shrinks."""
    shares = np.asarray(null("init", 0).magnitude_share, float)[None]
    sigma = measure_spectrum(shares, 1.25).sigma["paper"]
    assert np.all(sigma[:3] > 0.05)
    assert np.all(sigma[[3, 5]] < -0.05)


def test_shuffling_keeps_the_density_of_every_tensor_and_nothing_else():
    masks = random_masks(2)
    shuffle = jax.jit(shuffle_masks, static_argnames="prunable")
    shuffled = shuffle(jax.random.key(0), masks, prunable=BLOCKS.prunable)
    for before, after, can in zip(
        jax.tree.leaves(masks), jax.tree.leaves(shuffled), BLOCKS.prunable, strict=True
    ):
        assert int(before.sum()) == int(after.sum())
        if can:
            assert bool((before != after).any())
        else:
            assert bool((before == after).all())
