import dataclasses
import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from bert_inputs import random_tokens

from experiments import benchmark
from experiments.studies.benchmark import cases, findings, language, pytorch_bert, roofline, vision
from experiments.studies.benchmark.config import MINILM
from experiments.studies.benchmark.findings import aims
from experiments.studies.benchmark.rows import Case, Ratio, Row, measure
from imp_rg.imp.prune import SAMPLE_SIZE, prune_masks_on_host
from imp_rg.models.bert import make_bert
from imp_rg.models.bert_config import BertConfig

EXPECTED = {
    ("resnet14 8x8x1 width 0.25", f"jax {driver} {strategy}", num)
    for driver in ("dispatch", "scan")
    for strategy, num in (("loop", 1), ("loop", 2), ("threads", 2))
}
EXPECTED |= {("lenet8 4x4x1", how, num) for _, how, num in EXPECTED}
EXPECTED |= {("lenet8 4x4x1", "jax scan vmap", num) for num in (1, 2)}
EXPECTED |= {("tiny encoder 4x6", how, 1) for how in ("jax dispatch", "matrix product")}
EXPECTED |= {
    ("resnet14 8x8x3 width 0.25 batch 8", how, num)
    for how, num in (
        ("jax dispatch loop, chosen", 1),
        ("jax dispatch threads, chosen", 2),
        ("matrix product", 1),
        ("memory: a / 2 + b", 1),
    )
}
EXPECTED |= {("tiny", how, 1) for how in ("host", "device", "M_i and P_i")}


def test_smoke_run_writes_every_row_and_says_that_torch_is_missing(tmp_path, monkeypatch, capsys):
    for module in (benchmark, cases, language, vision):
        monkeypatch.setattr(module, "is_available", lambda: False)
    config = dataclasses.replace(benchmark.PRESETS["smoke"], out=tmp_path)
    assert benchmark.run(config) == tmp_path
    assert capsys.readouterr().out.count("PyTorch is not installed: no comparison with it\n") == 1
    result = json.loads((tmp_path / "benchmark.json").read_text())
    assert {(r["name"], r["how"], r["num_seeds"]) for r in result["rows"]} == EXPECTED
    assert len(result["rows"]) == len(EXPECTED)
    assert all(0 < r["minimum"] <= r["median"] <= r["maximum"] for r in result["rows"])
    # One program a driver, two vmapped ones, step and ceilings, encoder and product, device pruning
    # and the flow.
    assert sum(r["compile_seconds"] is not None for r in result["rows"]) == 2 + 4 + 3 + 2 + 1 + 1
    assert result["encoders"][0]["tokens_per_second"] > 0 and len(result["padding"]) == 4
    assert result["ratios"] == [] and 0.1 < result["peak_memory_gb"] < 50
    markdown = (tmp_path / "benchmark.md").read_text()
    assert markdown.count("\nsteps | ") == 14 and markdown.count("\npruning | ") == 2
    assert "PREDICTION" in markdown and "NVIDIA's data sheet" in markdown
    throughput = pd.read_csv(tmp_path / "throughput.csv")
    assert throughput["replicates"].tolist() == [1, 2]
    np.testing.assert_allclose(throughput["images_per_second"] * throughput["step_ms"], 8e3)
    assert len(pd.read_csv(tmp_path / "benchmark.csv")) == len(EXPECTED)


def test_what_was_measured_before_a_stop_is_written(tmp_path, monkeypatch):
    def stopped(*args, **kwargs):
        raise SystemExit(130)

    monkeypatch.setattr(benchmark, "flow_cases", stopped)
    config = dataclasses.replace(
        benchmark.PRESETS["smoke"], only=("pruning", "reduction"), out=tmp_path
    )
    with pytest.raises(SystemExit):
        benchmark.run(config)
    result = json.loads((tmp_path / "benchmark.json").read_text())
    assert {row["how"] for row in result["rows"]} == {"host", "device"}


def fake_cases(log):
    def case(name, role, divisor, elsewhere=None):
        def call():
            log.append(name)
            return elsewhere

        return Case("steps", "net", name, 2, divisor, name, call, role)

    return [
        case("ours", "ours", 4),
        case("slow", "theirs", 1),
        case("fast", "theirs", 1000, elsewhere=3.0),
    ]


def test_cases_alternate_and_ratios_are_those_of_neighbours():
    log = []
    rows, (ratio,) = measure(fake_cases(log), repeats=5)
    assert log == ["ours", "slow", "fast"] * 6
    ours, slow, fast = rows
    assert fast.median < slow.median and ratio.theirs == "fast"
    each = np.array(ours.wall) / np.array(fast.wall)
    assert (ratio.median, ratio.minimum, ratio.maximum) == (np.median(each), min(each), max(each))
    assert ours.median == np.median(ours.wall) and len(ours.wall) == 5
    # CPU time of other processes counts: 3 s over 1000 steps.
    assert fast.cpu_median == pytest.approx(3.0, rel=1e-2)


@pytest.mark.parametrize(
    ("ratio", "milliseconds", "verdicts"),
    [(1.7, 290.0, ["met", "met"]), (2.1, 310.0, ["missed", "missed"])],
)
def test_aims_are_judged_from_the_numbers(ratio, milliseconds, verdicts):
    two_seeds = Ratio("resnet20 32x32x3", "jax", "torch", 2, ratio, ratio, ratio)
    ms = milliseconds
    row = Row("reduction", "BERT-base-like", "M_i and P_i", 1, ms, ms, ms, ms, None, [ms])
    found = aims([row], [two_seeds, two_seeds._replace(num_seeds=1)])
    assert [aim.verdict for aim in found] == verdicts
    assert [aim.value for aim in found] == [ratio, milliseconds]
    assert found[0].text().endswith(f"aim at most 2 on 2 CPU cores: {verdicts[0]}")


def test_leaf_shapes_have_the_sizes_the_table_names():
    millions = [sum(map(np.prod, s)) / 1e6 for s in cases.LEAF_SHAPES.values()]
    np.testing.assert_allclose(millions, [1.0, 23.4, 84.9], rtol=0.01)


@pytest.mark.parametrize("kind", ["smooth", "periodic", "ties"])
def test_host_pruning_is_exact_whatever_its_sample_sees(kind):
    """``periodic`` hides the small scores from every strided sample."""
    rng = np.random.default_rng(0)
    size = 5 * SAMPLE_SIZE
    scores = np.abs(rng.standard_normal(size, np.float32))
    if kind == "periodic":
        scores[::5] += 10
    elif kind == "ties":
        scores = np.round(scores, 1)
    masks = np.ones(size, bool)
    count = size // 5
    (new,) = prune_masks_on_host(
        [jnp.asarray(scores)],
        [jnp.asarray(masks)],
        prunable=(True,),
        num_remove=jnp.array([count]),
    )
    expected = masks.copy()
    expected[np.argsort(scores, kind="stable")[:count]] = False
    np.testing.assert_array_equal(new, expected)


def test_operations_are_those_that_xla_counts():
    """Of the forward pass, a third of a step; XLA also counts what is not a matrix product."""
    config = BertConfig(
        num_words=30, width=64, num_layers=2, num_heads=2, intermediate_width=256, dropout=0.0
    )
    model = make_bert(config)
    tokens = random_tokens([16] * 4, 16, num_words=30)
    forward = jax.jit(partial(model.make_apply_fn(), is_training=False))
    variables = model.init(jax.random.key(0))
    cost: Any = forward.lower(variables, tokens).compile().cost_analysis()
    counted = language.step_flops(config, 4, 16) / 3
    assert 0.8 < counted / cost["flops"] < 1.0


def language_row(part, name, how, milliseconds):
    ms = milliseconds
    return Row(part, name, how, 1, ms, ms, ms, ms, None, [ms])


def test_an_encoder_and_its_level_by_hand():
    setup = dataclasses.replace(MINILM[-1], probe=roofline.CPU_PROBE)
    name = setup.name
    assert name == "MiniLM-like 32x128"
    flops = language.step_flops(setup.config, 32, 128)
    # Six layers of 1.77M weights and attention over 128 tokens, three passes, 4096 tokens.
    assert flops == pytest.approx(3 * 4096 * 6 * (2 * 1_769_472 + 4 * 128 * 384), rel=1e-3)
    rows = [
        language_row("language", name, "jax dispatch", 2048.0),
        language_row("language", name, "matrix product", 1e3 * 2 * 2048**3 / 400e9),
        language_row("pruning", "BERT-base-like", "host", 300.0),
    ]
    encoders = MINILM[:1] + (setup,)
    tables = findings.tables(rows, [], encoders)
    (record,) = tables["encoders"]
    assert record["tokens_per_second"] == pytest.approx(2000)
    assert record["product_share"] == pytest.approx(flops / 2.048 / 400e9)
    assert record["gflops_of_product"] == pytest.approx(400)
    padding = pd.DataFrame(tables["padding"]).set_index(["lengths_of", "buckets"])["padding"]
    assert padding["RTE", 4] < padding["RTE", 1] < 0.6 and len(padding) == 4
    milliseconds, share = aims(rows, [], (), encoders)
    ratio = language.step_flops(BertConfig(), 32, 128) / flops
    assert (milliseconds.value, milliseconds.verdict) == (300.0, "met")
    assert share.value == pytest.approx(100 * 0.3 / (234 * 2.048 * ratio))
    assert share.verdict == "met" and findings.tables([], [], [setup]) == {}


def test_torch_encoder_is_ours():
    torch = pytest.importorskip("torch")
    config = BertConfig(
        num_words=30, width=8, num_layers=2, num_heads=2, intermediate_width=16, dropout=0.5
    )
    network = pytorch_bert.make_encoder(torch, config)
    num = sum(leaf.size for leaf in jax.tree.leaves(make_bert(config).shapes()))
    assert sum(p.numel() for p in network.parameters()) == num
    spec = pytorch_bert.TorchBertSpec(config, 4, 6, 1)
    take_step = pytorch_bert.make_bert_step(torch, spec)
    losses = [float(take_step()) for _ in range(3)]
    assert np.isfinite(losses).all() and len(set(losses)) == 3


@pytest.mark.parametrize(("name", "value"), [("repeats", 0), ("seeds", (0, 1)), ("only", ())])
def test_settings_outside_their_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}: must"):
        benchmark.Config(**{name: value})
