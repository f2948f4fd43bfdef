import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imp_rg.pytree import apply_masks, check_same_structure, from_flat, leaf_paths, matches, to_flat

TREE = {
    "stage1": {"block0": {"conv1": {"kernel": jnp.ones((2, 3))}}},
    "head": {"bias": jnp.ones(3)},
}


def test_paths_are_slash_joined_in_leaf_order():
    assert leaf_paths(TREE) == ("head/bias", "stage1/block0/conv1/kernel")


@pytest.mark.parametrize(
    ("pattern", "is_match"),
    [
        ("stage1/block0", True),
        ("stage1/block0/", True),
        ("stage1", True),
        ("stage*/kernel", True),
        ("stage1/block0/conv1/kernel", True),
        ("stage1/bl", False),
        ("stage", False),
        ("stage2/*", False),
    ],
)
def test_a_pattern_is_a_whole_path_or_a_folder(pattern, is_match):
    assert matches("stage1/block0/conv1/kernel", (pattern,)) is is_match


def test_dead_weights_stay_dead_even_if_not_finite():
    params = {"w": jnp.array([1.0, jnp.nan, jnp.inf, -2.0])}
    masked = apply_masks(params, {"w": jnp.array([True, False, False, True])})
    np.testing.assert_array_equal(masked["w"], [1.0, 0.0, 0.0, -2.0])


def test_flat_round_trip():
    back = from_flat(to_flat(TREE), TREE)
    assert jax.tree.structure(back) == jax.tree.structure(TREE)
    jax.tree.map(np.testing.assert_array_equal, back, TREE)


def test_flat_with_another_name_is_refused():
    flat = to_flat(TREE)
    flat["head/bais"] = flat.pop("head/bias")
    with pytest.raises(ValueError, match="head/bais"):
        from_flat(flat, TREE)


def test_masks_of_other_structure_or_shape_are_refused():
    masks = jax.tree.map(lambda p: jnp.ones(p.shape, bool), TREE)
    check_same_structure(TREE, masks)
    with pytest.raises(ValueError, match="structure"):
        check_same_structure(TREE, {"head": masks["head"]})
    masks["head"]["bias"] = jnp.ones(4, bool)
    with pytest.raises(ValueError, match="head/bias must be bool of shape"):
        check_same_structure(TREE, masks)
    masks["head"]["bias"] = jnp.ones(3)
    with pytest.raises(ValueError, match="head/bias must be bool"):
        check_same_structure(TREE, masks)
