"""What the stored name of a tensor says: whose it is, its name in the network, its block.

In: the names of one checkpoint, nested keys joined with ``/``. Out: the same tensors sorted into
networks, running statistics and masks, under names free of wrappers; and the residual blocks or
layers that the names of a network tell of. No tensor is read here.
"""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from imp_rg.config import require
from imp_rg.foreign.tensors import TensorFile

WRAPPERS = frozenset(
    "params variables state_dict model_state_dict model net network module state weights "
    "default ema ema_params ema_state_dict model_ema init_weight target".split()
)
"""Keys that hold a whole network, not a part of one."""

OPTIMIZERS = frozenset(
    "optimizer optimizers optimizer_state optimizer_states optimizer_state_dict optim opt_state "
    "scheduler lr_scheduler lr_schedulers scaler".split()
)
SPARE = frozenset("ema init initial rewind best swa teacher".split())
"""Words in the keys of networks that are kept beside the trained one."""

MASK_TREES = frozenset({"masks", "mask"})
MASK_SUFFIXES = ("_mask", ".mask", "/mask")
STATISTICS = "batch_stats"
STATISTICS_SUFFIXES = ("running_mean", "running_var")

PREFIXES = (
    *("module.", "_orig_mod.", "model.", "net.", "network.", "backbone."),
    *("encoder_q.", "encoder_k."),
)
"""What wrapping modules put before every name of a PyTorch state dict."""

QUERY_ENCODER = "encoder_q."
"""Prefix of the trained one of MoCo's two encoders."""

_WITHIN = r"(?P<prefix>(?:[A-Za-z_]+[./])*)"
_STAGED_BLOCKS = (
    r"layer(?P<stage>\d{1,5})[./](?P<block>\d{1,5})[./]",  # torchvision, timm, most CIFAR ResNets
    r"stage(?P<stage>\d{1,5})/block(?P<block>\d{1,5})/",  # this package
    r"block(?P<stage>\d{1,5})/unit(?P<block>\d{1,5})/",  # Big Vision
    r"block(?P<stage>\d{1,5})\.layer\.(?P<block>\d{1,5})\.",  # Wide ResNets
    r"stages\.(?P<stage>\d{1,5})\.layers\.(?P<block>\d{1,5})\.",  # Hugging Face
)
_RUNNING_BLOCKS = (
    r"blocks\.(?P<block>\d{1,5})\.(?=conv|shortcut|bn)",  # open_lth
    r"[A-Za-z]*Block_(?P<block>\d{1,5})/",  # modules that Flax numbered
)
_LAYERS = (
    ("bert", r"layer[._/](?P<block>\d{1,5})[./]", r"attention[./]self[./]query[./]"),
    ("bert", r"layer\.(?P<block>\d{1,5})\.", r"attention\.q_lin\."),  # DistilBERT
    ("vit", r"layer[./](?P<block>\d{1,5})[./]", r"attention[./]attention[./]query[./]"),  # HF
    ("vit", r"blocks\.(?P<block>\d{1,5})\.", r"attn\.(qkv|q_proj|proj)\."),  # timm
    ("vit", r"layers\.encoder_layer_(?P<block>\d{1,5})\.", r"self_attention\."),  # torchvision
    ("vit", r"encoderblock_(?P<block>\d{1,5})/", r"MultiHeadDotProductAttention_"),  # Big Vision
)
"""Family, what stands before the number of a layer, and what a name after it must start with."""


class Contents(NamedTuple):
    """The tensors of one checkpoint, sorted. Each dict maps a name to the stored name.

    Attributes:
      part: Keys of the network that was taken, ``""`` if it lies at the top.
      other_parts: Of the networks that were left.
      tensors: Of the network, in the order of the file; integer tensors and masks of
        `torch.nn.utils.prune` are still among them.
      statistics: Running statistics kept in a tree of their own (Flax).
      masks: The tree of masks, if there is one.
    """

    part: str
    other_parts: tuple[str, ...]
    tensors: dict[str, str]
    statistics: dict[str, str]
    masks: dict[str, str]


def sort_tensors(file: TensorFile) -> Contents:
    """Finds the network of a checkpoint among optimizer state, masks and spare copies.

    Of several networks the trained one comes before copies (moving averages, initial weights),
    and the largest before the others. House definition.

    Raises:
      ValueError: If there are two trees of masks.
    """
    found: dict[str, dict[str, dict[str, str]]] = {"network": {}, "statistics": {}, "masks": {}}
    # Dots within a name are PyTorch's own, so every key above is a wrapper, known or not.
    state_dicts = {stored.rpartition("/")[0] for stored in file if "." in stored.split("/")[-1]}
    for stored in file:
        place = _place(stored, state_dicts)
        if place is not None:
            kind, key, name = place
            found[kind].setdefault(key, {})[name] = stored
    parts, trees = found["network"], found["masks"]
    require(len(trees) <= 1, str(file.path), "must hold one tree of masks", ", ".join(trees))
    shapes = file.shapes
    sizes = {part: sum(math.prod(shapes[s]) for s in parts[part].values()) for part in parts}
    taken, *others = sorted(parts, key=lambda part: _rank(part, sizes[part])) or [""]
    tensors = _strip_common(parts.get(taken, {}))
    trained = {name: s for name, s in tensors.items() if name.startswith(QUERY_ENCODER)}
    others = [part for part in others if any(len(shapes[s]) > 1 for s in parts[part].values())]
    if trained:
        others += sorted({name.split(".")[0] for name in tensors if name not in trained})
    return Contents(
        part=taken,
        other_parts=tuple(others),
        tensors=_strip_common(trained) or tensors,
        statistics=found["statistics"].get(taken, {}),
        masks=next(iter(trees.values()), {}),
    )


def _place(stored: str, state_dicts: Collection[str]) -> tuple[str, str, str] | None:
    """Kind, key and name of a tensor; None for what belongs to an optimizer."""
    *folders, leaf = stored.split("/")
    is_optimizer = not OPTIMIZERS.isdisjoint(folders)
    num_wrappers = _count_wrappers(folders)
    tree = next((i for i, folder in enumerate(folders) if folder in MASK_TREES), None)

    def cut(kind: str, key: list[str], first: int) -> tuple[str, str, str]:
        return kind, "/".join(key), "/".join((*folders[first:], leaf))

    if tree is not None and (is_optimizer or tree == num_wrappers):
        return cut("masks", folders[: tree + 1], tree + 1)
    if is_optimizer:
        return None
    if folders[num_wrappers : num_wrappers + 1] == [STATISTICS]:
        return cut("statistics", [*folders[:num_wrappers], "params"], num_wrappers + 1)
    if "/".join(folders) in state_dicts:
        num_wrappers = len(folders)
    return cut("network", folders[:num_wrappers], num_wrappers)


def _count_wrappers(folders: Sequence[str]) -> int:
    """Length of the leading run of wrappers; below ``params`` names are the network's own."""
    for i, folder in enumerate(folders):
        if folder not in WRAPPERS or ("params" in folders[:i] and folder != "params"):
            return i
    return len(folders)


def _rank(part: str, size: int) -> tuple[bool, int, int, str]:
    words = part.lower().replace("/", "_").split("_")
    return not SPARE.isdisjoint(words), -size, len(part), part


def _strip_common(tensors: dict[str, str]) -> dict[str, str]:
    """Removes the prefixes that all names share."""
    while tensors:
        shared = [p for p in PREFIXES if all(name.startswith(p) for name in tensors)]
        if not shared:
            break
        tensors = {name.removeprefix(shared[0]): stored for name, stored in tensors.items()}
    return tensors


def owner_of(mask_name: str, names: Collection[str]) -> str | None:
    """The tensor that a mask belongs to, by its name; None if there is none.

    A mask is named as its tensor, as ``X_mask`` or ``X.mask``, or after the module that holds the
    tensor; wrapping modules may have put their prefixes before it. House definition.
    """
    for name in _without_prefixes(mask_name):
        for suffix in ("", *MASK_SUFFIXES):
            base = name.removesuffix(suffix)
            for candidate in (base, f"{base}.weight", f"{base}/kernel"):
                if name.endswith(suffix) and candidate in names:
                    return candidate
    return None


def _without_prefixes(name: str) -> Iterator[str]:
    yield name
    prefixes = (*PREFIXES, *(f"{wrapper}/" for wrapper in WRAPPERS))
    while shared := [prefix for prefix in prefixes if name.startswith(prefix)]:
        name = name.removeprefix(shared[0])
        yield name


class Structure(NamedTuple):
    """The repeated parts of a network.

    Attributes:
      family: ``resnet``, ``bert`` or ``vit``.
      blocks: Block (``stage1/block0``, ``layer0``) to its tensors, in order of depth.
    """

    family: str
    blocks: dict[str, list[str]]

    @property
    def stages(self) -> dict[str, list[str]]:
        """Stage (``stage1``) to the tensors of all its blocks."""
        stages: dict[str, list[str]] = {}
        for block, tensors in self.blocks.items():
            stages.setdefault(block.split("/")[0], []).extend(tensors)
        return stages


def find_structure(shapes: Mapping[str, tuple[int, ...]]) -> Structure | None:
    """Residual blocks or transformer layers by the names of a network's tensors.

    Stages count from 1, blocks and layers from 0, whatever the names count from. House definition.

    Returns:
      The structure; None if the names are not known, or tell of two such networks.
    """
    for family, pattern, mark in _LAYERS:
        found = _numbered(shapes, pattern)
        if any(re.match(mark, rest) for tensors in found.values() for rest in tensors):
            layers = [list(found[number].values()) for number in sorted(found)]
            return Structure(family, {f"layer{i}": tensors for i, tensors in enumerate(layers)})
    for pattern in (*_STAGED_BLOCKS, *_RUNNING_BLOCKS):
        found = {n: list(tensors.values()) for n, tensors in _numbered(shapes, pattern).items()}
        if pattern in _RUNNING_BLOCKS:
            found = _divide_into_stages(found, shapes)
        # Two convolutions at least: `layer1.0` may also be a plain network's first convolution.
        num_convs = [sum(len(shapes[t]) == 4 for t in tensors) for tensors in found.values()]
        if num_convs and min(num_convs) > 1:
            return Structure("resnet", _named_by_stage(found))
    return None


def _numbered(names: Iterable[str], pattern: str) -> dict[tuple[int, ...], dict[str, str]]:
    """Names by the numbers in them, then by what follows; nothing if two networks use them."""
    prefixes = set()
    found: dict[tuple[int, ...], dict[str, str]] = {}
    for name in names:
        match = re.match(_WITHIN + pattern, name)
        if match:
            prefix, *numbers = match.groups()
            prefixes.add(prefix)
            found.setdefault(tuple(map(int, numbers)), {})[name[match.end() :]] = name
    return found if len(prefixes) == 1 else {}


def _divide_into_stages(
    found: dict[tuple[int, ...], list[str]], shapes: Mapping[str, tuple[int, ...]]
) -> dict[tuple[int, ...], list[str]]:
    """Blocks numbered throughout, by stage and block: a stage begins where the width changes."""
    divided, stage, before = {}, 0, None
    for number, tensors in sorted(found.items()):
        outputs = [shapes[t][-1 if "/" in t else 0] for t in tensors if len(shapes[t]) == 4]
        width = max(outputs, default=None)
        stage += width != before
        before = width
        divided[stage, *number] = tensors
    return divided


def _named_by_stage(found: Mapping[tuple[int, ...], list[str]]) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {}
    stages = sorted({stage for stage, _ in found})
    for i, stage in enumerate(stages, start=1):
        numbers = sorted(number for number in found if number[0] == stage)
        named |= {f"stage{i}/block{b}": found[number] for b, number in enumerate(numbers)}
    return named
