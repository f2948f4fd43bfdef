"""BERT in plain PyTorch, as the paper describes it, on tensors with Hugging Face names."""

from typing import Any, NamedTuple

import pytest

torch: Any = pytest.importorskip("torch")
F = torch.nn.functional


class Outputs(NamedTuple):
    """What the reference computes; hidden states come from the embeddings and every layer."""

    hidden: Any
    pooled: Any


def torch_bert(tensors, ids, types, is_real, *, num_heads, epsilon=1e-12) -> Outputs:
    """Encodes `ids` [example token]; tokens that are not `is_real` are not attended to."""

    def linear(x, name):
        return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def norm(x, name):
        scale, bias = tensors[f"{name}.LayerNorm.weight"], tensors[f"{name}.LayerNorm.bias"]
        return F.layer_norm(x, x.shape[-1:], scale, bias, epsilon)

    def heads(x):
        return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)

    names = [f"embeddings.{n}_embeddings.weight" for n in ("word", "position", "token_type")]
    word, position, kind = (tensors[name] for name in names)
    x = norm(word[ids] + position[torch.arange(ids.shape[1])] + kind[types], "embeddings")
    hidden = [x]
    penalty = torch.where(is_real, 0.0, -torch.inf)[:, None, None, :]
    while (layer := f"encoder.layer.{len(hidden) - 1}") + ".output.dense.weight" in tensors:
        query, key, value = (
            heads(linear(x, f"{layer}.attention.self.{n}")) for n in ("query", "key", "value")
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        mixed = (torch.softmax(scores + penalty, -1) @ value).transpose(1, 2).flatten(2)
        output = f"{layer}.attention.output"
        x = norm(x + linear(mixed, f"{output}.dense"), output)
        inner = F.gelu(linear(x, f"{layer}.intermediate.dense"))
        x = norm(x + linear(inner, f"{layer}.output.dense"), f"{layer}.output")
        hidden.append(x)
    return Outputs(torch.stack(hidden), torch.tanh(linear(x[:, 0], "pooler.dense")))
