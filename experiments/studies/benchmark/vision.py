"""Training steps of the vision networks, timed beside PyTorch, and read against the roofline.

In: networks at the batch sizes of the source studies. Out: cases to time.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.benchmark import roofline
from experiments.studies.benchmark.cases import (
    StepSetup,
    our_case,
    refine_fn,
    torch_case,
    torch_spec,
    train_inputs,
)
from experiments.studies.benchmark.pytorch import TorchSeeds, is_available
from experiments.studies.benchmark.pytorch_resnet import TorchSpec, make_step
from experiments.studies.benchmark.roofline import Layer, Probe, Program
from experiments.studies.benchmark.rows import Case
from imp_rg.config import TrainConfig
from imp_rg.imp.drivers import BatchPlan, cpu_compiler_options
from imp_rg.imp.execution import Execution, admissible_executions, choose_execution
from imp_rg.imp.replicates import num_usable_cores
from imp_rg.imp.train import make_begin, make_optimizer, make_train_step
from imp_rg.models import Model, make_model
from imp_rg.pytree import ones_masks
from imp_rg.types import Batch, is_accelerator

PART = "vision"

CHOSEN = ", chosen"
"""Marks the execution that the library chooses unasked."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionSetup(StepSetup):
    """A network as the source studies train it.

    Attributes:
      level_steps: Steps of one level of the published recipe.
      replicates: Numbers of replicates to measure.
      has_alternatives: Whether executions that the library does not choose are measured too.
      probe: Sizes by which the ceilings are measured; by default fit for the device.
    """

    level_steps: int
    replicates: tuple[int, ...] = (1,)
    has_alternatives: bool = True
    probe: Probe | None = None

    @property
    def name(self) -> str:
        """Network, image size and batch."""
        return f"{super().name} batch {self.batch_size}"


RESNET_20 = VisionSetup(
    model="resnet20",
    input_shape=(32, 32, 3),
    batch_size=128,
    policy="flip_crop",
    num_steps=100,
    replicates=(1, 8),
    level_steps=61_560,
)
RESNET_50 = VisionSetup(
    model="resnet50",
    input_shape=(32, 32, 3),
    batch_size=256,
    policy="flip_crop",
    num_steps=20,
    level_steps=31_850,
)
"""CIFAR stem; 182 epochs of 175 steps a level, and 160 of 391 less 1,000 for ResNet-20."""


def networks() -> tuple[VisionSetup, ...]:
    """Networks to measure here; on a CPU fewer steps a call, and a smaller batch of ResNet-50."""
    if is_accelerator():
        return RESNET_20, RESNET_50
    resnet_50 = dataclasses.replace(RESNET_50, batch_size=8, num_steps=1, has_alternatives=False)
    return dataclasses.replace(RESNET_20, num_steps=2), resnet_50


def make_setup_model(setup: VisionSetup) -> Model:
    """The network in the type that networks compute in here. House definition."""
    dtype = roofline.compute_dtype()
    return make_model(setup.model, num_classes=10, width=setup.width, dtype=dtype)


def setup_layers(setup: VisionSetup) -> list[Layer]:
    """Its convolutions and head. House definition."""
    return _layers(setup.model, setup.width, setup.input_shape)


@functools.cache
def _layers(name: str, width: float, input_shape: tuple[int, int, int]) -> list[Layer]:
    return roofline.network_layers(make_model(name, num_classes=10, width=width), input_shape)


@functools.cache
def step_program(setup: VisionSetup) -> Program:
    """Compiles one training step, as the drivers do, and inspects it. House definition."""
    model, channels = make_setup_model(setup), setup.input_shape[2]
    config = TrainConfig(num_steps=1, rewind_step=0, batch_size=setup.batch_size)
    tx = make_optimizer(config)
    train_step = make_train_step(
        model.make_apply_fn(np.full(channels, 128.0), np.full(channels, 64.0)),
        tx,
        config=config,
        policy=setup.policy,
    )

    def example():
        variables = model.init(jax.random.key(0), setup.input_shape)
        masks, num = ones_masks(variables.params), setup.batch_size
        x = jnp.zeros((4 * num, *setup.input_shape), jnp.uint8)
        data = Batch(x=x, y=jnp.zeros(4 * num, jnp.int32))
        batch = BatchPlan(indices=jnp.zeros(num, jnp.int32), weights=jnp.ones(num))
        carry = make_begin(tx)(variables, masks)
        return carry, jax.random.key(0), masks, data, batch, jnp.zeros((), jnp.int32)

    step_fn = jax.jit(train_step, donate_argnums=0, compiler_options=cpu_compiler_options())
    return roofline.inspect(step_fn.lower(*jax.eval_shape(example)).compile())


@contextlib.contextmanager
def vision_cases(setup: VisionSetup, say: Callable[[str], None]) -> Iterator[list[Case]]:
    """Steps of F by execution and number of replicates, in PyTorch by variant, and the ceilings."""
    step_program(setup)  # what is compiled here is compiled before PyTorch keeps the cores busy
    with contextlib.ExitStack() as cleanup:
        theirs = _torch_cases(setup, cleanup, say) if is_available() else []
        probe = setup.probe or roofline.device_probe()
        ceilings = [
            roofline.matmul_case(PART, setup.name, probe),
            roofline.triad_case(PART, setup.name, probe),
        ]
        yield _our_cases(setup) + theirs + ceilings


def _our_cases(setup: VisionSetup) -> list[Case]:
    model = make_setup_model(setup)
    chosen = choose_execution(has_convolutions=True)
    make_refine = functools.cache(functools.partial(refine_fn, setup, model))
    cases = []
    for num in setup.replicates:
        inputs = train_inputs(setup, model, num)
        for driver, strategy in _executions(setup, num):
            is_chosen = driver == chosen.driver and (num == 1 or strategy == chosen.strategy)
            case = our_case(PART, setup, make_refine(driver), Execution(driver, strategy), inputs)
            cases.append(case._replace(how=case.how + CHOSEN * is_chosen, role="ours"))
    return cases


def _executions(setup: VisionSetup, num_replicates: int) -> list[tuple]:
    """Driver and strategy, the chosen ones first; alternatives of several only on accelerators."""
    executions = [choose_execution(has_convolutions=True)]
    if setup.has_alternatives and (num_replicates == 1 or is_accelerator()):
        executions += admissible_executions(has_convolutions=True)
    if setup.has_alternatives and num_replicates == 1:
        executions.append(Execution("dispatch", "loop"))
    pairs = [(e.driver, "loop" if num_replicates == 1 else e.strategy) for e in executions]
    return list(dict.fromkeys(pairs))


def torch_variants(setup: VisionSetup) -> list[tuple[TorchSpec, int]]:
    """What PyTorch is given to be fastest with, each with a number of seeds side by side.

    On GPUs every combination of layout, type and compilation, and CUDA graphs; on a CPU both
    layouts in the type of ours, and a seed on each core where there are several.

    References:
      House definition.
    """
    cores = num_usable_cores()
    spec = torch_spec(setup, cores)
    if not is_accelerator():
        variants = [(spec, 1), (spec._replace(is_channels_last=False), 1)]
        alone = spec._replace(num_threads=1)
        return variants + [(alone, cores)] * (cores > 1 and max(setup.replicates) > 1)
    graphs = spec._replace(is_bf16=True, compiled="reduce-overhead")
    flags = itertools.product((True, False), (True, False), ("default", ""))
    names = ("is_bf16", "is_channels_last", "compiled")
    others = [spec._replace(**dict(zip(names, values, strict=True))) for values in flags]
    return [(variant, 1) for variant in [graphs, *others]]


def _torch_cases(setup: VisionSetup, cleanup: contextlib.ExitStack, say) -> list[Case]:
    """Starts all variants at once, which compile side by side, and waits for them."""
    started = []
    for spec, num_seeds in torch_variants(setup):
        seeds = TorchSeeds(make_step, spec, num_seeds)
        cleanup.callback(seeds.close)
        threads = "" if is_accelerator() else f", {num_seeds} x {spec.num_threads} threads"
        started.append((f" {spec.variant}{threads}", seeds))
    cases = []
    for how, seeds in started:
        try:
            seeds.wait()
            cases.append(torch_case(PART, setup.name, setup.num_steps, how, seeds))
        except RuntimeError as problem:
            say(f"  torch{how} left out: {problem}")
    return cases
