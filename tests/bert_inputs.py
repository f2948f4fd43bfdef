"""Random checkpoints with Hugging Face names, and random inputs of uneven length."""

import foreign_names as foreign
import numpy as np

from imp_rg.data.text.tokenize import Tokens


def random_checkpoint(*, num_layers, width, vocabulary, prefix="bert.", head="classifier", num=2):
    """A state dict whose weights are large enough that attention is uneven and biases show."""
    rng = np.random.default_rng(0)
    shapes = foreign.bert(num_layers=num_layers, width=width, vocabulary=vocabulary, prefix=prefix)
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith("classifier")}
    shapes |= {f"{head}.weight": (num, width), f"{head}.bias": (num,)}
    tensors = {n: rng.normal(0, 0.4, shape).astype(np.float32) for n, shape in shapes.items()}
    for name in tensors:
        if name.endswith("LayerNorm.weight"):
            tensors[name] += 1
    return tensors


def hugging_face_sizes(*, num_layers, width, vocabulary):
    """What ``config.json`` says of such a checkpoint."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 3,
        "intermediate_size": 4 * width,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
    }


def random_tokens(length, width, *, num_words):
    """Inputs padded to `width`; the second half of each is a second text."""
    rng, length = np.random.default_rng(1), np.array(length, np.int32)
    place = np.arange(width)[None]
    is_real = place < length[:, None]
    ids = np.where(is_real, rng.integers(0, num_words, is_real.shape), 0).astype(np.int32)
    types = (is_real & (place > length[:, None] // 2)).astype(np.uint8)
    return Tokens(ids=ids, types=types, length=length)
