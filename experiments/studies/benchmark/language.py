"""Fine-tuning steps of a BERT encoder, timed beside PyTorch, and read against what is possible.

In: sizes of an encoder and of a batch. Out: cases to time, and sentences on tokens a second, the
share of the machine's matrix products, padding, and what pruning costs beside training.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.benchmark.pytorch import TorchSeeds, is_available
from experiments.studies.benchmark.pytorch_bert import NUM_CLASSES, TorchBertSpec, make_bert_step
from experiments.studies.benchmark.roofline import (
    MATMUL,
    Probe,
    compute_dtype,
    device_probe,
    matmul_case,
    matmul_flops,
)
from experiments.studies.benchmark.rows import Case, Row
from imp_rg.data.text.batches import padding_waste
from imp_rg.data.text.tokenize import Tokens
from imp_rg.imp.finetune import FinetuneConfig, bucket_widths, make_finetune_fn, plan_level
from imp_rg.imp.losses import LOSSES
from imp_rg.imp.replicates import num_usable_cores
from imp_rg.models.bert import make_bert
from imp_rg.models.bert_config import BertConfig
from imp_rg.pytree import ones_masks
from imp_rg.types import Batch

TEXT_LENGTHS = {"RTE": (4.107, 0.523, 2490), "MRPC": (3.943, 0.258, 3668)}
"""Mean and deviation of the logarithm of the tokens of an input, and inputs, of two tasks."""

LEVEL_EPOCHS, LEVEL_LENGTH = 3, 128
"""What a level of BERT-base is taken to be: so many passes over RTE, padded to so many tokens."""

MOST_OF_A_LEVEL = 0.01
"""Aim: share of a level's time that pruning and the flow may take."""


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
    case = functools.partial(Case, "language", setup.name, num_seeds=1)
    ours = _our_call(setup)
    num = setup.num_steps
    cases = [
        case("jax dispatch", divisor=num, program="step", call=ours, role="ours"),
        matmul_case("language", setup.name, setup.probe or device_probe()),
    ]
    with contextlib.ExitStack() as cleanup:
        if is_available():
            cores = num_usable_cores()
            spec = TorchBertSpec(setup.config, setup.batch_size, setup.length, cores)
            seeds = TorchSeeds(make_bert_step, spec, 1)
            cleanup.callback(seeds.close)
            call, how = functools.partial(seeds.run, num), f"torch, {cores} threads"
            theirs = case(how, divisor=num, program=None, call=call, role="theirs")
            cases.append(theirs._replace(memory=seeds.memory_gb))
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


def language_words(
    rows: Sequence[Row], setups: Sequence[EncoderSetup], base: BertConfig
) -> list[str]:
    """Says what the rows of the encoders, and of pruning beside them, come to.

    Args:
      rows: All that was measured.
      setups: The encoders, the longest inputs last; what was not measured is left out.
      base: Encoder whose levels pruning is compared with.

    Returns:
      Sentences; none if no encoder was measured.

    References:
      House definition.
    """
    by_key = {(row.name, row.how): row.median / 1e3 for row in rows if row.part == "language"}
    if not by_key:
        return []
    words, rate = [], 0.0
    for setup in (setup for setup in setups if (setup.name, MATMUL) in by_key):
        probe = setup.probe or device_probe()
        peak = matmul_flops(1e3 * by_key[setup.name, MATMUL], probe)
        flops = step_flops(setup.config, setup.batch_size, setup.length)
        for (name, how), seconds in by_key.items():
            if name == setup.name and how != MATMUL:
                words.append(
                    f"{name}, {how}: {setup.num_tokens / seconds:,.0f} tokens/s, "
                    f"{100 * flops / seconds / peak:.0f} % of the {peak / 1e9:,.0f} GFLOP/s of a "
                    f"{probe.side}x{probe.side} product"
                )
        rate = flops / by_key[setup.name, "jax dispatch"]
    return words + padding_words() + _level_words(rows, base, rate)


def padding_words() -> list[str]:
    """Share of padding in the batches of inputs as long as those of real tasks, by buckets."""
    words = []
    for task, (mean, deviation, num) in TEXT_LENGTHS.items():
        drawn = np.random.default_rng(0).lognormal(mean, deviation, num)
        length = np.clip(np.round(drawn), 3, LEVEL_LENGTH).astype(np.int32)
        shares = []
        for buckets in (1, FinetuneConfig().buckets):
            widths = bucket_widths(int(length.max()), buckets)
            plan = plan_level(jax.random.key(0), length, FinetuneConfig(), widths)
            shares.append(f"{100 * padding_waste(length, plan):.0f} % in {buckets}")
        words.append(
            f"padding, inputs as long as those of {task}, up to {LEVEL_LENGTH} tokens: "
            f"{' bucket and '.join(shares)} buckets"
        )
    return words


def _level_words(rows: Sequence[Row], base: BertConfig, rate: float) -> list[str]:
    """What pruning and the flow of the largest network take of a level's time."""
    config = FinetuneConfig(epochs=LEVEL_EPOCHS)
    num_steps = config.level_steps(TEXT_LENGTHS["RTE"][2])
    level = num_steps * step_flops(base, config.batch_size, LEVEL_LENGTH) / rate
    fastest: dict[str, float] = {}
    for row in rows:
        if row.part in ("pruning", "reduction") and row.name == "BERT-base-like":
            fastest[row.part] = min(row.median / 1e3, fastest.get(row.part, np.inf))
    basis = (
        f"{LEVEL_EPOCHS} epochs of RTE, {num_steps} steps of {config.batch_size}x{LEVEL_LENGTH} at "
        f"the FLOP/s of the encoder above: {level / 60:.0f} minutes"
    )
    words = []
    for part, seconds in fastest.items():
        share = seconds / level
        words.append(
            f"{part} of 85M weights: {100 * share:.2g} % of a level of BERT-base ({basis}), aim at "
            f"most {100 * MOST_OF_A_LEVEL:.0f} %: {'met' if share <= MOST_OF_A_LEVEL else 'missed'}"
        )
    return words
