"""Transfer: what a target task is trained with, given the ticket of a source.

In: a ticket, and a fresh draw of the target's variables. Out: the ticket of the target, or one of
the controls beside it.
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from imp_rg.config import require, require_choice
from imp_rg.imp.controls import shuffle_masks
from imp_rg.pytree import leaf_paths, matches
from imp_rg.tickets.ticket import Ticket
from imp_rg.types import Key, Params, Variables

Kind = Literal["ticket", "random", "reinit", "dense"]
"""What is trained: the source's ticket, a random mask of its per-tensor densities on its weights,
its mask on fresh weights, or its weights without a mask."""

HEAD = ("head/*",)
"""Leaves that are drawn afresh unless told otherwise; ResNet-50 on other images: the stem, too."""


def transfer(
    key: Key,
    ticket: Ticket,
    drawn: Variables,
    *,
    kind: str,
    prunable: tuple[bool, ...],
    redrawn: Sequence[str] = HEAD,
) -> Ticket:
    """Makes what a target is trained with. Traceable.

    The head comes from `drawn` and is not masked. Everything else, batch statistics included, is as
    at the source's rewind point, but for ``reinit``, whose every value is drawn.

    Args:
      key: Permutes the masks of ``random``; the other kinds ignore it.
      ticket: Of the source.
      drawn: Fresh variables of the target, which may have another head.
      kind: One of `Kind`.
      prunable: For each leaf of the ticket in tree order, whether its mask can be permuted.
      redrawn: Patterns of the leaves that are drawn on the target, see `imp_rg.pytree.matches`.

    Returns:
      A ticket of the target's shapes.

    Raises:
      ValueError: If `kind` is unknown, or a tensor of the body does not fit.

    References:
      Redman et al., arXiv:2110.03210, Sec. 5; Chen et al., arXiv:2012.06908, redraw stem and head.
      The controls are those of Frankle and Carbin, arXiv:1803.03635, and Frankle et al.,
      arXiv:2009.08576.
    """
    require_choice("kind", kind, Kind)
    check_fit(ticket.rewind.params, drawn.params, redrawn)
    masks = ticket.masks
    if kind == "random":
        masks = shuffle_masks(key, masks, prunable)
    elif kind == "dense":
        masks = jax.tree.map(jnp.ones_like, masks)
    unmasked = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), drawn.params)
    body = drawn if kind == "reinit" else ticket.rewind
    rewind = Variables(
        params=_with_redrawn(body.params, drawn.params, redrawn),
        batch_stats=_with_redrawn(body.batch_stats, drawn.batch_stats, redrawn),
    )
    return Ticket(rewind, _with_redrawn(masks, unmasked, redrawn))


def check_fit(source: Params, target: Params, redrawn: Sequence[str] = HEAD) -> None:
    """Raises `ValueError` unless a ticket's tensors, but for those redrawn, are the target's.

    Args:
      source: Params of the ticket, arrays or shapes.
      target: Params of the target, arrays or shapes.
      redrawn: Patterns of the leaves that may differ.
    """
    found, wanted = _shapes(source), _shapes(target)
    strange = sorted(found.keys() ^ wanted.keys())
    require(not strange, "ticket", "must have the target's tensors, one alone has", strange[:1])
    is_any = any(matches(path, redrawn) for path in wanted)
    require(is_any, "redrawn", "must match a tensor of the target", tuple(redrawn))
    for path, shape in wanted.items():
        does_fit = shape == found[path] or matches(path, redrawn)
        require(does_fit, "ticket", f"{path} must have the target's shape {shape}", found[path])


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
    return dict(zip(leaf_paths(params), (x.shape for x in jax.tree.leaves(params)), strict=True))


def _with_redrawn(body: Any, drawn: Any, redrawn: Sequence[str]) -> Any:
    """Leaves of `drawn` where a pattern matches, of `body` elsewhere."""
    leaves = zip(leaf_paths(drawn), jax.tree.leaves(body), jax.tree.leaves(drawn), strict=True)
    chosen = [new if matches(path, redrawn) else old for path, old, new in leaves]
    return jax.tree.unflatten(jax.tree.structure(drawn), chosen)
