import dataclasses
import multiprocessing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies.benchmark import findings, pytorch, pytorch_resnet, roofline, vision
from experiments.studies.benchmark.cases import torch_spec
from experiments.studies.benchmark.config import TINY_VISION
from experiments.studies.benchmark.hlo import program_bytes
from experiments.studies.benchmark.roofline import MATMUL, TRIAD, Ceilings, Layer, Program
from experiments.studies.benchmark.rows import Ratio, Row
from experiments.studies.benchmark.vision import RESNET_20, RESNET_50
from imp_rg.imp import execution
from imp_rg.models import make_model

STAGE_WEIGHTS = (212_992, 1_212_416, 7_077_888, 14_942_208)
STAGE_ENTRIES = (0, 256 * 128, 512 * 256, 1024 * 512)
"""Weights of each stage of ResNet-50, and of the one that still sees the stage before's pixels."""

GPU_TEXT = """HloModule jit_step

%region (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%graph (x.1: bf16[4,8]) -> bf16[4,8] {
  %x.1 = bf16[4,8]{1,0} parameter(0)
  ROOT %relu.1 = bf16[4,8]{1,0} fusion(%x.1), kind=kLoop, calls=%region
}

ENTRY %main (x: bf16[4,8], w: bf16[8,8]) -> bf16[4,8] {
  %x = bf16[4,8]{1,0} parameter(0), metadata={op_name="x"}
  %w = bf16[8,8]{1,0} parameter(1)
  %conv = (bf16[4,8]{1,0}, u8[999]{0}) custom-call(%x, %w), custom_call_target="__cudnn$convForward"
  %out = bf16[4,8]{1,0} get-tuple-element(%conv), index=0
  %call = bf16[4,8]{1,0} call(%out), to_apply=%graph
  ROOT %both = bf16[4,8]{1,0} fusion(%call, %call, /*index=2*/%x), kind=kLoop, calls=%region
}
"""


def test_resnet50_by_hand():
    """Weights times positions: 1024, 256, 64 and 16 of the four stages."""
    layers = vision.setup_layers(RESNET_50)
    positions = (1024, 256, 64, 16)
    for stage in range(4):
        own = [layer for layer in layers if layer.path.startswith(f"stage{stage + 1}/")]
        assert sum(layer.num_weights for layer in own) == STAGE_WEIGHTS[stage]
        # The first convolution of a stage runs before its stride, on four times the positions.
        by_hand = (
            STAGE_WEIGHTS[stage] * positions[stage] + 3 * STAGE_ENTRIES[stage] * (positions[stage])
        )
        assert sum(layer.num_macs for layer in own) == by_hand
    stem, head = (next(x for x in layers if x.path == name) for name in ("stem", "head"))
    assert stem == Layer("stem", 1728 * 1024, 3 * 1024, 64 * 1024, 1728)
    assert head == Layer("head", 20_480, 2048, 10, 20_480)
    assert len(layers) == 54
    assert roofline.step_flops(layers, 256) == 6 * 256 * 1_297_829_888


def test_operations_are_those_that_xla_counts():
    """XLA leaves out products with padding, and counts what is no convolution."""
    model = make_model("resnet20", num_classes=10)
    x, variables = (
        np.zeros((2, 32, 32, 3), np.float32),
        jax.eval_shape(lambda: model.init(jax.random.key(0), (32, 32, 3))),
    )
    forward = jax.jit(model.make_apply_fn(np.ones(3), np.ones(3)), static_argnames="is_training")
    cost: Any = forward.lower(variables, x, is_training=False).cost_analysis()
    layers = vision.setup_layers(RESNET_20)
    assert 0.9 < cost["flops"] / (roofline.step_flops(layers, 2) / 3) < 1.05


def test_bytes_of_a_program_with_library_calls():
    """Call: image, kernel, result; graph: one in, one out; last: two different in, one out."""
    image, kernel = 2 * 32, 2 * 64
    assert program_bytes(GPU_TEXT) == (2 * image + kernel) + 2 * image + 3 * image
    with pytest.raises(ValueError, match="text: must be a compiled program"):
        program_bytes("HloModule nothing")


def test_bytes_of_a_program_are_those_that_xla_counts():
    x = np.ones((32, 64), np.float32)
    compiled = jax.jit(lambda x: jnp.tanh(x @ x.T).sum(0)).lower(x).compile()
    program = roofline.inspect(compiled)
    assert program.bytes_moved == pytest.approx(program.bytes_by_xla, rel=0.02)
    assert program.memory_gb > x.nbytes / 1e9


def test_roof_of_one_layer_by_hand():
    layer = Layer("conv", num_macs=1000, num_in=20, num_out=30, num_weights=50)
    assert roofline.step_flops([layer], 4) == 24_000
    floor = roofline.floor_bytes([layer], 4, 2)
    assert floor == 2 * (4 * (3 * 20 + 5 * 30) + 2 * 50) + 24 * 50
    device = Ceilings("toy", flops=24e6, bandwidth=1e6, bytes_per_element=2)
    roof = roofline.roof(24_000, floor, device)
    assert (roof.compute_ms, roof.memory_ms) == (1.0, floor / 1e3)
    assert roof.binding == "memory" and roof.ms == roof.memory_ms
    assert roofline.roof(24_000, 999, device).binding == "compute"


def row(setup, how, milliseconds, num_seeds=1):
    ms = milliseconds
    return Row("vision", setup.name, how, num_seeds, ms, ms, ms, ms, None, [ms], 1.5)


def ceiling_rows(setup):
    """100 TFLOP/s, and the bandwidth of the probe's arrays in a millisecond."""
    milliseconds = 1e3 * 2 * 2048**3 / 100e12
    return [row(setup, MATMUL, milliseconds), row(setup, TRIAD, 1.0)]


@pytest.fixture
def program(monkeypatch):
    """A step that moves what takes 40 ms, more than its arithmetic at batch 256."""
    moved = 40.0 * 12 * roofline.CPU_PROBE.num_elements
    fake = Program(flops=1.0, bytes_by_xla=1.0, bytes_moved=moved, memory_gb=2.0)
    monkeypatch.setattr(findings, "step_program", lambda setup: fake)
    return fake


@pytest.mark.parametrize(
    ("milliseconds", "theirs", "on_gpu", "verdict"),
    [
        (50.0, 50.0, True, "met"),  # 80 % of the roof
        (80.0, 112.0, True, "met"),  # half of the roof, 1.4 times PyTorch's
        (80.0, 96.0, True, "missed"),
        (50.0, 50.0, False, "no accelerator"),
    ],
)
def test_aims_of_resnet50(program, monkeypatch, milliseconds, theirs, on_gpu, verdict):
    monkeypatch.setattr(findings, "is_accelerator", lambda: on_gpu)
    rows = [row(RESNET_50, "jax scan loop, chosen", milliseconds), *ceiling_rows(RESNET_50)]
    rows += [row(RESNET_50, "jax dispatch loop", 200.0), row(RESNET_50, "torch bf16", theirs)]
    ratio = milliseconds / theirs
    ratios = [Ratio(RESNET_50.name, "jax", "torch", 1, ratio, ratio, ratio)]
    share, speedup = findings.aims(rows, ratios, [RESNET_20, RESNET_50])
    assert "the memory roof" in share.what and share.value == pytest.approx(40 / milliseconds)
    assert speedup.value == pytest.approx(theirs / milliseconds)
    assert (share.verdict, share.limit) == (verdict, 0.6)
    assert (speedup.verdict, speedup.limit) == (verdict, 1.3)


@pytest.mark.parametrize(("ratio", "verdict"), [(0.3, "met"), (0.4, "missed")])
def test_aims_of_eight_replicates(program, monkeypatch, ratio, verdict):
    monkeypatch.setattr(findings, "is_accelerator", lambda: True)
    name = RESNET_20.name
    ratios = [Ratio(name, "jax", "torch", num, r, r, r) for num, r in ((1, 0.1), (8, ratio))]
    rows = [row(RESNET_20, "jax scan vmap", 1.0, 8)]
    (aim,) = findings.aims(rows, ratios, [RESNET_20])
    assert (aim.value, aim.limit, aim.verdict) == (pytest.approx(1 / ratio), 3.0, verdict)
    (aim,) = findings.aims(rows, [], [RESNET_20])
    assert np.isnan(aim.value) and aim.verdict == "missed"


def test_tables_by_hand(program):
    rows = [row(RESNET_50, "jax scan loop, chosen", 64.0), row(RESNET_50, "torch bf16", 128.0)]
    tables = findings.tables(rows + ceiling_rows(RESNET_50), [RESNET_20, RESNET_50], [])
    ours, theirs = tables["throughput"]
    assert (ours["images_per_second"], theirs["images_per_second"]) == (4000, 2000)
    assert ours["level_seconds"] == pytest.approx(31_850 * 0.064)
    assert (ours["roof_share"], theirs["roof_share"]) == (pytest.approx(40 / 64), None)
    (record,) = tables["roofline"]
    assert record["compute_ms"] == pytest.approx(1993.466707968 / 100)
    assert (record["binding"], record["memory_ms"]) == ("memory", pytest.approx(40))
    h200 = [p for p in tables["prediction"] if "data sheet" in p["device"]]
    assert [p["network"] for p in h200] == [RESNET_20.name, RESNET_50.name]
    at_most = 256 / (14.724292864 / 4800)
    assert h200[1]["images_per_second_at_most"] == pytest.approx(at_most)
    assert len(tables["prediction"]) == 3
    assert findings.tables([], [RESNET_50], []) == {}


def test_on_an_accelerator_all_executions_and_variants_are_measured(monkeypatch):
    for module in (vision, execution):
        monkeypatch.setattr(module, "is_accelerator", lambda: True)
    assert vision.networks() == (RESNET_20, RESNET_50)
    one, eight = (vision._executions(RESNET_20, num) for num in (1, 8))
    assert one == [("scan", "loop"), ("dispatch", "loop")]
    assert set(eight) == {("scan", "loop"), ("scan", "vmap")}
    names = [spec.variant for spec, num_seeds in vision.torch_variants(RESNET_50)]
    assert names[0] == "channels_last bf16 compiled CUDA graphs" and len(set(names)) == 9


def test_a_variant_that_pytorch_cannot_run_is_left_out(monkeypatch):
    class Seeds:
        def __init__(self, make_step, spec, num_seeds):
            self.is_fine, self.num_seeds = spec.is_channels_last, num_seeds

        def wait(self):
            if not self.is_fine:
                raise RuntimeError("torch: no kernel")

        def run(self, num_steps):
            raise AssertionError(num_steps)

        memory_gb = run

        def close(self):
            closed.append(self)

    closed, said = [], []
    monkeypatch.setattr(vision, "TorchSeeds", Seeds)
    monkeypatch.setattr(vision, "is_available", lambda: True)
    monkeypatch.setattr(vision, "step_program", lambda setup: None)
    monkeypatch.setattr(vision, "num_usable_cores", lambda: 1)
    with vision.vision_cases(TINY_VISION, said.append) as cases:
        theirs = [case.how for case in cases if case.role == "theirs"]
    assert theirs == ["torch channels_last fp32 eager, 1 x 1 threads"]
    assert said == ["  torch contiguous fp32 eager, 1 x 1 threads left out: torch: no kernel"]
    assert len(closed) == 2


@pytest.mark.parametrize("setup", [RESNET_20, RESNET_50], ids=lambda setup: setup.model)
def test_torch_network_is_ours(setup):
    torch = pytest.importorskip("torch")
    network = pytorch_resnet.make_network(torch, torch_spec(setup, 1))
    shapes = make_model(setup.model, num_classes=10).shapes(setup.input_shape)
    num = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert sum(p.numel() for p in network.parameters()) == num


@pytest.fixture
def one_torch_thread():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(before)


@pytest.mark.parametrize("is_channels_last", [True, False])
def test_a_torch_step_in_each_layout(is_channels_last, one_torch_thread):
    setup = dataclasses.replace(TINY_VISION, model="resnet50", width=0.05)
    spec = torch_spec(setup, 1)._replace(depths=(1, 1, 1, 1), is_bf16=True)
    spec = spec._replace(is_channels_last=is_channels_last)
    take_step = pytorch_resnet.make_step(one_torch_thread, spec)
    losses = [float(take_step()) for _ in range(2)]
    assert np.isfinite(losses).all() and losses[0] != losses[1]


@pytest.mark.parametrize("problem", [None, "no such kernel\nand more"])
def test_a_torch_process_warms_up_and_answers(problem, monkeypatch):
    torch, taken = pytest.importorskip("torch"), []
    # What a process of its own may set for good.
    monkeypatch.setattr(pytorch.signal, "signal", lambda *args: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda num: None)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "4")

    def make_step(torch, spec):
        if problem is not None:
            raise NotImplementedError(problem)
        return lambda: taken.append(spec)

    ours, theirs = multiprocessing.Pipe()
    for num_steps in (2, 0):
        ours.send(num_steps)
    spec = torch_spec(TINY_VISION, 1)
    pytorch._serve(theirs, make_step, spec, 0)
    if problem is not None:
        assert ours.recv() == "NotImplementedError: no such kernel" and not taken
        return
    assert ours.recv() is None and len(taken) == pytorch.WARM_UP_STEPS + 2
    seconds, memory = ours.recv()
    assert seconds >= 0 and 0.05 < memory < 50
