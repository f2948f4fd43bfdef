from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from imp_rg.foreign.variables import load_variables
from imp_rg.models import make_model
from imp_rg.pytree import to_flat
from imp_rg.runs.tickets import write_ticket

torch = pytest.importorskip("torch")
prune = pytest.importorskip("torch.nn.utils.prune")

from torch_nets import torch_cifar_resnet, torch_logits, torch_resnet  # noqa: E402  (after the skip)

torch.set_num_threads(1)
IMAGES = np.random.default_rng(0).standard_normal((3, 16, 16, 3), np.float32)


@partial(jax.jit, static_argnames=("module", "is_training"))
def apply(module, variables, x, *, is_training=False):
    return module.apply(variables._asdict(), x, is_training=is_training)


def assert_same_logits(variables, model, network):
    logits = apply(model.module, variables, IMAGES)
    np.testing.assert_allclose(logits, torch_logits(network, IMAGES), atol=1e-4)


def save(path: Path, tensors) -> Path:
    """Writes a state dict in the format of the suffix, each with the library that owns it."""
    if path.suffix == ".safetensors":
        save_file({name: tensor.numpy() for name, tensor in tensors.items()}, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize("naming", ["torchvision", "kuangliu", "open_lth"])
@pytest.mark.parametrize("shortcut", ["projection", "pad"])
def test_cifar_resnets_of_every_naming(naming, shortcut, tmp_path):
    network = torch_cifar_resnet(14, shortcut, naming)
    path = save(tmp_path / "net.pt", network.state_dict())
    model = make_model("resnet14", num_classes=10, shortcut=shortcut)
    assert_same_logits(load_variables(path, model), model, network)
    assert_same_logits(load_variables(path, "resnet14"), model, network)  # all of it inferred


@pytest.mark.parametrize("file", ["net.th", "net.safetensors", "net.npz"])
def test_every_file_format_and_a_depth_with_inner_blocks(file, tmp_path):
    network = torch_cifar_resnet(20, "pad", "kuangliu", width=0.5, num_classes=7)
    tensors = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    variables = load_variables(save(tmp_path / file, tensors), "resnet20")
    model = make_model("resnet20", num_classes=7, shortcut="pad", width=0.5)
    assert_same_logits(variables, model, network)


@pytest.mark.parametrize(("stem", "naming"), [("cifar", "kuangliu"), ("imagenet", "torchvision")])
def test_four_stage_resnets_infer_their_stem(stem, naming, tmp_path):
    network = torch_resnet(18, stem, width=0.125, num_classes=5, naming=naming)
    path = save(tmp_path / "net.pt", {"state_dict": network.state_dict(), "epoch": 3})
    model = make_model("resnet18", num_classes=5, stem=stem, width=0.125)
    assert_same_logits(load_variables(path, "resnet18"), model, network)


@pytest.mark.parametrize("form", ["pairs", "zeros", "mask file"])
def test_pruned_networks_in_every_form(form, tmp_path):
    network = torch_cifar_resnet(14, "projection", "torchvision")
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            prune.l1_unstructured(module, "weight", amount=0.6)
    pairs = network.state_dict()
    dense = {n.removesuffix("_orig"): t for n, t in pairs.items() if not n.endswith("_mask")}
    kept = {n.removesuffix("_mask"): t for n, t in pairs.items() if n.endswith("_mask")}
    model, masks = make_model("resnet14", num_classes=10), None
    if form == "pairs":
        path = save(tmp_path / "net.pt", pairs)
    elif form == "zeros":
        zeros = {n: t * kept[n] if n in kept else t for n, t in dense.items()}
        path = save(tmp_path / "net.pt", zeros)
    else:
        path = save(tmp_path / "net.pt", dense)
        masks = save(tmp_path / "mask.pt", kept)
    variables = load_variables(path, model, masks=masks)
    assert_same_logits(variables, model, network)
    kernel = variables.params["stage3"]["block1"]["conv1"]["kernel"]
    assert (kernel == 0).mean() == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "width"), [("resnet14", 0.25), ("resnet18", 0.125), ("lenet20-10", 1)]
)
def test_own_tickets(name, width, tmp_path):
    model = make_model(name, num_classes=3, width=width)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), (8, 8, 2)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), shapes)
    masks = jax.tree.map(lambda p: rng.random(p.shape) < 0.5, variables.params)
    path = tmp_path / "seed0-level03.safetensors"
    write_ticket(path, variables, masks, {"level": "3"})
    params = jax.tree.map(np.multiply, variables.params, masks)
    expected = variables._replace(params=params)
    for loaded in (load_variables(path, model), load_variables(path, name)):
        assert jax.tree.structure(loaded) == jax.tree.structure(expected)
        leaves = to_flat(loaded)
        assert all((leaves[path] == leaf).all() for path, leaf in to_flat(expected).items())


def without(name):
    return lambda tensors: {n: t for n, t in tensors.items() if n != name}


def changed(name, tensor):
    return lambda tensors: tensors | {name: tensor}


@pytest.mark.parametrize(
    ("change", "model", "kwargs", "message"),
    [
        (
            without("layer2.1.bn1.bias"),
            "resnet14",
            {},
            "net.pt: must hold layer2.1.bn1.bias for resnet14, it is missing",
        ),
        (
            without("layer2.1.bn1.running_var"),
            "resnet14",
            {},
            "must hold layer2.1.bn1.running_var for resnet14, it is missing",
        ),
        (without("conv1.weight"), "resnet14", {}, "must hold conv1.weight, got "),
        (
            changed("layer1.0.se.weight", torch.zeros(3)),
            "resnet14",
            {},
            r"must hold nothing besides resnet14, got \['layer1.0.se.weight'\]",
        ),
        (
            changed("layer1.0.conv1.weight", torch.zeros(16, 16, 1, 1)),
            "resnet14",
            {},
            r"layer1.0.conv1.weight must have shape \(16, 16, 3, 3\) for resnet14, "
            r"got \(16, 16, 1, 1\)",
        ),
        (
            changed("layer1.0.conv1.weight", torch.full((16, 16, 3, 3), torch.nan)),
            "resnet14",
            {},
            "net.pt: layer1.0.conv1.weight must be finite",
        ),
        (dict, "resnet14", {"num_classes": 100}, r"fc.bias must have shape \(100,\)"),
        (
            dict,
            "resnet32",
            {},
            "model: must be resnet14: .*net.pt has 2, 2, 2 basic blocks a stage, got 'resnet32'",
        ),
        (dict, "resnet50", {}, "model: must be resnet14: "),
        (
            dict,
            "resnet14",
            {"shortcut": "pad"},
            "shortcut: must be projection for .*net.pt, which holds layer2.0.downsample.0.weight, "
            "got 'pad'",
        ),
        (dict, "resnet21", {}, "model: must be a known name"),
        (dict, "lenet300-100", {}, "must hold dense0.weight, got 'conv1.weight, "),
        (
            lambda tensors: {"classifier.weight": tensors["fc.weight"]},
            "resnet14",
            {},
            "must hold a ResNet with names such as layer1.0.conv1.weight, .* got 'classifier.weig",
        ),
    ],
)
def test_what_does_not_fit_gets_one_line(change, model, kwargs, message, tmp_path):
    network = torch_cifar_resnet(14, "projection", "torchvision")
    path = save(tmp_path / "net.pt", change(network.state_dict()))
    with pytest.raises(ValueError, match=message) as caught:
        load_variables(path, model, **kwargs)
    assert "\n" not in str(caught.value)


def test_missing_shortcuts_and_unknown_depths_are_named(tmp_path):
    network = torch_cifar_resnet(26, "pad", "open_lth", width=0.25)
    path = save(tmp_path / "net.pt", network.state_dict())
    with pytest.raises(ValueError, match="no known one fits: .* has 4, 4, 4 basic blocks a stage"):
        load_variables(path, "resnet20")
    network = torch_cifar_resnet(14, "pad", "open_lth", width=0.25)
    path = save(tmp_path / "net.pt", network.state_dict())
    with pytest.raises(ValueError, match="shortcut: must be pad for .*, which holds no 1x1"):
        load_variables(path, make_model("resnet14", num_classes=10, width=0.25))
