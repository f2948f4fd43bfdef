import jax
import pytest

from imp_rg.blocks import make_partition
from imp_rg.models import make_model
from imp_rg.pytree import leaf_paths

SHAPES = make_model("resnet14", num_classes=10).shapes((8, 8, 1))
PRUNABLE = make_model("resnet14", num_classes=10).prunable


def test_prunable_leaves_outside_every_block_form_rest():
    blocks = make_partition(SHAPES, {"early": ("stage1", "stage2")}, prunable=PRUNABLE)
    assert blocks.names == ("early", "rest")
    assert blocks.num_listed == 1
    owner = dict(zip(leaf_paths(SHAPES), blocks.block_of, strict=True))
    assert owner["stage2/block0/shortcut/kernel"] == 0
    assert owner["stage3/block1/conv2/kernel"] == owner["stem/kernel"] == 1
    assert owner["stage1/block0/norm1/scale"] == owner["head/bias"] == -1


def test_no_rest_when_the_blocks_cover_everything():
    blocks = make_partition(SHAPES, {"all": ("*",)}, prunable=PRUNABLE)
    assert blocks.names == ("all",)
    assert blocks.num_listed == 1
    assert hash(blocks) == hash(make_partition(SHAPES, {"all": ("*",)}, prunable=PRUNABLE))


def test_sizes_count_prunable_weights_only():
    blocks = make_partition(SHAPES, {"down": ("stage2/block0",)}, prunable=PRUNABLE)
    assert blocks.sizes[0] == 14_336  # protocol of the Elastic study: a down-sampling block
    assert sum(blocks.sizes) == 174_128 - 2 * 144  # one input channel instead of three


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"a": ("stage9",)}, "'stage9' of block 'a' matches no prunable tensor"),
        ({"a": ("stage1/block0/norm1",)}, "matches no prunable tensor"),
        ({"a": ("stage1",), "b": ("stage1/block1",)}, "is in a and b"),
        ({"rest": ("stage1",)}, "'rest' is kept"),
    ],
)
def test_bad_patterns_get_one_line(patterns, message):
    with pytest.raises(ValueError, match=message) as error:
        make_partition(SHAPES, patterns, prunable=PRUNABLE)
    assert "\n" not in str(error.value)


def test_leaves_of_inverts_block_of():
    blocks = make_partition(SHAPES, {"s1": ("stage1",), "s3": ("stage3",)}, prunable=PRUNABLE)
    num_leaves = len(jax.tree.leaves(SHAPES))
    found = sorted(k for i in range(3) for k in blocks.leaves_of(i))
    assert found == [k for k in range(num_leaves) if blocks.prunable[k]]
