"""Masked language modelling: which tokens a network has to guess, and what it sees instead.

Draws are pure functions of a key, for use inside a training step.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from imp_rg.config import require
from imp_rg.data.text.tokenize import MASK, Tokenizer, Tokens
from imp_rg.types import AnyArray, Array, Bool, Int, Key

CHOSEN = 0.15
"""Share of the tokens that are to be guessed."""

SEEN_AS_MASK, SEEN_AS_RANDOM = 0.8, 0.1
"""Shares of the chosen ones that are seen as ``[MASK]`` or as any word; the rest is left."""

UNASKED = -1
"""Label of a token that is not to be guessed."""


@dataclass(frozen=True, kw_only=True)
class Masking:
    """What masking has to know of a vocabulary.

    Attributes:
      mask: Id of ``[MASK]``.
      special: Ids that are never chosen.
      num_words: Size of the vocabulary, all of which random words are drawn from.
    """

    mask: int
    special: tuple[int, ...]
    num_words: int


def make_masking(tokenizer: Tokenizer) -> Masking:
    """Takes the ids from a vocabulary.

    Raises:
      ValueError: If it has no ``[MASK]``.

    References:
      House definition.
    """
    rule = f"must hold {MASK} for masked language modelling"
    require(MASK in tokenizer.special, str(tokenizer.path), rule, list(tokenizer.special))
    special = tuple(sorted(tokenizer.special.values()))
    return Masking(mask=tokenizer.special[MASK], special=special, num_words=tokenizer.num_words)


def mask_tokens(
    key: Key, tokens: Tokens, masking: Masking
) -> tuple[Tokens, Int[Array, "example token"]]:
    """Hides tokens: each real one that is not special is chosen with probability `CHOSEN`.

    Args:
      key: Decides which, and behind what.
      tokens: To hide some of.
      masking: Of the vocabulary.

    Returns:
      What the network sees, and the ids it has to guess, `UNASKED` where nothing is asked.

    References:
      Devlin et al., arXiv:1810.04805, Sec. 3.1 and App. A.1. As in later code, every token is
      chosen by itself, so that their number varies.
    """
    choice_key, word_key = jax.random.split(key)
    ids = jnp.asarray(tokens.ids)
    # One number decides: below the first bound it is hidden, below the second replaced ...
    draw = jax.random.uniform(choice_key, ids.shape) / CHOSEN
    is_chosen = _can_be_chosen(tokens, masking) & (draw < 1)
    words = jax.random.randint(word_key, ids.shape, 0, masking.num_words, ids.dtype)
    seen = jnp.where(draw < SEEN_AS_MASK + SEEN_AS_RANDOM, words, ids)
    seen = jnp.where(draw < SEEN_AS_MASK, masking.mask, seen)
    shown = Tokens(ids=jnp.where(is_chosen, seen, ids), types=tokens.types, length=tokens.length)
    return shown, jnp.where(is_chosen, ids, UNASKED)


def _can_be_chosen(tokens: Tokens, masking: Masking) -> Bool[Array, "example token"]:
    is_real = jnp.arange(tokens.shape[1])[None, :] < jnp.asarray(tokens.length)[:, None]
    return is_real & ~jnp.isin(tokens.ids, np.array(masking.special))


def mask_once(tokens: Tokens, masking: Masking) -> tuple[Tokens, AnyArray]:
    """The fixed masking of examples to score; as `mask_tokens`, on the host.

    Raises:
      ValueError: If no token was chosen.

    References:
      House definition.
    """
    shown, labels = jax.device_get(mask_tokens(jax.random.key(0), tokens, masking))
    rule = "must hold words enough that some are masked"
    require(bool((labels >= 0).any()), "validation", rule, f"{len(tokens)} texts")
    return shown, labels
