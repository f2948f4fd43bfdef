"""A training step of a BERT encoder in PyTorch, for comparison, written plainly.

The same sizes, dropout, clipping and AdamW as ours; attention through PyTorch's own kernel.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from imp_rg.models.bert_config import BertConfig

NUM_CLASSES = 2


class TorchBertSpec(NamedTuple):
    """What the PyTorch process trains; plain values, because they go to another process.

    Attributes:
      config: Sizes and rates of the encoder.
      batch_size: Inputs a step.
      length: Tokens of each input.
      num_threads: Of the process.
    """

    config: BertConfig
    batch_size: int
    length: int
    num_threads: int


def make_bert_step(torch: Any, spec: TorchBertSpec) -> Callable[[], Any]:
    """One step of AdamW on random tokens.

    Args:
      torch: The imported library.
      spec: Network and batch.

    Returns:
      A function that takes one step and returns the loss.

    References:
      House definition; the network is `imp_rg.models.bert`.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = make_encoder(torch, spec.config).to(device)
    shape = (spec.batch_size, spec.length)
    ids = torch.randint(0, spec.config.num_words, shape, device=device)
    labels = torch.randint(0, NUM_CLASSES, (spec.batch_size,), device=device)
    adam = torch.optim.AdamW(network.parameters(), lr=2e-5, weight_decay=0.0)

    def take_step() -> Any:
        adam.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(network(ids), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
        return loss.detach()

    return take_step


def make_encoder(torch: Any, config: BertConfig) -> Any:
    """Encoder, pooler and head as a PyTorch module of ids [example token]. House definition."""
    nn, c = torch.nn, config

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.value, self.mixed = (
                nn.Linear(c.width, c.width) for _ in range(4)
            )
            self.inner = nn.Linear(c.width, c.intermediate_width)
            self.outer = nn.Linear(c.intermediate_width, c.width)
            self.norms = nn.ModuleList(nn.LayerNorm(c.width, c.norm_epsilon) for _ in range(2))
            self.dropout = nn.Dropout(c.dropout)

        def forward(self, x):
            heads = (
                linear(x).unflatten(-1, (c.num_heads, -1)).transpose(1, 2)
                for linear in (self.query, self.key, self.value)
            )
            rate = c.attention_dropout if self.training else 0.0
            y = nn.functional.scaled_dot_product_attention(*heads, dropout_p=rate)
            x = self.norms[0](x + self.dropout(self.mixed(y.transpose(1, 2).flatten(2))))
            y = self.outer(nn.functional.gelu(self.inner(x)))
            return self.norms[1](x + self.dropout(y))

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            sizes = (c.num_words, c.num_positions, c.num_types)
            self.word, self.position, self.kind = (nn.Embedding(n, c.width) for n in sizes)
            self.norm = nn.LayerNorm(c.width, c.norm_epsilon)
            self.dropout = nn.Dropout(c.dropout)
            self.layers = nn.Sequential(*(Layer() for _ in range(c.num_layers)))
            self.pooler = nn.Linear(c.width, c.width)
            self.head = nn.Linear(c.width, NUM_CLASSES)

        def forward(self, ids):
            places = torch.arange(ids.shape[1], device=ids.device)
            x = self.word(ids) + self.position(places) + self.kind(torch.zeros_like(ids))
            x = self.layers(self.dropout(self.norm(x)))
            return self.head(self.dropout(torch.tanh(self.pooler(x[:, 0]))))

    return Encoder()
