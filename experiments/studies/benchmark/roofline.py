"""How fast a training step could run: operations, bytes, and what the device can do of each.

In: a network and a batch, or a compiled program; and a device, measured or as its data sheet has
it. Out: the time below which no step can be, and which of arithmetic and memory sets it.

Both ceilings are measured in turn with the steps, in the type that the steps compute in: a large
matrix product, and ``a / 2 + b`` on arrays larger than any cache, three passes over memory.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.studies.benchmark.hlo import program_bytes
from experiments.studies.benchmark.rows import Case, Row
from imp_rg.models import Model
from imp_rg.models.base import Conv
from imp_rg.types import is_accelerator

MATMUL, TRIAD = "matrix product", "memory: a / 2 + b"
"""How the rows are named that say what the machine can do."""

_PASSES = 3
"""Over the operands of a matrix product in training: forward, and both gradients."""


class Ceilings(NamedTuple):
    """What a device can do.

    Attributes:
      device: Name, and where the numbers are from.
      flops: Floating-point operations a second of matrix products.
      bandwidth: Bytes a second from and to memory.
      bytes_per_element: Of the type that is computed in.
    """

    device: str
    flops: float
    bandwidth: float
    bytes_per_element: int


H200 = Ceilings("H200, dense bf16, by NVIDIA's data sheet", 989e12, 4.8e12, 2)
"""NVIDIA H200 Tensor Core GPU data sheet: 1,979 TFLOP/s with sparsity, half of it without."""


class Layer(NamedTuple):
    """A convolution or a dense layer, by the numbers of one example.

    Attributes:
      path: Of the module, ``stage1/block0/conv1``.
      num_macs: Multiplications with a weight.
      num_in: Elements that come in.
      num_out: Elements that go out.
      num_weights: Of the kernel.
    """

    path: str
    num_macs: int
    num_in: int
    num_out: int
    num_weights: int


class Program(NamedTuple):
    """A compiled step, as XLA describes it.

    Attributes:
      flops: Operations by XLA's count, all of them; NaN or too few where it does not know calls.
      bytes_by_xla: Bytes by XLA's count, likewise.
      bytes_moved: Bytes its kernels read and write, by `program_bytes`.
      memory_gb: Arguments, results and temporaries, GB.
    """

    flops: float
    bytes_by_xla: float
    bytes_moved: float
    memory_gb: float


class Roof(NamedTuple):
    """The least time of a step.

    Attributes:
      compute_ms: All operations at the peak rate.
      memory_ms: All bytes at the full bandwidth.
      binding: Which of the two is longer.
    """

    compute_ms: float
    memory_ms: float
    binding: Literal["compute", "memory"]

    @property
    def ms(self) -> float:
        """The longer of the two."""
        return max(self.compute_ms, self.memory_ms)


def network_layers(model: Model, input_shape: tuple[int, int, int]) -> list[Layer]:
    """Convolutions and dense layers, found by tracing one image. House definition."""
    layers = []

    def record(next_fn, args, kwargs, context):
        out = next_fn(*args, **kwargs)
        if isinstance(context.module, Conv | nn.Dense):
            kernel = context.module.variables["params"]["kernel"]
            macs = out.size * kernel[..., 0].size
            path = "/".join(context.module.path)
            layers.append(Layer(path, macs, args[0].size, out.size, kernel.size))
        return out

    with nn.intercept_methods(record):
        model.shapes(input_shape)
    return layers


def step_flops(layers: Iterable[Layer], batch_size: int) -> int:
    """Operations of the matrix products and convolutions of one step.

    Two for each multiplication with a weight, in three passes: forward and both gradients (the
    stem's input gradient, which nobody needs, is counted too: 0.1 % of ResNet-50).

    References:
      House definition.
    """
    return 2 * _PASSES * batch_size * sum(layer.num_macs for layer in layers)


def floor_bytes(layers: Iterable[Layer], batch_size: int, bytes_per_element: int) -> int:
    """The fewest bytes that a step of a batch-normalised network can move.

    As if norms and ReLUs were all done on the way in and out of the convolutions: forward, each
    reads its input and writes its output. Backward, batch norm needs two sums before its gradient,
    so that output and its gradient are read twice; the input is read for the kernel's gradient, and
    its own gradient is written. Weights, gradients and momenta are float32, each read and written
    once, and read for both directions as computed in.

    References:
      House definition.
    """
    layers = list(layers)
    activations = sum(3 * layer.num_in + 5 * layer.num_out for layer in layers)
    weights = sum(layer.num_weights for layer in layers)
    moved = batch_size * activations + 2 * weights
    return bytes_per_element * moved + 6 * 4 * weights


def roof(flops: float, num_bytes: float, ceilings: Ceilings) -> Roof:
    """The least time of so many operations and bytes. House definition."""
    compute_ms, memory_ms = 1e3 * flops / ceilings.flops, 1e3 * num_bytes / ceilings.bandwidth
    return Roof(compute_ms, memory_ms, "compute" if compute_ms > memory_ms else "memory")


def inspect(compiled: Any) -> Program:
    """Reads off a compiled program what it computes and moves. House definition."""
    cost = compiled.cost_analysis() or {}
    memory = compiled.memory_analysis()
    kinds = ("argument", "output", "temp")
    total = sum(getattr(memory, f"{kind}_size_in_bytes") for kind in kinds)
    return Program(
        flops=cost.get("flops", float("nan")),
        bytes_by_xla=cost.get("bytes accessed", float("nan")),
        bytes_moved=program_bytes(compiled.as_text()),
        memory_gb=(total - memory.alias_size_in_bytes) / 1e9,
    )


def compute_dtype() -> jnp.dtype | None:
    """What networks compute in here: bfloat16, on a CPU float32 (None). House definition."""
    return jnp.dtype(jnp.bfloat16) if is_accelerator() else None


class Probe(NamedTuple):
    """Sizes by which the ceilings are measured.

    Attributes:
      side: Of the square matrices.
      num_elements: Of each of the two arrays, float32.
      repeats: Calls that are timed as one.
    """

    side: int
    num_elements: int
    repeats: int


CPU_PROBE = Probe(side=2048, num_elements=2**26, repeats=4)
GPU_PROBE = Probe(side=8192, num_elements=2**27, repeats=8)
TINY_PROBE = Probe(side=64, num_elements=2**12, repeats=2)


def matmul_case(part: str, name: str, probe: Probe) -> Case:
    """A large product of random matrices, in the type that networks compute in."""

    @functools.cache
    def matrix():
        draw = jax.random.normal(jax.random.key(0), (probe.side, probe.side))
        return (draw / probe.side**0.5).astype(compute_dtype() or jnp.float32)

    product = jax.jit(lambda x: x @ x)

    def call() -> None:
        jax.block_until_ready([product(matrix()) for _ in range(probe.repeats)])

    return _ceiling_case(part, name, MATMUL, probe, call)


def triad_case(part: str, name: str, probe: Probe) -> Case:
    """Two arrays read and one of them written in place: nothing but memory."""
    step = jax.jit(lambda a, b: a / 2 + b, donate_argnums=0)
    arrays: list[jax.Array] = []

    def call() -> None:
        if not arrays:
            arrays.extend(jnp.full(probe.num_elements, value) for value in (1.0, 2.0))
        for _ in range(probe.repeats):
            arrays[0] = step(*arrays)
        jax.block_until_ready(arrays)

    return _ceiling_case(part, name, TRIAD, probe, call)


def _ceiling_case(part: str, name: str, how: str, probe: Probe, call: Callable) -> Case:
    return Case(part, name, how, num_seeds=1, divisor=probe.repeats, program=how, call=call)


def matmul_flops(milliseconds: float, probe: Probe) -> float:
    """Operations a second of a row of `matmul_case`. House definition."""
    return 2e3 * probe.side**3 / milliseconds


def measured_ceilings(rows: Iterable[Row], name: str, probe: Probe) -> Ceilings:
    """Ceilings out of the rows of one name, by the fastest repetition. House definition."""
    fastest = {row.how: row.minimum for row in rows if row.name == name}
    return Ceilings(
        device=f"{jax.devices()[0].device_kind}, measured",
        flops=matmul_flops(fastest[MATMUL], probe),
        bandwidth=1e3 * 3 * 4 * probe.num_elements / fastest[TRIAD],
        bytes_per_element=jnp.dtype(compute_dtype() or jnp.float32).itemsize,
    )


def device_probe() -> Probe:
    """Sizes fit for the device at hand. House definition."""
    return GPU_PROBE if is_accelerator() else CPU_PROBE
