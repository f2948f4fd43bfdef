"""Bodies of pre-trained networks on fresh stems and heads, from files as they are published."""

from typing import Any

import jax
import numpy as np
import pytest
from foreign_names import resnet50, staged_resnet

from imp_rg.foreign.backbone import StemOrigin, load_backbone
from imp_rg.models import make_model
from imp_rg.pytree import to_flat
from imp_rg.runs.tickets import write_level

WIDTH = 0.125
FRESH = ("params/stem/kernel", "params/head/kernel", "params/head/bias")


def leaf_shapes(model):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), (16, 16, 3)))


def fresh_variables(model, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), leaf_shapes(model))


@pytest.fixture(scope="module")
def model():
    return make_model("resnet18", num_classes=10, width=WIDTH)


@pytest.fixture(scope="module")
def fresh(model):
    return fresh_variables(model)


def tensors_like(shapes, seed=0):
    """Values for the names of a PyTorch network; variances are positive."""
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0.5, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def with_statistics(shapes):
    """Adds what norms keep beside their weights."""
    norms = [name.removesuffix(".bias") for name in shapes if name.endswith(".bias")]
    norms = [name for name in norms if len(shapes[f"{name}.weight"]) == 1]
    added = {
        f"{n}.{s}": shapes[f"{n}.bias"] for n in norms for s in ("running_mean", "running_var")
    }
    return shapes | added


RESNET18 = with_statistics(staged_resnet((2, 2, 2, 2), width=8, stem=7, num_classes=1000))


def save(path, tensors):
    np.savez(path, **tensors)
    return path


def assert_body(variables, fresh, tensors, kept=FRESH):
    """Stem and head are those drawn, everything else is the file's: its own tensor for each."""
    flat, drawn = to_flat(variables), to_flat(fresh)
    assert jax.tree.structure(variables) == jax.tree.structure(fresh)
    assert all(np.array_equal(flat[leaf], drawn[leaf]) for leaf in kept)
    np.testing.assert_array_equal(flat["params/stem_norm/scale"], tensors["bn1.weight"])
    np.testing.assert_array_equal(flat["batch_stats/stem_norm/var"], tensors["bn1.running_var"])
    kernel = tensors["layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(flat["params/stage2/block0/shortcut/kernel"], kernel)
    name, leaf = "layer3.1.bn2.running_mean", "batch_stats/stage3/block1/norm2/mean"
    np.testing.assert_array_equal(flat[leaf], tensors[name])
    sums = sorted(float(x.sum()) for leaf, x in flat.items() if leaf not in kept)
    body = [x for name, x in tensors.items() if name.startswith(("layer", "bn1."))]
    np.testing.assert_allclose(sums, sorted(float(x.sum()) for x in body), rtol=1e-5)


def prefixed(prefix, tensors):
    return {f"{prefix}{name}": x for name, x in tensors.items()}


OTHERS = {"queue": np.ones((4, 6), np.float32), "queue_ptr": np.zeros(1, np.int64)}
HEADS = {f"{module}.weight": np.ones((6, 64), np.float32) for module in ("projector.0", "fc.0")}


@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone.", "_feature_blocks.", "f."])
def test_any_prefix_and_heads_beside(prefix, model, fresh, tmp_path):
    tensors = tensors_like(RESNET18)
    path = save(tmp_path / "net.npz", prefixed(prefix, tensors) | HEADS | OTHERS)
    assert_body(load_backbone(path, model, fresh), fresh, tensors)


@pytest.mark.parametrize(
    ("trained", "copy"),
    [
        ("module.encoder_q.", "module.encoder_k."),
        ("backbone.", "momentum_backbone."),
        ("online_encoder.net.", "target_encoder.net."),
        ("student.", "teacher."),
    ],
)
def test_of_two_networks_the_trained_one(trained, copy, model, fresh, tmp_path):
    tensors = tensors_like(RESNET18)
    stored = prefixed(copy, tensors_like(RESNET18, seed=1)) | prefixed(trained, tensors)
    wrapper = "module." if trained.startswith("module.") else ""
    path = save(tmp_path / "moco.npz", stored | prefixed(wrapper, OTHERS | HEADS))
    assert_body(load_backbone(path, model, fresh), fresh, tensors)


def test_without_a_head(model, fresh, tmp_path):
    tensors = {n: x for n, x in tensors_like(RESNET18).items() if not n.startswith(("fc", "conv1"))}
    path = save(tmp_path / "net.npz", tensors)
    assert_body(load_backbone(path, model, fresh), fresh, tensors)


def test_the_stem_on_demand(model, fresh, tmp_path):
    shapes = RESNET18 | {"conv1.weight": (8, 3, 3, 3)}
    tensors = tensors_like(shapes)
    path = save(tmp_path / "net.npz", tensors)
    assert_body(load_backbone(path, model, fresh), fresh, tensors)
    loaded = load_backbone(path, model, fresh, stem="file")
    kernel = tensors["conv1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(loaded.params["stem"]["kernel"], kernel)
    np.testing.assert_array_equal(loaded.params["head"]["kernel"], fresh.params["head"]["kernel"])
    path = save(tmp_path / "large.npz", tensors_like(RESNET18))
    with pytest.raises(ValueError, match=r"conv1.weight must have shape \(8, 3, 3, 3\) .* 7, 7\)"):
        load_backbone(path, model, fresh, stem="file")


def test_own_files_with_other_classes(model, fresh, tmp_path):
    other = make_model("resnet18", num_classes=3, width=WIDTH)
    trained = fresh_variables(other, seed=1)
    masks = jax.tree.map(lambda x: x > 0, trained.params)
    path = tmp_path / "weights.safetensors"
    write_level(path, trained, masks, {"method": "simclr"})
    cases: list[tuple[StemOrigin, tuple[str, ...]]] = [("fresh", FRESH), ("file", FRESH[1:])]
    for stem, kept in cases:
        flat = to_flat(load_backbone(path, model, fresh, stem=stem))
        drawn, stored = to_flat(fresh), to_flat(trained)
        for leaf, values in flat.items():
            keep = to_flat(masks).get(leaf.removeprefix("params/"), True)
            expected = drawn[leaf] if leaf in kept else np.where(keep, stored[leaf], 0)
            np.testing.assert_array_equal(values, expected, err_msg=leaf)


def test_resnet50_of_full_size(tmp_path):
    """Every tensor of the published layout has its place; no values are drawn."""
    model = make_model("resnet50", num_classes=10)
    fresh = leaf_shapes(model)
    shapes = with_statistics(resnet50(1000)) | {"conv1.weight": (64, 3, 7, 7)}
    path = tmp_path / "resnet50.npz"
    zeros: Any = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    np.savez_compressed(path, **zeros)
    loaded = load_backbone(path, model, fresh)
    pairs = zip(jax.tree.leaves(loaded), jax.tree.leaves(fresh), strict=True)
    assert all(x.shape == drawn.shape for x, drawn in pairs)
    assert sum(isinstance(x, np.ndarray) for x in jax.tree.leaves(loaded)) == 53 * 5 - 1


def test_torch_file_computes_the_same(model, fresh, tmp_path):
    torch = pytest.importorskip("torch")
    from torch_nets import torch_logits, torch_resnet

    torch.set_num_threads(1)
    network = torch_resnet(18, "imagenet", width=WIDTH, num_classes=1000)
    path = tmp_path / "moco.pth.tar"
    encoder = prefixed("module.encoder_q.", network.state_dict())
    copy = {n.replace("_q.", "_k."): torch.zeros_like(x) for n, x in encoder.items()}
    queue = {"module.queue": torch.ones(4, 6), "module.queue_ptr": torch.zeros(1).long()}
    momentum = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.03}]}
    content = {"epoch": 800, "arch": "resnet50", "state_dict": encoder | copy | queue}
    torch.save(content | {"optimizer": momentum}, path)
    loaded = load_backbone(path, model, fresh)

    stem, head = fresh.params["stem"]["kernel"], fresh.params["head"]
    network.conv1 = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
    network.pool, network.fc = torch.nn.Identity(), torch.nn.Linear(64, 10)
    with torch.no_grad():
        network.conv1.weight.copy_(torch.from_numpy(stem.transpose(3, 2, 0, 1).copy()))
        network.fc.weight.copy_(torch.from_numpy(head["kernel"].T.copy()))
        network.fc.bias.copy_(torch.from_numpy(head["bias"].copy()))
    images = np.random.default_rng(0).standard_normal((2, 16, 16, 3), np.float32)
    logits = jax.jit(model.module.apply)(loaded._asdict(), images)
    np.testing.assert_allclose(logits, torch_logits(network, images), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "shapes", "message"),
    [
        (
            "resnet50",
            RESNET18,
            r"layer1.0.conv1.weight must have shape \(8, 8, 1, 1\) for resnet50 \(the file holds a "
            r"resnet18\), got \(8, 8, 3, 3\)",
        ),
        (
            "resnet18",
            with_statistics(staged_resnet((2, 2, 2, 2), width=16)),
            r"layer1.0.conv1.weight must have shape \(8, 8, 3, 3\) for resnet18, got "
            r"\(16, 16, 3, 3\)",
        ),
        (
            "resnet34",
            RESNET18,
            r"must hold layer1.2.conv1.weight for resnet34 \(the file holds a resnet18\), it is",
        ),
        (
            "resnet18",
            with_statistics(staged_resnet((3, 4, 6, 3), width=8)),
            r"must hold nothing besides resnet18 \(the file holds a resnet34\), got "
            r"\['layer1.2.conv1.weight'\]",
        ),
        (
            "resnet18",
            RESNET18 | {"layer1.0.se.fc1.weight": (2, 8, 1, 1)},
            r"must hold nothing besides resnet18, got \['layer1.0.se.fc1.weight'\]",
        ),
        (
            "resnet18",
            {n: s for n, s in RESNET18.items() if n != "bn1.running_mean"},
            "must hold bn1.running_mean for resnet18, it is missing",
        ),
        (
            "resnet18",
            {"features.0.weight": (8, 3, 3, 3), "classifier.weight": (10, 8)},
            "must hold a ResNet with names such as layer1.0.conv1.weight, .* got 'features.0.weig",
        ),
        ("lenet300-100", RESNET18, "model: must be a ResNet to start from a file, got 'lenet300-"),
    ],
)
def test_another_architecture_gets_one_line(name, shapes, message, tmp_path):
    model = make_model(name, num_classes=10, width=WIDTH)
    fresh = leaf_shapes(model)
    path = save(tmp_path / "net.npz", tensors_like(shapes))
    with pytest.raises(ValueError, match=message) as caught:
        load_backbone(path, model, fresh)
    assert "\n" not in str(caught.value)


def test_damaged_and_other_files_get_one_line(model, fresh, tmp_path):
    whole = save(tmp_path / "whole.npz", tensors_like(RESNET18)).read_bytes()
    cut, text, not_finite = (tmp_path / name for name in ("cut.npz", "notes.txt", "nan.npz"))
    cut.write_bytes(whole[: len(whole) // 2])
    text.write_text("no network")
    save(not_finite, tensors_like(RESNET18) | {"bn1.bias": np.full(8, np.nan, np.float32)})
    optimizer = save(tmp_path / "optimizer.npz", {"step": np.zeros(1, np.int64)})
    for path, message in (
        (cut, "cut.npz: must be a readable npz file"),
        (text, "notes.txt: must be a PyTorch, safetensors, npz"),
        (optimizer, "must hold the weights of a network"),
        (tmp_path / "gone.pth", "gone.pth: must be .*it is not there"),
        (not_finite, "nan.npz: bn1.bias must be finite"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            load_backbone(path, model, fresh)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="stem: must be one of fresh, file, got 'random'"):
        # The wrong type is the test.
        load_backbone(text, model, fresh, stem="random")  # pyright: ignore[reportArgumentType]
