"""From settings to everything a run on one task needs: texts, encoder, blocks, scheme.

In: a config and a task. Out: a `Setup`; whatever is wrong with a setting is said here, before
anything runs.
"""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from experiments.shell.settings import identity
from experiments.studies.language.config import Config
from experiments.trunk.assemble import Setup
from experiments.trunk.progress import LevelProgress
from imp_rg.blocks import BlockPartition, parse_blocks
from imp_rg.config import require
from imp_rg.data.text import TextData, TextSplit, load_text
from imp_rg.data.text.batches import TextBatch, padding_waste
from imp_rg.data.text.tokenize import load_tokenizer
from imp_rg.foreign.bert_variables import LoadedBert, find_checkpoint, load_bert, read_config
from imp_rg.imp.execution import Execution
from imp_rg.imp.finetune import (
    FinetuneConfig,
    bucket_widths,
    make_finetune_fn,
    make_rewind_fn,
    plan_level,
)
from imp_rg.imp.levels import Scheme, assemble_scheme
from imp_rg.imp.losses import LOSSES, make_mask_fn
from imp_rg.imp.operator import start_at
from imp_rg.imp.prune import make_schedule
from imp_rg.imp.text_measure import make_text_measure_fn
from imp_rg.models.bert import BertModel, make_bert
from imp_rg.pytree import from_flat, leaf_paths, ones_masks, to_flat
from imp_rg.runs.checkpoints import digest
from imp_rg.types import Batch, Key, TrainFn, Variables, compute_dtype

TIMED_STEPS = 4


def load_texts(config: Config) -> list[TextData]:
    """Reads and checks the texts of all tasks, before the first one is run."""
    folder = find_checkpoint(config.checkpoint)
    sizes, tokenizer = read_config(folder), load_tokenizer(folder)
    tokenizer.check_embedding(sizes.num_words)
    longest = max(map(config.length, config.task_list))
    rule = f"must not exceed the {sizes.num_positions} tokens of the checkpoint"
    require(longest <= sizes.num_positions, "max_length", rule, longest)
    return [
        load_text(
            task.name,
            config.source,
            tokenizer,
            max_length=config.length(task),
            stride=config.span.stride,
            data_dir=config.data_dir,
        )
        for task in config.task_list
    ]


def prepare(config: Config, text: TextData, console: Console) -> Setup:
    """Reads the checkpoint and builds the scheme of one task; the settings are checked then."""
    train = config.train_config(text.task)
    folder = find_checkpoint(config.checkpoint)
    model = make_bert(
        read_config(folder),
        kind=text.task.kind,
        num_outputs=text.task.num_outputs,
        dtype=compute_dtype(config.dtype),
        remat=config.remat,
    )
    model = model if config.pooler == "pruned" else model.with_dense_pooler()
    loaded = load_bert(jax.random.key(0), folder, model)
    about = _about(text, train, loaded)
    blocks = model.partition(parse_blocks(config.blocks))
    progress = LevelProgress(
        seeds=config.level_config(text.task, num_steps=1).seed_list,
        num_levels=config.levels + 1,
        steps=range(train.level_steps(len(text.train.labels))),
        console=console,
        metric=_metric_name(text),
    )
    return Setup(
        train_data=_on_device(text.train),
        test_data=_on_device(text.validation),
        init=_make_init(model, loaded),
        apply_fn=model.make_apply_fn(),
        shapes=model.shapes(),
        blocks=blocks,
        execution=Execution("dispatch", config.replicates),
        progress=progress,
        scheme=_make_scheme(config, text, model, blocks, progress),
        about=about,
        summary=_summary(text, about),
    )


def _make_scheme(
    config: Config,
    text: TextData,
    model: BertModel,
    blocks: BlockPartition,
    progress: LevelProgress,
) -> Scheme:
    train, num_levels = config.train_config(text.task), config.levels + 1
    apply_fn, widths = model.make_apply_fn(), input_widths(text, train)
    leaf_sizes = tuple(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(model.shapes()))
    return assemble_scheme(
        _make_train_fn(apply_fn, text, train, num_levels=num_levels, widths=widths),
        make_text_measure_fn(apply_fn, text.task, text.validation, widths=widths),
        start_fn=start_at,
        blocks=blocks,
        schedule=make_schedule(blocks, leaf_sizes, config.prune, num_levels=num_levels),
        execution=Execution("dispatch", config.replicates),
        epoch_steps=train.epoch_steps(len(text.train.labels)),
        rewind_fn=make_rewind_fn(train, blocks.prunable),
        on_progress=progress.on_progress,
    )


def _make_train_fn(apply_fn, text: TextData, train: FinetuneConfig, **settings) -> TrainFn:
    sample_fn = None if text.masking is None else make_mask_fn(text.masking)
    loss_fn = LOSSES[text.task.kind]
    return make_finetune_fn(apply_fn, loss_fn, config=train, sample_fn=sample_fn, **settings)


def input_widths(text: TextData, train: FinetuneConfig) -> tuple[int, ...]:
    """Tokens to which inputs are padded; the last width holds the longest of both splits."""
    longest = max(int(split.tokens.length.max()) for split in (text.train, text.validation))
    return bucket_widths(longest, train.buckets)


def _on_device(split: TextSplit) -> Batch:
    tokens = jax.tree.map(jnp.asarray, split.tokens)
    return Batch(x=tokens, y=jnp.asarray(split.labels))


def _make_init(model: BertModel, loaded: LoadedBert) -> Callable[[Key], Variables]:
    """Initial variables of a replicate: the checkpoint, and a head of its own."""
    read = to_flat(loaded.variables.params)

    def init(key):
        params = model.init(key).params
        drawn = dict(zip(leaf_paths(params), jax.tree.leaves(params), strict=True))
        flat = {path: drawn[path] if path in loaded.fresh else read[path] for path in read}
        return Variables(params=from_flat(flat, params), batch_stats={})

    return init


def _about(text: TextData, train: FinetuneConfig, loaded: LoadedBert) -> dict[str, Any]:
    """What config.json says of texts, checkpoint and steps beyond the settings."""
    read = {k: v for k, v in to_flat(loaded.variables.params).items() if k not in loaded.fresh}
    splits = text.train, text.validation
    waste = padding_waste(np.asarray(text.train.tokens.length), _plan(text, train))
    return {
        "checkpoint_sha256": digest(read)[:16],
        "data_sha256": _data_digest(text),
        "num_train": len(text.train.labels),
        "num_test": len(text.validation.questions or text.validation.labels),
        "num_truncated": [split.num_truncated for split in splits],
        "num_empty": [split.num_empty for split in splits],
        "widths": list(input_widths(text, train)),
        "padding_waste": round(waste, 4),
        "level_steps": train.level_steps(len(text.train.labels)),
        "metric": f"test {_metric_name(text)} (%)",
    }


def _metric_name(text: TextData) -> str:
    return text.task.metrics[0].replace("_", " ")


def _data_digest(text: TextData) -> str:
    """Names the arrays themselves: a file may change under its name."""
    sha = hashlib.sha256()
    for split in (text.train, text.validation):
        for array in (split.tokens.ids, split.tokens.types, split.tokens.length, split.labels):
            sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()[:16]


def _plan(text: TextData, train: FinetuneConfig) -> list[TextBatch]:
    """The steps of some level; their widths are much the same in all."""
    length = np.asarray(text.train.tokens.length)
    return plan_level(jax.random.key(0), length, train, input_widths(text, train))


def _summary(text: TextData, about: Mapping[str, Any]) -> str:
    """Data of a task in one line; what was cut or empty is said, not left out."""
    counts = {
        "cut to the limit": sum(about["num_truncated"]),
        "with an empty text": sum(about["num_empty"]),
    }
    lost = "".join(f", {num:,} {what}" for what, num in counts.items() if num)
    num_test = len(text.validation.labels)
    return (
        f"{text.task.name}: {about['num_train']:,} training and {num_test:,} test inputs of up to "
        f"{about['widths'][-1]} tokens{lost} · {100 * about['padding_waste']:.0f} % of the tokens "
        "computed are padding"
    )


def estimate_seconds(config: Config, texts: Sequence[TextData], setup: Setup) -> float:
    """Time of all tasks, from a few steps of the first after one that compiles.

    Time is taken as proportional to tokens.
    """
    rate = _tokens_per_second(config, texts[0], setup)
    plans = (_plan(text, config.train_config(text.task)) for text in texts)
    tokens = sum(batch.width * len(batch.rows) for plan in plans for batch in plan)
    return (config.levels + 1) * config.seeds * tokens / rate


def _tokens_per_second(config: Config, text: TextData, setup: Setup) -> float:
    train = config.train_config(text.task)
    widest = input_widths(text, train)[-1]
    train_fn = _make_train_fn(setup.apply_fn, text, train, num_levels=1, widths=(widest,))
    variables = jax.jit(setup.init)(jax.random.key(0))
    masks = ones_masks(variables.params)

    def time_steps(num_steps: int) -> float:
        began = time.monotonic()
        trained, _ = train_fn(
            jax.random.key(0), variables, masks, setup.train_data, start=0, stop=num_steps
        )
        jax.block_until_ready(trained)
        return time.monotonic() - began

    num_steps = min(TIMED_STEPS, setup.about["level_steps"])
    time_steps(1)
    return num_steps * train.batch_size * widest / time_steps(num_steps)


def resolved_settings(config: Config, text: TextData, setup: Setup) -> dict[str, Any]:
    """Every setting that makes a run what it is, flat and in JSON types.

    Left out: where run and texts lie (digests say what they hold), how the run is started, which
    files it keeps, and other tasks.
    """
    flat = identity(config) | dataclasses.asdict(config.train_config(text.task))
    for name in ("source", "data_dir", "span"):
        del flat[name]
    return flat | {
        "dataset": text.task.name,
        "model": config.checkpoint,
        "max_length": config.length(text.task),
        "stride": config.span.stride if text.task.kind == "span" else None,
        "device": jax.default_backend(),
        "block_names": list(setup.blocks.names),
        "num_listed": setup.blocks.num_listed,
        "num_prunable": sum(setup.blocks.sizes),
        **setup.about,
    }
