"""Fine-tuning steps of a BERT encoder, timed beside PyTorch, and read against what is possible.

In: sizes of an encoder and of a batch. Out: cases to time.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.benchmark.cases import torch_case
from experiments.studies.benchmark.pytorch import TorchSeeds, is_available
from experiments.studies.benchmark.pytorch_bert import NUM_CLASSES, TorchBertSpec, make_bert_step
from experiments.studies.benchmark.roofline import (
    Probe,
    compute_dtype,
    device_probe,
    matmul_case,
)
from experiments.studies.benchmark.rows import Case
from imp_rg.data.text.tokenize import Tokens
from imp_rg.imp.finetune import FinetuneConfig, make_finetune_fn
from imp_rg.imp.losses import LOSSES
from imp_rg.imp.replicates import num_usable_cores
from imp_rg.models.bert import make_bert
from imp_rg.models.bert_config import BertConfig
from imp_rg.pytree import ones_masks
from imp_rg.types import Batch

OURS = "jax dispatch"
"""How the library's own row is named."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderSetup:
    """An encoder and its batch.

    Attributes:
      encoder: Name.
      config: Sizes.
      batch_size: Inputs a step.
      length: Tokens of each input.
      num_steps: Steps of one timed call.
      probe: Size of the matrix product beside it; by default fit for the device.
    """

    encoder: str
    config: BertConfig
    batch_size: int = 32
    length: int = 64
    num_steps: int = 2
    probe: Probe | None = None

    @property
    def name(self) -> str:
        """Encoder and batch."""
        return f"{self.encoder} {self.batch_size}x{self.length}"

    @property
    def num_tokens(self) -> int:
        """Tokens of a step."""
        return self.batch_size * self.length


def step_flops(config: BertConfig, batch_size: int, length: int) -> int:
    """Floating-point operations of the matrix products of one step: forward, and twice backward.

    References:
      House definition; two for each weight and token, and attention's own products.
    """
    w, inner = config.width, config.intermediate_width
    per_token = config.num_layers * (2 * (4 * w * w + 2 * w * inner) + 4 * length * w)
    per_input = 2 * w * (w + NUM_CLASSES)
    return 3 * batch_size * (length * per_token + per_input)


@contextlib.contextmanager
def encoder_cases(setup: EncoderSetup) -> Iterator[list[Case]]:
    """Steps by the library, in PyTorch where it is installed, and a large matrix product."""
    ours = Case(
        part="language",
        name=setup.name,
        how=OURS,
        num_seeds=1,
        divisor=setup.num_steps,
        program="step",
        call=_our_call(setup),
        role="ours",
    )
    cases = [ours, matmul_case("language", setup.name, setup.probe or device_probe())]
    with contextlib.ExitStack() as cleanup:
        if is_available():
            cores = num_usable_cores()
            spec = TorchBertSpec(setup.config, setup.batch_size, setup.length, cores)
            seeds = TorchSeeds(make_bert_step, spec, 1)
            cleanup.callback(seeds.close)
            cases.append(
                torch_case("language", setup.name, setup.num_steps, f", {cores} threads", seeds)
            )
        yield cases


def _our_call(setup: EncoderSetup):
    model = make_bert(setup.config, dtype=compute_dtype())
    variables = model.init(jax.random.key(0))
    train_fn = make_finetune_fn(
        model.make_apply_fn(),
        LOSSES["classification"],
        config=FinetuneConfig(batch_size=setup.batch_size),
        num_levels=1,
        widths=(setup.length,),
    )
    shape = setup.num_steps * setup.batch_size, setup.length
    rng = np.random.default_rng(0)
    tokens = Tokens(
        ids=rng.integers(0, setup.config.num_words, shape, np.int32),
        types=np.zeros(shape, np.uint8),
        length=np.full(shape[0], setup.length, np.int32),
    )
    labels = rng.integers(0, NUM_CLASSES, shape[0], np.int32)
    data = Batch(x=jax.tree.map(jnp.asarray, tokens), y=jnp.asarray(labels))
    masks = ones_masks(variables.params)

    def call() -> None:
        jax.block_until_ready(train_fn(jax.random.key(1), variables, masks, data))

    return call
