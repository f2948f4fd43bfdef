"""Likeness of layers in a run folder, and its rank against the size of exponents."""

from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from bert_inputs import random_tokens
from language_folder import write_uneven_checkpoint
from scipy import stats

from experiments.studies.language.similarity import (
    rank_frame,
    read_similarity,
    record_similarity,
    spearman,
)
from imp_rg.foreign.bert_variables import load_bert, read_config
from imp_rg.imp.similarity import layer_similarity
from imp_rg.models.bert import make_bert
from imp_rg.pytree import ones_masks
from imp_rg.runs.tickets import write_level


def test_weights_of_the_checkpoint_and_of_the_run(tmp_path):
    checkpoint, run = tmp_path / "tiny", tmp_path / "rte"
    checkpoint.mkdir()
    write_uneven_checkpoint(checkpoint, 2)
    model = make_bert(read_config(checkpoint))
    variables = load_bert(jax.random.key(0), checkpoint, model).variables
    trained = jax.tree.map(lambda x: x * 1.5, variables)
    run.joinpath("levels", "seed0").mkdir(parents=True)
    level = run / "levels" / "seed0" / "level00.safetensors"
    write_level(level, trained, ones_masks(trained.params), {"level": "0"})
    tokens = random_tokens([5, 3, 6, 4] * 3, 6, num_words=40)
    record_similarity(run, str(checkpoint), tokens, task="rte")
    frame = read_similarity(tmp_path, ["mrpc", "rte"])
    assert frame is not None
    assert list(frame["weights"]) == ["pretrained"] * 2 + ["trained"] * 2
    assert list(frame["layer"]) == ["layer0", "layer1"] * 2
    found = layer_similarity(model, trained.params, tokens)
    np.testing.assert_allclose(frame["cka"][2:], found.cka, atol=1e-6)
    np.testing.assert_allclose(frame["attention"][2:], found.attention, atol=1e-6)
    assert abs(frame["cka"][0] - frame["cka"][2]) > 1e-3  # the checkpoint is another network
    (run / "similarity.csv").write_text("kept")
    record_similarity(run, str(checkpoint), tokens, task="rte")
    assert (run / "similarity.csv").read_text() == "kept"


def test_no_task_was_measured(tmp_path):
    assert read_similarity(tmp_path, ["rte"]) is None


def test_spearman_against_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 6))
    rho, p = spearman(x, y)
    expected: Any = stats.spearmanr(x, y)
    assert rho == pytest.approx(expected.statistic)
    assert p * 720 == pytest.approx(round(p * 720))
    assert spearman(np.arange(6.0), np.arange(6.0) ** 3)[1] == pytest.approx(2 / 720)
    assert spearman(np.arange(12.0), np.arange(12.0))[1] == pytest.approx(1 / 5041)
    assert np.isnan(spearman(np.ones(4), np.arange(4.0))[0])


def test_likeness_is_ranked_against_size():
    table = pd.DataFrame(
        {"task": "rte", "block": ["layer0", "layer1", "layer2"], "sigma": [-0.3, 0.2, 0.1]}
    )
    likeness = {"cka": [0.1, 0.2, 0.3], "cka_first": [0.3, 0.2, 0.1], "attention": [np.nan, 1, 2]}
    key = {"task": "rte", "weights": "pretrained", "seed": 0, "layer": list(table["block"])}
    ranks = rank_frame(pd.DataFrame(key | likeness), table).set_index("measure")
    assert ranks["rho"].to_dict() == pytest.approx({"cka": -1, "cka_first": 1, "attention": -1})
    assert ranks["num_layers"].to_dict() == {"cka": 3, "cka_first": 3, "attention": 2}
