import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import benchmark, benchmark_cases, benchmark_torch
from experiments.benchmark_rows import Case, Ratio, Row, aims, measure
from imp_rg.imp.prune import SAMPLE_SIZE, prune_masks_on_host

EXPECTED = {
    ("resnet14 8x8x1 width 0.25", f"jax {driver} {strategy}", num)
    for driver in ("dispatch", "scan")
    for strategy, num in (("loop", 1), ("loop", 2), ("threads", 2))
}
EXPECTED |= {("lenet8 4x4x1", how, num) for _, how, num in EXPECTED}
EXPECTED |= {("lenet8 4x4x1", "jax scan vmap", num) for num in (1, 2)}
EXPECTED |= {("tiny", how, 1) for how in ("host", "device", "M_i and P_i")}


def test_smoke_run_writes_every_row_and_says_that_torch_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "is_available", lambda: False)
    monkeypatch.setattr(benchmark_cases, "is_available", lambda: False)
    config = dataclasses.replace(benchmark.PRESETS["smoke"], out=tmp_path)
    assert benchmark.run(config) == tmp_path
    assert capsys.readouterr().out.count("PyTorch is not installed: no comparison with it\n") == 1
    result = json.loads((tmp_path / "benchmark.json").read_text())
    assert {(r["name"], r["how"], r["num_seeds"]) for r in result["rows"]} == EXPECTED
    assert len(result["rows"]) == len(EXPECTED)
    assert all(0 < r["minimum"] <= r["median"] <= r["maximum"] for r in result["rows"])
    # One program a driver, two vmapped ones, device pruning and the flow.
    assert sum(r["compile_seconds"] is not None for r in result["rows"]) == 2 + 4 + 1 + 1
    assert result["ratios"] == [] and 0.1 < result["peak_memory_gb"] < 50
    markdown = (tmp_path / "benchmark.md").read_text()
    assert markdown.count("\nsteps | ") == 14 and markdown.count("\npruning | ") == 2


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
    words = aims([row], [two_seeds, two_seeds._replace(num_seeds=1)])
    assert [line.rsplit(": ", 1)[1] for line in words] == verdicts


def test_leaf_shapes_have_the_sizes_the_table_names():
    millions = [sum(map(np.prod, s)) / 1e6 for s in benchmark.LEAF_SHAPES.values()]
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


def test_torch_network_is_ours():
    torch = pytest.importorskip("torch")
    spec = benchmark_torch.TorchSpec(3, 1.0, (32, 32, 3), 4, True, 1)
    network = benchmark_torch._Network(torch, spec, "cpu")
    assert sum(p.numel() for p in network.params) == 272_474
    take_step = benchmark_torch.make_step(torch, spec)
    assert np.isfinite(float(take_step()))


@pytest.mark.parametrize(("name", "value"), [("repeats", 0), ("seeds", (0, 1)), ("only", ())])
def test_settings_outside_their_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}: must"):
        benchmark.Config(**{name: value})
