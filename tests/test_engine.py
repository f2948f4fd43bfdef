"""One program a level: what is compiled, donated, computed in which precision, and how it fails."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.shell import cli
from imp_rg.config import PruneConfig, TrainConfig
from imp_rg.imp.execution import (
    Execution,
    admissible_executions,
    choose_execution,
    measure_execution,
)
from imp_rg.imp.levels import make_scheme, run_level
from imp_rg.imp.memory import explain_out_of_memory, peak_bytes
from imp_rg.imp.operator import ImpState, make_imp_step
from imp_rg.imp.replicates import map_replicates, rows_of, stack, unstack
from imp_rg.imp.saliency import SCORES
from imp_rg.imp.train import make_begin, make_optimizer, make_train_fn, make_train_step
from imp_rg.models import make_model
from imp_rg.pytree import ones_masks
from imp_rg.types import Batch

SHAPE = (8, 8, 1)
STATISTICS = np.array([6.0], np.float32), np.array([5.0], np.float32)
CONFIG = TrainConfig(num_steps=4, rewind_step=0, batch_size=16)
MLP = make_model("lenet6", num_classes=2)


def mlp_scheme(strategy):
    return make_scheme(
        MLP.make_apply_fn(*STATISTICS),
        blocks=MLP.partition("block", SHAPE),
        leaf_sizes=tuple(leaf.size for leaf in jax.tree.leaves(MLP.shapes(SHAPE))),
        num_examples=96,
        num_levels=3,
        prune_config=PruneConfig(),
        train_config=CONFIG,
        execution=Execution("scan", strategy),
    )


# One program


def test_nothing_is_compiled_after_the_first_level(tiny_batch):
    compiled = []

    def listen(event, duration_secs, **about):
        del duration_secs, about
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    scheme = mlp_scheme("loop")
    keys = jax.vmap(jax.random.key)(np.arange(2))
    initial = stack([MLP.init(jax.random.key(10 + i), SHAPE) for i in range(2)])
    state, counts = scheme.start(keys, initial, tiny_batch), []
    for _ in range(3):
        compiled.clear()
        state, _ = run_level(scheme, jax.random.clone(keys), state, tiny_batch, tiny_batch)
        counts.append(len(compiled))
    assert counts[0] > 0  # the listener hears
    assert counts[1:] == [0, 0]


def test_a_level_is_one_program_that_never_asks_the_host(tiny_batch):
    """It traces whole, pruning included, and calls nothing back."""
    train_fn = make_train_fn(
        MLP.make_apply_fn(*STATISTICS), make_optimizer(CONFIG), config=CONFIG, driver="scan"
    )
    blocks = MLP.partition("block", SHAPE)
    imp_step = make_imp_step(
        train_fn,
        SCORES["magnitude"],
        prunable=blocks.prunable,
        schedule=np.array([[0], [40], [30]], np.int32),
    )
    variables = MLP.init(jax.random.key(0), SHAPE)
    masks = ones_masks(variables.params)
    state = ImpState(level=jnp.int32(0), variables=variables, masks=masks, rewind=variables)
    text = str(jax.make_jaxpr(imp_step)(jax.random.key(1), state, tiny_batch))
    assert "scan[" in text and "callback" not in text


# Memory


def test_a_replicate_may_donate_its_own_state_and_the_stack_stays():
    seen = []
    double = jax.jit(lambda x: 2 * x, donate_argnums=0)

    def fn(replicate, own, shared):
        del replicate, shared
        seen.append(own)
        return double(own)

    whole = jnp.arange(6.0).reshape(3, 2)
    doubled = map_replicates(fn, "loop")(whole, None)
    np.testing.assert_array_equal(doubled, 2 * whole)
    assert [row.is_deleted() for row in seen] == [True] * 3


def test_the_state_of_a_level_outlives_the_next(tiny_batch):
    """The step of a scanned replicate takes its buffers over; controls read the old ones."""
    scheme = mlp_scheme("loop")
    keys = jax.vmap(jax.random.key)(np.arange(1))
    initial = stack([MLP.init(jax.random.key(10), SHAPE)])
    before = scheme.start(keys, initial, tiny_batch)
    scheme.step(jax.random.clone(keys), before, tiny_batch)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(before))


def test_rows_come_one_at_a_time_and_are_those_of_unstack():
    tree = {"a": jnp.arange(6).reshape(3, 2), "key": jax.random.split(jax.random.key(0), 3)}
    rows = rows_of(tree)
    assert iter(rows) is rows
    for lazy, row in zip(rows, unstack(jax.tree.map(jax.random.clone, tree)), strict=True):
        np.testing.assert_array_equal(lazy["a"], row["a"])


def test_too_little_memory_is_one_line_with_a_remedy():
    with pytest.raises(ValueError, match="memory: .* 2.62e.05GiB; lower batch_size") as caught:
        with explain_out_of_memory():
            jnp.zeros(2**46).block_until_ready()
    assert "\n" not in str(caught.value)


def test_other_errors_of_the_device_pass():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        with explain_out_of_memory():
            raise jax.errors.JaxRuntimeError("INTERNAL: a kernel failed")


def test_peak_memory_is_unknown_on_a_cpu():
    assert peak_bytes() is None


@dataclasses.dataclass(frozen=True)
class NoSettings:
    preset: str = "default"


def test_every_command_says_so(monkeypatch, capsys):
    def run(config):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4770354232 bytes.\nBuffers:"
        )

    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(SystemExit) as stop:
        cli.main(run, {"default": NoSettings()}, prog="command")
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: memory: ") and "4.44GiB" in said and said.count("\n") == 1


# Precision


def test_bfloat16_computes_short_and_keeps_float32(tiny_batch):
    """Convolutions in bfloat16; weights, statistics, momentum, gradients and loss in float32."""
    model = make_model("resnet14", num_classes=2, width=0.25, dtype=jnp.dtype(jnp.bfloat16))
    tx = make_optimizer(CONFIG)
    step = make_train_step(model.make_apply_fn(*STATISTICS), tx, config=CONFIG)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), SHAPE))
    carry = jax.eval_shape(lambda v: make_begin(tx)(v, ones_masks(v.params)), variables)
    masks = jax.eval_shape(ones_masks, variables.params)

    def one(carry, masks, data: Batch):
        key, batch = jax.random.key(1), (jnp.arange(16), jnp.ones(16))
        return step(carry, key, masks, data, RowsAndWeights(*batch), jnp.int32(0))

    new, loss = jax.eval_shape(one, carry, masks, tiny_batch)
    is_float = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)  # noqa: E731  (one line)
    assert {leaf.dtype for leaf in jax.tree.leaves((new, loss)) if is_float(leaf)} == {
        jnp.dtype(jnp.float32)
    }
    text = str(jax.make_jaxpr(one)(carry, masks, tiny_batch))
    convolutions = [line for line in text.splitlines() if "= conv_general_dilated[" in line]
    assert convolutions and all("bf16[" in line for line in convolutions)


@dataclasses.dataclass
class RowsAndWeights:
    indices: jax.Array
    weights: jax.Array


# Which execution


def test_the_fastest_execution_is_found_by_trying():
    delays = {"loop": 0.02, "threads": 0.002, "vmap": 0.05}
    candidates = admissible_executions(has_convolutions=False)
    assert Execution("scan", "vmap") in candidates
    assert Execution("scan", "vmap") not in admissible_executions(has_convolutions=True)
    calls = []

    def make_call(execution):
        calls.append(execution)
        penalty = 0.01 * (execution.driver == "dispatch")
        return lambda: time.sleep(delays[execution.strategy] + penalty)

    found = measure_execution(make_call, candidates)
    assert found.best == Execution("scan", "threads")
    assert calls == candidates == list(found.seconds)
    assert found.seconds[Execution("scan", "vmap")] == pytest.approx(0.05, abs=0.04)


def test_what_is_asked_for_is_taken_or_refused():
    assert choose_execution(has_convolutions=True) == ("dispatch", "threads", None)
    assert choose_execution(has_convolutions=False, strategy="vmap") == ("scan", "vmap", None)
    with pytest.raises(ValueError, match="replicates: vmap needs --driver scan, got 'vmap'"):
        choose_execution(has_convolutions=True, strategy="vmap")


# Determinism

CHILD = """
from jax._src.lib import xla_client
from experiments.trunk.config import Config
from experiments.shell.device import use_device
use_device(Config(deterministic=True, device="cpu"))
print(xla_client.CompileOptions().SerializeAsString().hex())
"""


def test_deterministic_reaches_the_compiler():
    """XLA reads its flags once; the field of its options is number 148, a bool."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        env=environment,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert b"\xa0\x09\x01" in bytes.fromhex(done.stdout.strip())
