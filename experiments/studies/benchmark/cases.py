"""What the benchmark times, made of the library's public pieces.

In: networks and sizes. Out: context managers that yield `Case` lists and clean up after them.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.benchmark.pytorch import TorchSeeds, is_available
from experiments.studies.benchmark.pytorch_resnet import TorchSpec, make_step
from experiments.studies.benchmark.rows import Case
from imp_rg.blocks import BlockPartition
from imp_rg.config import TrainConfig
from imp_rg.data.augment import Augmentation
from imp_rg.flow import flow_point
from imp_rg.imp.drivers import Driver
from imp_rg.imp.execution import Execution, choose_execution
from imp_rg.imp.prune import prune_masks, prune_masks_on_host
from imp_rg.imp.replicates import Strategy, map_replicates, num_usable_cores
from imp_rg.imp.train import make_optimizer, make_train_fn
from imp_rg.models import IMAGENET_BLOCKS, RESNET_BLOCKS, Model, make_model, resnet_cifar
from imp_rg.models.resnet_imagenet import STAGE_PLANES
from imp_rg.pytree import num_kept, ones_masks
from imp_rg.types import Batch, Keys, Masks, Params, TrainFn, Variables, is_accelerator

Shapes = list[tuple[int, ...]]

TrainInputs = tuple[Keys, Variables, Masks, Batch]
"""What the seeds of a timed call start from."""

PRUNE_FRACTION = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepSetup:
    """A network and how it is trained.

    Attributes:
      model: Registry name.
      input_shape: Height, width, channels.
      batch_size: Examples a step.
      policy: Augmentation.
      num_steps: Steps of one timed call.
      width: Of the network.
    """

    model: str
    input_shape: tuple[int, int, int]
    batch_size: int
    policy: Augmentation
    num_steps: int
    width: float = 1.0

    @property
    def name(self) -> str:
        """Network and image size; the width where it is not 1."""
        size = "x".join(map(str, self.input_shape))
        return f"{self.model} {size}" + ("" if self.width == 1 else f" width {self.width}")


def _resnet_shapes() -> Shapes:
    stages = zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True)
    block: list[Shapes] = [
        [(1, 1, 4 * c, c), (3, 3, c, c), (1, 1, c, 4 * c)] * depth for c, depth in stages
    ]
    return [*sum(block, []), (2048, 1000)]


LEAF_SHAPES: dict[str, Shapes] = {
    "1M": [(3, 3, 64, 64)] * 27,
    "ResNet-50-like": _resnet_shapes(),
    "BERT-base-like": ([(768, 768)] * 4 + [(768, 3072), (3072, 768)]) * 12,
}
"""Prunable tensors of 1.0, 23 and 85 million weights."""


def our_case(
    part: str, setup: StepSetup, train_fn: TrainFn, execution: Execution, inputs: TrainInputs
) -> Case:
    """Steps of F by the library, of all seeds that the inputs hold. House definition."""
    num = len(inputs[0])
    is_mapped = execution.strategy == "vmap"
    return Case(
        part=part,
        name=setup.name,
        how=f"jax {execution.driver} {execution.strategy}",
        num_seeds=num,
        divisor=num * setup.num_steps,
        program=f"vmap {num}" if is_mapped else execution.driver,
        call=train_call(train_fn, execution.strategy, inputs),
    )


def torch_case(part: str, name: str, num_steps: int, how: str, seeds: TorchSeeds) -> Case:
    """The same steps in PyTorch, of all seeds that were started. House definition."""
    return Case(
        part=part,
        name=name,
        how=f"torch{how}",
        num_seeds=seeds.num_seeds,
        divisor=seeds.num_seeds * num_steps,
        program=None,
        call=functools.partial(seeds.run, num_steps),
        role="theirs",
        memory=seeds.memory_gb,
    )


@contextlib.contextmanager
def step_cases(setup: StepSetup, num_seeds: tuple[int, ...]) -> Iterator[list[Case]]:
    """Steps of F by driver, strategy and number of seeds, and in PyTorch where it is installed."""
    model = make_model(setup.model, num_classes=10, width=setup.width)
    chosen = choose_execution(has_convolutions=model.has_convolutions)
    inputs = {num: train_inputs(setup, model, num) for num in num_seeds}
    cases = []
    for driver, strategies in _executions(model).items():
        train_fn = refine_fn(setup, model, driver)
        for strategy, num in itertools.product(strategies, num_seeds):
            if strategy == "threads" and num == 1:
                continue  # one thread for one seed is the loop
            execution = Execution(driver, strategy)
            case = our_case("steps", setup, train_fn, execution, inputs[num])
            is_ours = num > 1 and execution == chosen
            cases.append(case._replace(role="ours" if is_ours else None))
    with contextlib.ExitStack() as cleanup:
        yield cases + _torch_cases(setup, cleanup)


def _executions(model: Model) -> dict[Driver, tuple[Strategy, ...]]:
    if is_accelerator():
        return {"scan": ("loop", "vmap")}
    if model.has_convolutions:
        return {"dispatch": ("loop", "threads"), "scan": ("loop", "threads")}
    return {"dispatch": ("loop", "threads"), "scan": ("loop", "threads", "vmap")}


def refine_fn(setup: StepSetup, model: Model, driver: Driver) -> TrainFn:
    """F of as many steps as one timed call takes. House definition."""
    config = TrainConfig(num_steps=setup.num_steps, rewind_step=0, batch_size=setup.batch_size)
    channels = setup.input_shape[2]
    train_fn = make_train_fn(
        model.make_apply_fn(np.full(channels, 128.0), np.full(channels, 64.0)),
        make_optimizer(config),
        config=config,
        driver=driver,
        policy=setup.policy,
    )
    return jax.jit(train_fn) if driver == "scan" else train_fn


def train_inputs(setup: StepSetup, model: Model, num_seeds: int) -> TrainInputs:
    """Keys, equal random weights and full masks of all seeds, and random images.

    Drawn by NumPy: JAX would compile one program a shape, for longer than the steps take.
    """
    rng = np.random.default_rng(0)

    def draw(leaf):
        one = np.ones(leaf.shape, np.float32)
        if leaf.ndim > 1:
            fan_in = leaf.size / leaf.shape[-1]
            one = rng.standard_normal(leaf.shape, np.float32) * np.float32((2 / fan_in) ** 0.5)
        return np.stack([one] * num_seeds)

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), setup.input_shape))
    variables = jax.tree.map(draw, shapes)
    masks = jax.tree.map(lambda p: np.ones(p.shape, bool), variables.params)
    num_examples = 4 * setup.batch_size
    x = rng.integers(0, 256, (num_examples, *setup.input_shape), np.uint8)
    data = Batch(x=jnp.asarray(x), y=jnp.asarray(rng.integers(0, 10, num_examples, np.int32)))
    keys = jax.random.split(jax.random.key(1), num_seeds)
    return keys, *jax.device_put((variables, masks)), data


def train_call(train_fn: TrainFn, strategy: Strategy, inputs: TrainInputs) -> Callable[[], None]:
    """F of all seeds as a function to time. House definition."""

    def train(replicate, key, variables, masks, data):
        del replicate
        return train_fn(key, variables, masks, data)

    mapped = map_replicates(train, strategy)
    keys, *rest = inputs

    def call() -> None:
        _finish(mapped(jax.random.clone(keys), *rest))  # the same steps every time

    return call


def _finish(result) -> None:
    jax.block_until_ready(result)


def _torch_cases(setup: StepSetup, cleanup: contextlib.ExitStack) -> list[Case]:
    """One seed on all cores, and one seed on each core; one seed on an accelerator."""
    if setup.model not in RESNET_BLOCKS or not is_available():
        return []
    cores = num_usable_cores()
    layouts = {(1, cores)} if is_accelerator() else {(1, cores), (cores, 1)}
    cases = []
    for num_seeds, num_threads in sorted(layouts):
        seeds = TorchSeeds(make_step, torch_spec(setup, num_threads), num_seeds)
        cleanup.callback(seeds.close)
        how = f", {num_seeds} x {num_threads} threads"
        cases.append(torch_case("steps", setup.name, setup.num_steps, how, seeds))
    return cases


def torch_spec(setup: StepSetup, num_threads: int) -> TorchSpec:
    """The same network and batch for PyTorch. House definition."""
    if setup.model in RESNET_BLOCKS:
        channels, is_bottleneck = resnet_cifar.STAGE_CHANNELS, False
        depths = (RESNET_BLOCKS[setup.model],) * len(channels)
    else:
        channels, (depths, is_bottleneck) = STAGE_PLANES, IMAGENET_BLOCKS[setup.model]
    return TorchSpec(
        channels=tuple(max(1, round(c * setup.width)) for c in channels),
        depths=depths,
        is_bottleneck=is_bottleneck,
        input_shape=setup.input_shape,
        batch_size=setup.batch_size,
        is_augmented=setup.policy == "flip_crop",
        num_threads=num_threads,
    )


def _random_weights(shapes: Shapes) -> Params:
    rng = np.random.default_rng(0)
    leaves = [jnp.asarray(rng.standard_normal(s, np.float32)) for s in shapes]
    return {f"tensor{i:03}": leaf for i, leaf in enumerate(leaves)}


def _num_weights(shapes: Shapes) -> int:
    return sum(int(np.prod(s)) for s in shapes)


@contextlib.contextmanager
def prune_cases(name: str, shapes: Shapes, *, both_routes: bool) -> Iterator[list[Case]]:
    """M on dense weights, by both routes or by the one that this backend uses.

    Raises:
      RuntimeError: If a route prunes another number than asked for.
    """
    scores = jax.tree.map(jnp.abs, _random_weights(shapes))
    masks, prunable = ones_masks(scores), (True,) * len(shapes)
    count = round(PRUNE_FRACTION * _num_weights(shapes))
    device = jax.jit(prune_masks, static_argnames="prunable")
    routes: dict[str, Callable] = {"host": prune_masks_on_host, "device": device}
    if not both_routes:
        del routes["host" if is_accelerator() else "device"]
    cases, checks = [], []
    for how, route in routes.items():
        prune = functools.partial(
            route, scores, masks, prunable=prunable, num_remove=jnp.array([count])
        )
        call = functools.partial(lambda prune: _finish(prune()), prune)
        program = "device" if how == "device" else None
        cases.append(Case("pruning", name, how, 1, 1, program, call))
        checks.append(prune)
    yield cases
    for prune in checks:
        removed = _num_weights(shapes) - int(num_kept(prune(), prunable))
        if removed != count:
            raise RuntimeError(f"pruning: {count} weights must go, got {removed}")


@contextlib.contextmanager
def flow_cases(name: str, shapes: Shapes) -> Iterator[list[Case]]:
    """M_i and P_i of all weights, half of them pruned, in twelve blocks."""
    params = _random_weights(shapes)
    masks = jax.tree.map(lambda p: p > 0, params)
    num_blocks = min(12, len(shapes))
    block_of = tuple(i * num_blocks // len(shapes) for i in range(len(shapes)))
    sizes = [
        _num_weights([s for s, of in zip(shapes, block_of, strict=True) if of == i])
        for i in range(num_blocks)
    ]
    names = tuple(f"block{i}" for i in range(num_blocks))
    blocks = BlockPartition(names=names, block_of=block_of, sizes=tuple(sizes))
    flow = jax.jit(flow_point, static_argnames="blocks")

    def call() -> None:
        _finish(flow(params, masks, blocks=blocks))

    yield [Case("reduction", name, "M_i and P_i", 1, 1, "flow", call)]
