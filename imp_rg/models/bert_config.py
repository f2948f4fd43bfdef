"""Sizes of a BERT encoder, and reading them from a Hugging Face ``config.json``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imp_rg.config import require

_SIZES = {
    "vocab_size": "num_words",
    "hidden_size": "width",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "intermediate_width",
    "max_position_embeddings": "num_positions",
    "type_vocab_size": "num_types",
}
_RATES = {
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "layer_norm_eps": "norm_epsilon",
    "initializer_range": "init_std",
}
_FIXED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "classifier_dropout": None,
}
"""What an encoder of another kind would say otherwise."""


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """Sizes and rates of an encoder; the default is BERT-base, uncased.

    Attributes:
      num_words: Rows of the word embedding.
      width: Of the hidden states.
      num_layers: Transformer layers.
      num_heads: Attention heads; they share the width evenly.
      intermediate_width: Of the hidden layer inside each transformer layer.
      num_positions: Tokens of the longest input.
      num_types: Kinds of tokens: first text, second text.
      dropout: Rate after embeddings, attention, feed-forward layers, and before the head.
      attention_dropout: Rate on the attention weights.
      norm_epsilon: Of layer norms.
      init_std: Standard deviation of fresh weights.

    References:
      Devlin et al., arXiv:1810.04805, Sec. 3 and App. A.2.
    """

    num_words: int = 30_522
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_width: int = 3072
    num_positions: int = 512
    num_types: int = 2
    dropout: float = 0.1
    attention_dropout: float = 0.1
    norm_epsilon: float = 1e-12
    init_std: float = 0.02

    def __post_init__(self):
        for name in _SIZES.values():
            value = getattr(self, name)
            is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            require(is_count, name, "must be an integer of at least 1", value)
        for name in _RATES.values():
            value = getattr(self, name)
            is_rate = isinstance(value, float | int) and 0 <= value < 1
            require(is_rate, name, "must lie in [0, 1)", value)
        rule = f"must divide the width {self.width}"
        require(self.width % self.num_heads == 0, "num_heads", rule, self.num_heads)


def from_hugging_face(settings: Mapping[str, Any]) -> BertConfig:
    """The sizes in the content of a ``config.json``.

    Args:
      settings: As parsed. Rates that are left out have their usual values, sizes must be there.

    Raises:
      ValueError: If a size is missing or out of range, or the file describes another architecture.

    References:
      The keys are those of `BertConfig` in Hugging Face transformers.
    """
    for key, expected in _FIXED.items():
        found = settings.get(key, expected)
        require(found == expected, key, f"must be {expected!r} for a BERT encoder", found)
    missing = [key for key in _SIZES if key not in settings]
    require(not missing, "config.json", "must hold the sizes of a BERT encoder, missing", missing)
    keys = _SIZES | {key: name for key, name in _RATES.items() if key in settings}
    return BertConfig(**{name: settings[key] for key, name in keys.items()})
