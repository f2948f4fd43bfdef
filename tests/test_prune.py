import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import loop_prune

from imp_rg.config import PruneConfig
from imp_rg.imp.prune import prune_masks, prune_masks_on_host, prune_schedule
from imp_rg.imp.saliency import SCORES
from imp_rg.pytree import is_nested

ROUTES = {
    "device": jax.jit(prune_masks, static_argnames="prunable"),
    "host": prune_masks_on_host,
}


def random_trees(seed, *, num_values=6):
    """Scores with many ties, partly pruned masks, one leaf that must not be touched."""
    rng = np.random.default_rng(seed)
    shapes = {"a": (5, 4), "b": (3,), "c": (2, 3, 2), "d": (7,)}
    scores = {k: rng.integers(0, num_values, s).astype(np.float32) / 4 for k, s in shapes.items()}
    masks = {k: rng.random(s) < 0.8 for k, s in shapes.items()}
    masks["b"][:] = True
    prunable = (True, False, True, True)
    as_jax = {k: jnp.asarray(v) for k, v in scores.items()}
    return as_jax, {k: jnp.asarray(v) for k, v in masks.items()}, prunable


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_global_pruning_equals_a_slow_loop(route, seed, share):
    scores, masks, prunable = random_trees(seed)
    alive = sum(int(masks[k].sum()) for k in "acd")
    count = int(share * alive)
    new = ROUTES[route](scores, masks, prunable=prunable, num_remove=jnp.array([count]))
    expected = loop_prune(scores, masks, prunable, [count])
    for name in masks:
        np.testing.assert_array_equal(new[name], expected[name])
    assert sum(int(new[k].sum()) for k in "acd") == alive - count
    assert bool(is_nested(new, masks))


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_pruning_per_tensor_equals_a_slow_loop(route, seed):
    scores, masks, prunable = random_trees(seed)
    counts = [int(masks[k].sum()) // 2 for k in "acd"]
    new = ROUTES[route](scores, masks, prunable=prunable, num_remove=jnp.array(counts))
    expected = loop_prune(scores, masks, prunable, counts)
    for name in masks:
        np.testing.assert_array_equal(new[name], expected[name])


@pytest.mark.parametrize("route", ROUTES)
def test_all_equal_scores_go_in_tree_order(route):
    tree = {"a": jnp.ones(3), "b": jnp.ones(4)}
    masks = jax.tree.map(lambda p: jnp.ones(p.shape, bool), tree)
    new = ROUTES[route](tree, masks, prunable=(True, True), num_remove=jnp.array([5]))
    np.testing.assert_array_equal(new["a"], [False] * 3)
    np.testing.assert_array_equal(new["b"], [False, False, True, True])


def test_the_two_routes_agree_in_float64_and_on_tiny_and_zero_scores():
    with jax.enable_x64(True):
        values = jnp.array([0.0, 5e-324, 1e-310, 0.0, 1.0, 1.0 + 2**-52, 1e300, 3.0])
        masks = {"w": jnp.ones(8, bool)}
        for count in range(9):
            args = {"prunable": (True,), "num_remove": jnp.array([count])}
            device = prune_masks({"w": values}, masks, **args)["w"]
            host = prune_masks_on_host({"w": values}, masks, **args)["w"]
            np.testing.assert_array_equal(device, host)
            assert int(device.sum()) == 8 - count


def test_pruning_runs_under_vmap():
    scores, masks, prunable = random_trees(3)
    two = jax.tree.map(lambda x: jnp.stack([x, jnp.flip(x)]), scores)
    many = jax.tree.map(lambda m: jnp.stack([m, m]), masks)
    counts = jnp.array([[4], [9]])
    both = jax.vmap(lambda s, m, n: prune_masks(s, m, prunable=prunable, num_remove=n))(
        two, many, counts
    )
    for i in range(2):
        one = prune_masks(
            jax.tree.map(lambda x, i=i: x[i], two), masks, prunable=prunable, num_remove=counts[i]
        )
        jax.tree.map(lambda b, o, i=i: np.testing.assert_array_equal(b[i], o), both, one)


def test_twenty_percent_of_the_remaining_by_both_count_rules():
    exact = prune_schedule((174_128,), PruneConfig(), num_levels=4)[:, 0]
    assert list(exact) == [0, 34_826, 27_860, 22_288]
    plus = prune_schedule((174_128,), PruneConfig(count_rule="ceil+1"), num_levels=3)[:, 0]
    assert list(plus) == [0, 34_827, 27_862]  # ceil(34825.6) + 1, ceil(27860.2) + 1


def test_ten_percent_of_the_original_leaves_ten_percent_after_nine_levels():
    config = PruneConfig(prune_fraction=0.1, fraction_of="original")
    total = 85_524_480
    kept = total - prune_schedule((total,), config, num_levels=10)[:, 0].cumsum()
    np.testing.assert_array_equal(kept, [round(total * (10 - n) / 10) for n in range(10)])


def test_fractions_are_the_decimals_the_user_wrote():
    # 0.2 * 5 as binary floats is 1.0000000000000000555: ceil would give 2.
    schedule = prune_schedule((5,), PruneConfig(count_rule="ceil+1"), num_levels=2)
    assert schedule[1, 0] == 2  # ceil(1) + 1


def test_both_words_for_layerwise_pruning_are_one_setting():
    """Folders and hashes of runs made under the former word stay what they were."""
    layerwise, former = PruneConfig(scope="layerwise"), PruneConfig(scope="tensor")
    assert layerwise == former and layerwise.scope == "tensor"
    assert layerwise.is_layerwise and not PruneConfig().is_layerwise


def test_per_tensor_schedule_has_one_column_a_tensor():
    schedule = prune_schedule((100, 10), PruneConfig(scope="layerwise"), num_levels=3)
    np.testing.assert_array_equal(schedule, [[0, 0], [20, 2], [16, 2]])


def test_too_many_levels_get_one_line():
    config = PruneConfig(prune_fraction=0.5, fraction_of="original")
    with pytest.raises(ValueError, match="level 2 would keep none of 100"):
        prune_schedule((100,), config, num_levels=3)


@pytest.mark.parametrize("x", [0.0, 1.0, -0.2, 1.5])
def test_fraction_outside_zero_to_one_is_refused(x):
    with pytest.raises(ValueError, match="prune_fraction: must lie strictly between 0 and 1"):
        PruneConfig(prune_fraction=x)


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_finite_not_negative_and_shaped_like_the_weights(name):
    params = {"w": jnp.array([[-1.0, 2.0]]), "b": jnp.array([0.5])}
    scores = SCORES[name](jax.random.key(0), params, jax.tree.map(lambda p: p > 0, params))
    for leaf, param in zip(jax.tree.leaves(scores), jax.tree.leaves(params), strict=True):
        assert leaf.shape == param.shape
        assert bool(jnp.isfinite(leaf).all()) and bool((leaf >= 0).all())


def test_random_scores_depend_on_the_key_only():
    params = {"w": jnp.arange(20.0)}
    draw = SCORES["random"]
    one = draw(jax.random.key(1), params, params)["w"]
    assert bool((one == draw(jax.random.key(1), {"w": -params["w"]}, params)["w"]).all())
    assert bool((one != draw(jax.random.key(2), params, params)["w"]).any())


def test_levels_that_remove_nothing_get_one_line():
    with pytest.raises(ValueError, match="level 3 would remove none of the 2 weights left"):
        prune_schedule((4,), PruneConfig(), num_levels=9)
