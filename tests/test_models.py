from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imp_rg import types
from imp_rg.models import RESNET_BLOCKS, make_model
from imp_rg.models.resnet_cifar import Conv
from imp_rg.pytree import leaf_paths

CIFAR = (32, 32, 3)


@pytest.mark.parametrize(
    ("depth", "total"),
    [(14, 174_128), (20, 270_896), (32, 464_432), (44, 657_968), (56, 851_504)],
)
def test_prunable_counts_of_the_elastic_study(depth, total):
    model = make_model(f"resnet{depth}", num_classes=10)
    blocks = model.partition("block", CIFAR)
    sizes = dict(zip(blocks.names, blocks.sizes, strict=True))
    assert sum(blocks.sizes) == total
    normal = [sizes[f"stage{s}/block1"] for s in (1, 2, 3)]
    assert normal == [4_608, 18_432, 73_728]
    assert [sizes["stage2/block0"], sizes["stage3/block0"]] == [14_336, 57_344]
    assert sizes["rest"] == 432 + 640  # stem and head


@pytest.mark.parametrize("name", ["lenet300-100", *RESNET_BLOCKS, "lenet64", "lenet32-16-8"])
@pytest.mark.parametrize("partition", ["block", "layer"])
def test_every_model_has_covering_partitions(name, partition):
    model = make_model(name, num_classes=7)
    blocks = model.partition(partition, (12, 10, 2))
    shapes = model.shapes((12, 10, 2))
    leaves = zip(leaf_paths(shapes), jax.tree.leaves(shapes), strict=True)
    assert sum(blocks.sizes) == sum(leaf.size for path, leaf in leaves if "kernel" in path)
    assert all(size > 0 for size in blocks.sizes)
    if partition == "layer":
        assert "rest" not in blocks.names


@pytest.mark.parametrize("shortcut", ["projection", "pad"])
@pytest.mark.parametrize(("width", "input_shape"), [(0.5, (8, 8, 1)), (1.0, (9, 7, 4))])
def test_resnets_take_any_image_size(shortcut, width, input_shape):
    model = make_model("resnet14", num_classes=5, width=width, shortcut=shortcut)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), input_shape))
    rng = np.random.default_rng(0)
    # Any weights will do; drawing those of the network takes longer to compile than using them.
    variables = jax.tree.map(lambda s: rng.uniform(0.1, 0.2, s.shape).astype("f"), shapes)
    channels = input_shape[-1]
    apply_fn = model.make_apply_fn(np.zeros(channels, np.float32), np.ones(channels, np.float32))
    x = rng.standard_normal((3, *input_shape), np.float32)
    logits, stats = jax.jit(partial(apply_fn, is_training=True))(variables, x)
    assert logits.shape == (3, 5)
    assert bool(jnp.isfinite(logits).all())
    has_projection = any("shortcut" in path for path in leaf_paths(variables.params))
    assert has_projection == (shortcut == "projection")
    assert variables.params["stage3"]["block1"]["conv2"]["kernel"].shape[-1] == round(64 * width)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), stats, variables.batch_stats)
    assert all(jax.tree.leaves(changed))


def test_strided_convolutions_pad_as_pytorch_does():
    """With padding 1 on both sides, output (0, 0) of a strided 3x3 convolution sees row -1."""
    x = jnp.zeros((1, 8, 8, 1)).at[0, 0, 0, 0].set(1.0)
    kernel = jnp.arange(9.0).reshape(3, 3, 1, 1)
    y: Any = Conv(1, 3, 2, None).apply({"params": {"kernel": kernel}}, x)
    assert float(y[0, 0, 0, 0]) == 4.0  # the centre tap; XLA's SAME would give tap 0


def test_initial_weights_are_kaiming_normal_not_truncated():
    model = make_model("resnet20", num_classes=10)

    @jax.jit  # which draws this one only
    def draw(key):
        return model.init(key, CIFAR).params["stage3"]["block1"]["conv1"]["kernel"]

    kernel = np.asarray(draw(jax.random.key(0)))
    expected = np.sqrt(2 / (9 * 64))
    assert kernel.std() == pytest.approx(expected, rel=4 / np.sqrt(2 * kernel.size))
    assert np.abs(kernel).max() > 3 * expected  # a truncated normal ends at about 2.3


def test_gamma_is_uniform_when_asked():
    model = make_model("resnet14", num_classes=10, width=4.0, gamma_init="uniform")

    @jax.jit  # which draws these only
    def draw(key):
        params = model.init(key, CIFAR).params
        leaves = zip(leaf_paths(params), jax.tree.leaves(params), strict=True)
        return [leaf for path, leaf in leaves if path.endswith("norm1/scale")]

    scales = np.concatenate(draw(jax.random.key(0)))
    assert len(scales) == 2 * (64 + 128 + 256)
    assert 0 <= scales.min() < 0.05 and 0.95 < scales.max() <= 1
    assert scales.mean() == pytest.approx(0.5, abs=4 / np.sqrt(12 * scales.size))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "resnet21"}, r"known name \(nearest: resnet"),
        ({"name": "lenet"}, "known name"),
        ({"name": "lenet300-0"}, "known name"),
        ({"name": "resnet14", "width": 0.0}, "width: must be positive"),
        ({"name": "resnet14", "shortcut": "none"}, "shortcut: must be one of"),
    ],
)
def test_bad_models_get_one_line(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_model(num_classes=10, **kwargs)


def test_unknown_partition_names_the_choices():
    with pytest.raises(ValueError, match="lenet300-100 has block, layer, got 'stage'"):
        make_model("lenet300-100", num_classes=10).partition("stage", (8, 8, 1))


@pytest.mark.parametrize("name", ["resnet14", "lenet8-8", "resnet18"])
def test_a_dense_head_leaves_the_prunable_set_and_every_partition(name):
    model = make_model(name, num_classes=3, width=0.25).with_dense_head()
    for part in model.partitions:
        blocks = model.partition(part, (8, 8, 1))
        paths = leaf_paths(model.shapes((8, 8, 1)))
        assert not blocks.prunable[paths.index("head/kernel")]
        assert "head" not in blocks.names


@pytest.mark.parametrize(
    ("name", "is_accelerator", "dtype"),
    [
        ("auto", False, None),
        ("auto", True, jnp.bfloat16),
        ("bfloat16", False, jnp.bfloat16),
        ("float32", True, None),
    ],
)
def test_short_numbers_are_for_accelerators_unless_asked_for(
    name, is_accelerator, dtype, monkeypatch
):
    monkeypatch.setattr(types, "is_accelerator", lambda: is_accelerator)
    assert types.compute_dtype(name) == dtype
