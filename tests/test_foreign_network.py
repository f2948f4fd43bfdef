"""Checkpoints as networks: names, parts, masks; on files that the real libraries wrote."""

from typing import Any, NamedTuple

import flax.serialization
import foreign_names as foreign
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import save_file

from imp_rg.foreign.block_rules import choose_rules, make_network_partition
from imp_rg.foreign.network import open_network
from imp_rg.foreign.tensors import open_tensors
from imp_rg.models import make_model
from imp_rg.pytree import to_flat
from imp_rg.runs.tickets import write_ticket

RNG = np.random.default_rng(0)
SHAPES = {"conv.weight": (4, 3, 2, 2), "conv.bias": (4,), "fc.weight": (5, 4), "fc.bias": (5,)}
WEIGHTS = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
MASKS = {
    name: RNG.integers(0, 2, SHAPES[name]).astype(np.int32) for name in ("conv.weight", "fc.weight")
}


def write(path, tensors):
    save_file(dict(tensors), path)
    return open_tensors(path)


def open_parts(tmp_path, tensors, masks=None):
    weights = write(tmp_path / "weights.safetensors", tensors)
    return open_network(
        weights, None if masks is None else write(tmp_path / "masks.safetensors", masks)
    )


def check_is_masked(network):
    assert network.shapes == SHAPES
    assert network.has_explicit_masks
    assert network.masked_names == set(MASKS)
    for name, weight in WEIGHTS.items():
        np.testing.assert_array_equal(network.weight(name), weight)
        mask = network.mask(name)
        if name in MASKS:
            assert mask.dtype == bool
            np.testing.assert_array_equal(mask, MASKS[name] == 1)
        else:
            assert mask is None


# Masks


def test_zeros_are_no_explicit_mask(tmp_path):
    pruned = {name: x * MASKS.get(name, 1) for name, x in WEIGHTS.items()}
    network = open_parts(tmp_path, {n: x.astype(np.float32) for n, x in pruned.items()})
    assert not network.has_explicit_masks
    assert network.masked_names == frozenset()
    assert all(network.mask(name) is None for name in SHAPES)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, bool, np.float32])
@pytest.mark.parametrize(
    "name_of",
    [
        lambda name: name,
        lambda name: f"{name}_mask",
        lambda name: f"{name}.mask",
        lambda name: name.replace(".weight", ".mask"),
        lambda name: name.removesuffix(".weight"),
        lambda name: f"module.{name}",
        lambda name: f"model.module.{name}_mask",
    ],
    ids=["same", "_mask", ".mask", "module.mask", "module", "prefix", "prefixes and _mask"],
)
def test_masks_in_a_file_of_their_own(tmp_path, name_of, dtype):
    masks = {name_of(name): mask.astype(dtype) for name, mask in MASKS.items()}
    check_is_masked(open_parts(tmp_path, WEIGHTS, masks))


@pytest.mark.parametrize("name_of", ["{}_mask", "{}.mask"])
def test_masks_beside_the_weights(tmp_path, name_of):
    masks = {name_of.format(name): mask for name, mask in MASKS.items()}
    check_is_masked(open_parts(tmp_path, WEIGHTS | masks))


def test_masks_apart_for_weights_put_aside(tmp_path):
    """As BERT-Tickets stores them: ``X_orig`` in one file, ``X_mask`` in the other."""
    weights = {f"{name}_orig" if name in MASKS else name: x for name, x in WEIGHTS.items()}
    masks = {f"{name}_mask": mask.astype(np.float32) for name, mask in MASKS.items()}
    check_is_masked(open_parts(tmp_path, weights, masks))


def test_masks_apart_come_first(tmp_path):
    stale = {f"{name}_mask": np.ones_like(mask) for name, mask in MASKS.items()}
    check_is_masked(open_parts(tmp_path, WEIGHTS | stale, MASKS))


def test_masks_of_another_checkpoint(tmp_path):
    spare = {f"params/{name}": np.ones_like(x) for name, x in WEIGHTS.items()}
    tree = {f"masks/{name}": mask for name, mask in MASKS.items()}
    check_is_masked(open_parts(tmp_path, WEIGHTS, spare | tree))
    named = {f"{name}_mask": mask for name, mask in MASKS.items()}
    check_is_masked(open_parts(tmp_path, WEIGHTS, WEIGHTS | named))


def test_attention_masks_are_no_masks_of_weights(tmp_path):
    causal = {"attn.mask": np.tri(4, dtype=bool), "attn.rel_mask": np.ones((2, 2), np.float32)}
    network = open_parts(tmp_path, WEIGHTS | causal)
    assert not network.has_explicit_masks
    assert set(network.shapes) == {*SHAPES, "attn.rel_mask"}


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (
            {"conv1.weight": MASKS["conv.weight"]},
            r"must belong to one tensor .*nearest: 'conv.weight'.*, got 'conv1.weight'",
        ),
        ({"fc.weight": np.ones((4, 5), np.int32)}, r"must have the shape \(5, 4\) of 'fc.weight'"),
        ({"fc.weight": np.ones(3, np.int32)}, r"got \(3,\)"),
        ({"fc.weight": np.ones(4, np.uint8)}, r"got \(4,\)"),
        (MASKS | {"module.fc.weight": MASKS["fc.weight"]}, "must belong to one tensor"),
    ],
)
def test_masks_that_fit_no_tensor(tmp_path, masks, message):
    with pytest.raises(ValueError, match=f"masks.safetensors: .*{message}") as error:
        open_parts(tmp_path, WEIGHTS, masks)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [2.0, 0.5, -1.0, np.nan])
def test_masks_that_are_not_binary(tmp_path, value):
    mask = np.ones((5, 4), np.float32)
    mask[1, 2] = value
    network = open_parts(tmp_path, WEIGHTS, {"fc.weight": mask})
    with pytest.raises(ValueError, match=f"mask 'fc.weight' must hold only 0 and 1, got {value}"):
        network.mask("fc.weight")


# Parts and names


def test_the_network_is_found_among_other_trees(tmp_path):
    def nest(key, tensors):
        return {f"{key}/module.{name}": x for name, x in tensors.items()}

    spare = {name: x + 1 for name, x in WEIGHTS.items()}
    spare["extra.weight"] = np.ones((40, 40), np.float32)  # larger, and still not the network
    momentum = {"optimizer/state/0/momentum_buffer": np.ones((50, 50), np.float32)}
    masks = {f"{name}_mask": mask for name, mask in MASKS.items()}
    network = open_parts(
        tmp_path,
        nest("state_dict", WEIGHTS | masks)
        | nest("init_weight", spare)
        | nest("model_ema", spare)
        | momentum
        | {"epoch": np.asarray(3), "best_loss": np.asarray(0.5)},
    )
    check_is_masked(network)
    assert network.part == "state_dict"
    assert network.other_parts == ("model_ema", "init_weight")


def test_keys_above_a_state_dict_need_not_be_known(tmp_path):
    token = {"cls_token": np.ones((1, 1, 4), np.float32)}
    network = open_parts(tmp_path, {f"mine/{name}": x for name, x in (WEIGHTS | token).items()})
    assert set(network.shapes) == {*SHAPES, "cls_token"}
    assert (network.part, network.other_parts) == ("mine", ())


def test_prefixes_are_removed_only_if_shared(tmp_path):
    nested = {f"_orig_mod.module.{name}": x for name, x in WEIGHTS.items()}
    assert open_parts(tmp_path, nested).shapes == SHAPES
    mixed = {f"backbone.{n}" if n.startswith("conv") else n: x for n, x in WEIGHTS.items()}
    masks = {f"backbone.{n}" if n.startswith("conv") else n: x for n, x in MASKS.items()}
    assert set(open_parts(tmp_path, mixed).shapes) == set(mixed)
    assert open_parts(tmp_path, mixed, masks).masked_names == set(masks)


def test_of_two_encoders_the_trained_one_is_taken(tmp_path):
    network = open_parts(
        tmp_path,
        {f"module.encoder_q.{name}": x for name, x in WEIGHTS.items()}
        | {f"module.encoder_k.{name}": x + 1 for name, x in WEIGHTS.items()}
        | {"module.queue": np.ones((128, 64), np.float32)},
        {f"module.encoder_q.{name}": mask for name, mask in MASKS.items()},
    )
    check_is_masked(network)
    assert network.other_parts == ("encoder_k", "queue")


def test_integers_and_running_statistics_are_no_weights(tmp_path):
    statistics = {
        "bn.running_mean": np.ones(4, np.float32),
        "bn.running_var": np.full(4, 2, np.float32),
    }
    counts = {"bn.num_batches_tracked": np.asarray(7), "position_ids": np.arange(5)}
    network = open_parts(tmp_path, WEIGHTS | statistics | counts)
    assert network.shapes == SHAPES
    assert set(network.buffers) == set(statistics)
    np.testing.assert_array_equal(network.buffers["bn.running_var"], 2)


def test_no_network_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="must hold the weights of a network, .*got 'opt") as error:
        open_parts(tmp_path, {"optimizer/state/0/exp_avg": np.ones((3, 3), np.float32)})
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="must hold masks"):
        open_parts(tmp_path, WEIGHTS, {"optimizer/x": np.ones(3)})


# Flax


class SparseState(NamedTuple):
    """The state that JaxPruner wraps around an optimizer's, field for field."""

    masks: Any
    inner_state: Any = None
    target_sparsities: Any = None
    count: Any = None


TREE = {
    "stem": {"kernel": RNG.normal(size=(3, 3, 1, 4)).astype(np.float32)},
    "model": {
        "kernel": RNG.normal(size=(4, 3)).astype(np.float32),
        "bias": np.zeros(3, np.float32),
    },
}
STATISTICS = {"norm": {"mean": np.ones(4, np.float32), "var": np.full(4, 3, np.float32)}}
TREE_MASKS = {
    "stem": {"kernel": RNG.integers(0, 2, (3, 3, 1, 4)).astype(np.uint8)},
    "model": {"kernel": RNG.integers(0, 2, (4, 3)).astype(np.uint8), "bias": None},
}
PACKED = {
    "stem": {"kernel": np.packbits(TREE_MASKS["stem"]["kernel"])},
    "model": {"kernel": np.packbits(TREE_MASKS["model"]["kernel"]), "bias": None},
}


def train_state(masks, *, in_chain=False, in_variables=False):
    """What a training loop with JaxPruner stores, as a tree of arrays."""
    wrap = (lambda tree: {"params": tree}) if in_variables else (lambda tree: tree)
    sparsities = {"stem": {"kernel": 0.5}, "model": {"kernel": 0.5, "bias": None}}
    params = wrap(TREE)
    inner = optax.sgd(0.1, momentum=0.9).init(params)
    state = SparseState(wrap(masks), inner, wrap(sparsities), np.asarray(4, np.int32))
    return {
        "step": np.asarray(4, np.int32),
        "params": params,
        "opt_state": (optax.EmptyState(), state) if in_chain else state,
        "batch_stats": STATISTICS,
    }


def write_msgpack(path, tree):
    path.write_bytes(flax.serialization.to_bytes(tree))


def write_orbax(path, tree):
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path, tree)


def write_orbax_standard(path, tree):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)


@pytest.mark.parametrize("writer", [write_msgpack, write_orbax, write_orbax_standard])
@pytest.mark.parametrize(
    ("masks", "settings"),
    [
        (TREE_MASKS, {}),
        (TREE_MASKS, {"in_chain": True}),
        (TREE_MASKS, {"in_variables": True}),
        (PACKED, {}),
    ],
    ids=["plain", "in a chain", "in variables", "packed"],
)
def test_mask_trees_of_jaxpruner(tmp_path, writer, masks, settings):
    writer(tmp_path / "checkpoint", train_state(masks, **settings))
    network = open_network(open_tensors(tmp_path / "checkpoint"))
    assert set(network.shapes) == {"stem/kernel", "model/kernel", "model/bias"}
    assert network.masked_names == {"stem/kernel", "model/kernel"}
    assert network.mask("model/bias") is None
    for name in ("stem", "model"):
        np.testing.assert_array_equal(network.weight(f"{name}/kernel"), TREE[name]["kernel"])
        expected = TREE_MASKS[name]["kernel"] == 1
        np.testing.assert_array_equal(network.mask(f"{name}/kernel"), expected)
    if "in_variables" not in settings:
        assert set(network.buffers) == {"norm/mean", "norm/var"}
        np.testing.assert_array_equal(network.buffers["norm/var"], 3)


def test_two_trees_of_masks_are_an_error(tmp_path):
    state = train_state(TREE_MASKS) | {"masks": TREE_MASKS}
    write_msgpack(tmp_path / "checkpoint", state)
    with pytest.raises(
        ValueError, match="one tree of masks, got 'masks, opt_state/masks'|got 'opt"
    ):
        open_network(open_tensors(tmp_path / "checkpoint"))


def test_our_own_tickets(tmp_path):
    model = make_model("resnet14", num_classes=10, width=0.25)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), (8, 8, 1)))
    variables = jax.tree.map(lambda x: RNG.normal(size=x.shape).astype(np.float32), shapes)
    masks = jax.tree.map(lambda x: jnp.asarray(x) > -0.1, variables.params)
    write_ticket(tmp_path / "level00.safetensors", variables, masks, {"level": "0"})
    network = open_network(open_tensors(tmp_path / "level00.safetensors"))
    params, kept = to_flat(variables.params), to_flat(masks)
    assert set(network.shapes) == network.masked_names == set(params)
    for name in params:
        np.testing.assert_array_equal(network.weight(name), params[name])
        np.testing.assert_array_equal(network.mask(name), kept[name])
    assert set(network.buffers) == set(to_flat(variables.batch_stats))
    rules = choose_rules(network.shapes, masked=network.masked_names)
    partition = make_network_partition(network.shapes, rules)
    assert partition == model.partition("block", (8, 8, 1))


# PyTorch


def torch_resnet(torch):
    """A CIFAR ResNet with the members that torchvision gives it."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            if stride > 1:
                conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    net = nn.Module()
    net.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
    net.bn1 = nn.BatchNorm2d(4)
    net.layer1 = nn.Sequential(Block(4, 4, 1), Block(4, 4, 1))
    net.layer2 = nn.Sequential(Block(4, 8, 2), Block(8, 8, 1))
    net.layer3 = nn.Sequential(Block(8, 16, 2), Block(16, 16, 1))
    net.fc = nn.Linear(16, 10)
    return net


def test_pruned_torch_checkpoints(tmp_path):
    torch = pytest.importorskip("torch")
    from torch.nn.utils import prune  # pyright: ignore[reportMissingImports]

    net = torch_resnet(torch)
    initial = {name: x.clone() for name, x in net.state_dict().items()}
    convs = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m is not net.conv1]
    targets = [(module, "weight") for module in convs]
    prune.global_unstructured(targets, pruning_method=prune.L1Unstructured, amount=0.4)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    for x in net.parameters():
        x.grad = torch.ones_like(x)
    optimizer.step()
    wrapped = {f"module.{name}": x for name, x in net.state_dict().items()}
    torch.save(
        {
            "state": 1,
            "result": {"ta": [0.1]},
            "state_dict": wrapped,
            "optimizer": optimizer.state_dict(),
            "init_weight": initial,
        },
        tmp_path / "1model.pth.tar",
    )
    network = open_network(open_tensors(tmp_path / "1model.pth.tar"))
    assert network.part == "state_dict"
    assert network.other_parts == ("init_weight",)
    expected = foreign.staged_resnet((2, 2, 2), width=4)
    assert network.shapes == expected
    names = dict(net.named_modules())
    for name in network.masked_names:
        module = names[name.removesuffix(".weight")]
        np.testing.assert_array_equal(network.weight(name), module.weight_orig.detach().numpy())
        np.testing.assert_array_equal(network.mask(name), module.weight_mask.numpy() == 1)
    assert len(network.masked_names) == len(convs)
    assert len(network.buffers) == 2 * (1 + 12 + 2)
    rules = choose_rules(network.shapes, masked=network.masked_names)
    assert rules.name == "cifar-resnet"
    partition = make_network_partition(network.shapes, rules)
    assert sum(partition.sizes) == sum(module.weight.numel() for module in convs)
    assert "rest" not in partition.names  # neither stem nor head was pruned


def test_mask_files_of_open_lth(tmp_path):
    torch = pytest.importorskip("torch")
    net = torch_resnet(torch)
    state = net.state_dict()
    prunable = [name for name, x in state.items() if x.ndim > 1]
    masks = {name: (state[name].abs() > 0.05).int() for name in prunable}
    torch.save(state, tmp_path / "model_ep160_it0.pth")
    torch.save(masks, tmp_path / "mask.pth")
    network = open_network(
        open_tensors(tmp_path / "model_ep160_it0.pth"), open_tensors(tmp_path / "mask.pth")
    )
    assert network.masked_names == set(prunable)
    for name in prunable:
        np.testing.assert_array_equal(network.mask(name), masks[name].numpy() == 1)
