"""The elastic transformation: a ticket of one depth becomes a ticket of another.

In: a ticket, block maps, the target's shapes. Out: a ticket of the target, whose residual blocks
are copies of the source's with their masks, norms and running statistics.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from imp_rg.config import require
from imp_rg.imp.controls import shuffle_masks
from imp_rg.pytree import from_flat, leaf_paths, to_flat
from imp_rg.tickets.block_maps import BlockMap, check_fits
from imp_rg.tickets.stretching import default_map
from imp_rg.tickets.ticket import Ticket, density_of
from imp_rg.types import Key, Params, Variables

_IN_BLOCK = re.compile(r"(stage\d+)/block(\d+)/(.+)")

StageMaps = BlockMap | Mapping[str, BlockMap]
"""One map for all stages, or one for each by name."""


class RealisedDensity(NamedTuple):
    """Kept fractions of prunable weights, as they came out.

    Attributes:
      whole: Of the network, stem and head included where they are prunable.
      stages: Of each stage by name.
    """

    whole: float
    stages: dict[str, float]


def normal_blocks(params: Params) -> dict[str, int]:
    """Residual blocks after the first, for each stage by name.

    Args:
      params: Arrays or shapes of a ResNet.

    Raises:
      ValueError: If there are no blocks ``stage*/block*``, or a stage has gaps.

    References:
      House definition; "normal" as in Redman et al., arXiv:2110.03210, Sec. 5.3.
    """
    found: dict[str, set[int]] = {}
    for match in map(_IN_BLOCK.fullmatch, leaf_paths(params)):
        if match:
            found.setdefault(match[1], set()).add(int(match[2]))
    require(
        bool(found), "params", "must have residual blocks stage*/block*", leaf_paths(params)[:3]
    )
    for stage, blocks in found.items():
        rule = f"blocks of {stage} must be numbered from 0 without gaps"
        require(blocks == set(range(len(blocks))), "params", rule, sorted(blocks))
    return {stage: len(blocks) - 1 for stage, blocks in found.items()}


def default_maps(source: Params, target: Params) -> dict[str, BlockMap]:
    """`default_map` for each stage of two ResNets, whose depths may differ from stage to stage.

    Args:
      source: Params of the source, arrays or shapes.
      target: Params of the target, arrays or shapes.

    Raises:
      ValueError: If the stages differ, or a stage has no normal block.

    References:
      House definition.
    """
    before, after = normal_blocks(source), normal_blocks(target)
    _check_stages("target", before, after)
    return {stage: default_map(before[stage], after[stage]) for stage in before}


def transform(ticket: Ticket, block_map: StageMaps, *, target: Variables) -> Ticket:
    """Builds the target's ticket from copies of whole residual blocks.

    A block comes with its convolutions, norms, running statistics and masks. What lies in no block
    (stem, head) and block 0 of each stage are copied one to one. The density is whatever results,
    see `realised_density`.

    Args:
      ticket: Of the source.
      block_map: One map for all stages, or a map a stage for ResNets with other depths in each.
      target: The target's variables, of which only shapes are used:
        ``jax.eval_shape(lambda: model.init(key, input_shape))``.

    Returns:
      The ticket, in host arrays, to be trained like any other.

    Raises:
      ValueError: If a map names an unknown block or leaves a target block uncovered, the stages
        differ, or a tensor has another shape in the target (another width, kind of block or head).

    References:
      Chen et al., "The Elastic Lottery Ticket Hypothesis", arXiv:2103.16547, Sec. 3.
    """
    before, after = normal_blocks(ticket.rewind.params), normal_blocks(target.params)
    _check_stages("target", before, after)
    maps = {stage: block_map for stage in before} if isinstance(block_map, BlockMap) else block_map
    _check_stages("block_map", before, maps)
    for stage in before:
        check_fits(maps[stage], before[stage], after[stage], stage)
    rewind = Variables(
        params=_copy_blocks(ticket.rewind.params, maps, target.params),
        batch_stats=_copy_blocks(ticket.rewind.batch_stats, maps, target.batch_stats),
    )
    return Ticket(rewind, _copy_blocks(ticket.masks, maps, target.params))


def shuffle_copies(key: Key, ticket: Ticket, block_map: StageMaps) -> Ticket:
    """Permutes the masks of copied blocks, each within its tensor; originals keep theirs.

    A control: the copies keep their densities and lose the positions.

    Args:
      key: Of the permutations.
      ticket: A result of `transform`.
      block_map: The map that made it.

    References:
      The ablation of copied blocks with random masks in the code of Chen et al., arXiv:2103.16547.
    """
    stages = normal_blocks(ticket.rewind.params)
    maps = {stage: block_map for stage in stages} if isinstance(block_map, BlockMap) else block_map
    matched = map(_IN_BLOCK.fullmatch, leaf_paths(ticket.masks))
    is_copy = tuple(bool(m) and int(m[2]) in maps[m[1]].copies for m in matched)
    return Ticket(ticket.rewind, jax.device_get(shuffle_masks(key, ticket.masks, is_copy)))


def realised_density(ticket: Ticket, prunable: Sequence[str]) -> RealisedDensity:
    """Kept fractions of a ticket, for each stage and as a whole.

    Args:
      ticket: Of a ResNet.
      prunable: Patterns of the leaves that can be pruned, such as ``Model.prunable``.

    Raises:
      ValueError: If no tensor matches.

    References:
      House definition.
    """
    counts = ticket.kept_counts(prunable)
    in_stage: dict[str, list] = {}
    for path, count in counts.items():
        match = _IN_BLOCK.fullmatch(path)
        if match:
            in_stage.setdefault(match[1], []).append(count)
    stages = {stage: density_of(found) for stage, found in in_stage.items()}
    return RealisedDensity(whole=density_of(counts.values()), stages=stages)


def _copy_blocks(source: Any, maps: Mapping[str, BlockMap], target: Any) -> Any:
    """One tree under the maps; `target` gives structure and shapes."""
    flat: dict[str, np.ndarray] = {}
    for path, leaf in to_flat(source).items():
        flat |= {there: leaf for there in _target_paths(path, maps)}
    shapes = dict(zip(leaf_paths(target), (x.shape for x in jax.tree.leaves(target)), strict=True))
    strange = sorted(set(flat) ^ set(shapes))
    rule = "must have the same tensors in each block as the source"
    require(not strange, "target", rule, f"{', '.join(strange[:1])} in one of them only")
    for path, leaf in flat.items():
        rule = f"{path} must have the source's shape {leaf.shape}, widths and heads cannot change"
        require(leaf.shape == shapes[path], "target", rule, shapes[path])
    return from_flat(flat, target)


def _target_paths(path: str, maps: Mapping[str, BlockMap]) -> list[str]:
    """Where a leaf of the source goes: nowhere if its block is dropped."""
    match = _IN_BLOCK.fullmatch(path)
    if not match:
        return [path]
    stage, block, leaf = match.groups()
    return [f"{stage}/block{b}/{leaf}" for b in maps[stage].targets.get(int(block), ())]


def _check_stages(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    rule = f"must have the stages of the source, {', '.join(sorted(before))}"
    require(set(before) == set(after), name, rule, ", ".join(sorted(after)))
