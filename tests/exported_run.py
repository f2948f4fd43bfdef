"""A run of our own, written again by other libraries, as other code would have left it."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from small_run import run_in_process

from imp_rg.foreign.tensors import open_tensors

FLAGS = (
    *("--model", "resnet14", "--width", "0.25", "--seeds", "2", "--levels", "3"),
    *("--num-steps", "6", "--rewind-step", "2", "--batch-size", "32", "--save-levels"),
)
SEEDS, LEVELS = range(2), range(4)


@functools.cache
def finished_run():
    """The run folder, made once for all tests."""
    out = Path(tempfile.mkdtemp(prefix="imp_rg_test_")) / "run"
    return run_in_process(*FLAGS, "--out", str(out))


@functools.cache
def level(seed, n):
    """Trained params, batch statistics and masks of one level by their stored names."""
    file = open_tensors(finished_run() / "levels" / f"seed{seed}" / f"level{n:02d}.safetensors")
    return {name: np.array(file[name]) for name in file}


def part(seed, n, prefix) -> dict[str, Any]:
    """One of ``params``, ``masks``, ``batch_stats`` with the prefix taken off."""
    return {k.removeprefix(prefix + "/"): v for k, v in level(seed, n).items() if
            k.startswith(prefix + "/")}  # fmt: skip


def masked(seed, n):
    """Params under their masks."""
    masks = part(seed, n, "masks")
    return {k: np.where(masks[k], v, np.float32(0)) for k, v in part(seed, n, "params").items()}


def torch_name(path: str) -> str:
    """torchvision's name of one of our leaves."""
    module, _, leaf = path.rpartition("/")
    if module.startswith("stage"):
        stage, block, layer = module.split("/")
        layer = {"shortcut": "downsample.0", "shortcut_norm": "downsample.1"}.get(layer, layer)
        module = f"layer{stage[5:]}.{block[5:]}.{layer.replace('norm', 'bn')}"
    else:
        module = {"stem": "conv1", "stem_norm": "bn1", "head": "fc"}[module]
    return module + (".bias" if leaf == "bias" else ".weight")


def torch_layout(array):
    """Output units first, as PyTorch keeps them."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, (0,))
    return np.ascontiguousarray(array.transpose(axes))


def in_torch(tree, prefix=""):
    """A flat tree of ours under PyTorch's names, axes and types."""
    import torch  # pyright: ignore[reportMissingImports]

    return {prefix + torch_name(k): torch.from_numpy(torch_layout(v)) for k, v in tree.items()}


def nested(flat):
    """A flat tree as nested dicts."""
    tree = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def prunable(seed):
    """Leaves that the run pruned; the others' masks keep all."""
    return [k for k, mask in part(seed, LEVELS[-1], "masks").items() if k.endswith("kernel")]


def write_torch_zeros(out):
    """State dicts of a `DataParallel` model with zeros, under a training script's keys."""
    import torch  # pyright: ignore[reportMissingImports]

    for s in SEEDS:
        (out / f"seed{s}").mkdir(parents=True)
        for n in LEVELS:
            state = {"state_dict": in_torch(masked(s, n), "module."), "epoch": 3, "arch": "x"}
            torch.save(state, out / f"seed{s}" / f"ckpt_{n}.pth.tar")


def write_torch_pairs(out):
    """``weight_orig`` and ``weight_mask``, the old file format, no masks at level 0."""
    import torch  # pyright: ignore[reportMissingImports]

    for s in SEEDS:
        (out / f"seed{s}").mkdir(parents=True)
        for n in LEVELS:
            state = in_torch(part(s, n, "params"))
            masks = in_torch({k: part(s, n, "masks")[k] for k in prunable(s)}) if n else {}
            for name, mask in masks.items():
                state[name + "_orig"] = state.pop(name)
                state[name + "_mask"] = mask.float()
            path = out / f"seed{s}" / f"model{n}.pt"
            torch.save(state, path, _use_new_zipfile_serialization=False)


def write_npz_with_masks(out):
    """Weights unmasked, masks in files of their own."""
    for s in SEEDS:
        (out / f"seed{s}").mkdir(parents=True)
        for n in LEVELS:
            np.savez(out / f"seed{s}" / f"weights{n}.npz", **part(s, n, "params"))
            masks: dict[str, Any] = {k: part(s, n, "masks")[k] for k in prunable(s)}
            np.savez_compressed(out / f"seed{s}" / f"mask{n}.npz", **masks)


def write_orbax(out):
    """One Orbax checkpoint a level, zeros in the weights."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        for s in SEEDS:
            for n in LEVELS:
                tree = {"params": nested(masked(s, n))}
                checkpointer.save((out / f"seed{s}" / f"level{n}").absolute(), tree)


def write_jaxpruner(out):
    """Flax msgpack of a train state whose optimizer state carries JaxPruner's mask tree."""
    from flax.serialization import to_bytes

    for s in SEEDS:
        (out / f"seed{s}").mkdir(parents=True)
        for n in LEVELS:
            masks = {k: part(s, n, "masks")[k].astype(np.uint8) for k in prunable(s)}
            state = {
                "step": 6,
                "params": nested(part(s, n, "params")),
                "opt_state": {"masks": nested(masks), "inner_state": {}, "count": np.int32(6)},
            }
            (out / f"seed{s}" / f"state_{n}.msgpack").write_bytes(to_bytes(state))


def write_manifest(out):
    """Names without order, spelled out by a manifest; safetensors of PyTorch."""
    import json

    from safetensors.numpy import save_file

    names, seeds = ["dense", "first", "second", "third"], {}
    for s in SEEDS:
        (out / f"run{s}").mkdir(parents=True)
        for n, name in zip(LEVELS, names, strict=True):
            tree = {torch_name(k): torch_layout(v) for k, v in masked(s, n).items()}
            save_file(tree, out / f"run{s}" / f"{name}.safetensors")
        seeds[str(s)] = [{"weights": f"run{s}/{name}.safetensors"} for name in names]
    (out / "manifest.json").write_text(json.dumps({"seeds": seeds}))


WITHOUT_TORCH = (write_npz_with_masks, write_orbax, write_jaxpruner, write_manifest)
WITH_TORCH = (write_torch_zeros, write_torch_pairs)
