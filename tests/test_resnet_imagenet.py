from functools import partial

import jax
import numpy as np
import pytest

from imp_rg.models import make_model
from imp_rg.pytree import leaf_paths

CIFAR = (32, 32, 3)


def sizes_of(model, partition, input_shape=CIFAR):
    blocks = model.partition(partition, input_shape)
    return dict(zip(blocks.names, blocks.sizes, strict=True))


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_counts_of_resnet50(stem):
    model = make_model("resnet50", num_classes=10, stem=stem)
    assert sizes_of(model, "stage") == {
        "stage1": 212_992,
        "stage2": 1_212_416,
        "stage3": 7_077_888,
        "stage4": 14_942_208,
    }
    shapes = model.shapes(CIFAR)
    leaves = dict(zip(leaf_paths(shapes), jax.tree.leaves(shapes), strict=True))
    assert leaves["head/kernel"].size == 20_480
    assert leaves["stem/kernel"].size == {"cifar": 1_728, "imagenet": 9_408}[stem]
    # The counts of torchvision's models, but for the head of 1000 classes.
    total = sum(leaf.size for leaf in leaves.values())
    if stem == "imagenet":
        assert total == 25_557_032 - 990 * (2048 + 1)


@pytest.mark.parametrize(
    ("name", "published"), [("resnet18", 11_689_512), ("resnet34", 21_797_672)]
)
def test_counts_of_the_basic_resnets(name, published):
    model = make_model(name, num_classes=1000, stem="imagenet")
    assert sum(leaf.size for leaf in jax.tree.leaves(model.shapes(CIFAR))) == published


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_every_convolution_but_the_stem_is_prunable_and_in_a_block(name):
    model = make_model(name, num_classes=7, width=0.25)
    shapes = model.shapes((12, 10, 2))
    leaves = zip(leaf_paths(shapes), jax.tree.leaves(shapes), strict=True)
    convs = {path: leaf.size for path, leaf in leaves if leaf.ndim == 4 and path != "stem/kernel"}
    for partition in ("stage", "block", "layer"):
        sizes = sizes_of(model, partition, (12, 10, 2))
        assert "rest" not in sizes
        assert sum(sizes.values()) == sum(convs.values())
    layers = sizes_of(model, "layer", (12, 10, 2))
    assert {f"{layer}/kernel" for layer in layers} == set(convs)
    assert next(iter(model.partitions)) == "stage"


def test_convolutions_start_kaiming_normal_by_their_outputs():
    model = make_model("resnet18", num_classes=10, width=0.5)

    @jax.jit  # which draws these two only
    def draw(key):
        params = model.init(key, CIFAR).params
        return params["stage3"]["block0"]["conv1"]["kernel"], params["head"]["kernel"]

    kernel, head = map(np.asarray, draw(jax.random.key(0)))
    expected = np.sqrt(2 / (9 * 128))  # the inputs are half as many
    assert kernel.std() == pytest.approx(expected, rel=4 / np.sqrt(2 * kernel.size))
    assert 0.99 < np.abs(head).max() * np.sqrt(256) <= 1


@partial(jax.jit, static_argnames=("module", "is_training"))
def apply(module, variables, x, *, is_training):
    return module.apply(variables._asdict(), x, is_training=is_training, mutable=["batch_stats"])


@pytest.mark.parametrize("is_training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    ("depth", "stem", "size"),
    [
        (18, "cifar", 32),
        (50, "imagenet", 64),
        # Both blocks and both stems are above; these are their other pairs.
        pytest.param(18, "imagenet", 64, marks=pytest.mark.long),
        pytest.param(50, "cifar", 32, marks=pytest.mark.long),
    ],
)
def test_equals_pytorch(depth, stem, size, is_training, tmp_path):
    torch = pytest.importorskip("torch")
    from torch_nets import torch_logits, torch_resnet

    from imp_rg.foreign.variables import load_variables

    torch.set_num_threads(1)
    network = torch_resnet(depth, stem, width=0.25)
    torch.save(network.state_dict(), tmp_path / "net.pt")
    model = make_model(f"resnet{depth}", num_classes=10, width=0.25, stem=stem)
    variables = load_variables(tmp_path / "net.pt", model)
    x = np.random.default_rng(0).standard_normal((4, size, size, 3), np.float32)
    logits, updated = apply(model.module, variables, x, is_training=is_training)
    np.testing.assert_allclose(logits, torch_logits(network.train(is_training), x), atol=1e-4)
    running = updated["batch_stats"]["stage4"]["block1"]["norm2"]["mean"]
    expected = network.layer4[1].bn2.running_mean.numpy()
    np.testing.assert_allclose(running, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"stem": "small"}, "stem: must be one of cifar, imagenet, got 'small'"),
        ({"width": -1.0}, "width: must be positive"),
        ({"gamma_init": "zero"}, "gamma_init: must be one of"),
    ],
)
def test_bad_settings_get_one_line(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_model("resnet50", num_classes=10, **kwargs)
