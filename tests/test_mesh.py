"""Several devices and several processes compute what one device computes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import distributed_run
import numpy as np
import pytest

from imp_rg.imp.mesh import (
    from_lead,
    is_lead,
    lead_says,
    make_mesh,
    num_shards,
    over_batch,
    place,
    start_distributed,
)

SCRIPT = Path(__file__).with_name("distributed_run.py")


def start(*args, **variables):
    dropped = ("XLA_FLAGS", "JAX_PLATFORMS")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, args)],
        env=kept | {"PYTHONPATH": str(SCRIPT.parent.parent)} | variables,
        stderr=subprocess.PIPE,
        text=True,
    )


def slurm_variables():
    """Those of a job of two processes here; JAX derives a port from the number of the job."""
    for job in range(os.getpid(), os.getpid() + 100):
        with socket.socket() as free:
            if free.connect_ex(("localhost", 65536 - 2**12 + job % 2**12)) != 0:
                break
    fixed = {"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"}
    fixed |= {"SLURM_JOB_ID": str(job), "SLURM_STEP_NUM_NODES": "2"}
    return [fixed | {"SLURM_PROCID": str(process)} for process in range(2)]


@pytest.fixture(scope="module")
def four_devices(tmp_path_factory):
    out = tmp_path_factory.mktemp("devices") / "four.npz"
    child = start(out)
    _, errors = child.communicate()
    assert child.returncode == 0, errors
    return dict(np.load(out))


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    out = tmp_path_factory.mktemp("processes") / "two.npz"
    children = [start(out, "joined", **variables) for variables in slurm_variables()]
    errors = [child.communicate()[1] for child in children]
    if any("UNIMPLEMENTED" in text for text in errors):
        pytest.skip("this JAX has no collectives between processes on a CPU")
    assert [child.returncode for child in children] == [0, 0], "\n".join(errors)
    return dict(np.load(out))


def of_case(results, case):
    return {k.removeprefix(case + "/"): v for k, v in results.items() if k.startswith(case + "/")}


def alone(results, case):
    """The same seeds on one device."""
    network, num_seeds = distributed_run.CASES[case]
    found = of_case(results, f"{network}-alone")
    return {path: leaf[:num_seeds] for path, leaf in found.items()}


def assert_close(found, expected):
    assert set(found) == set(expected) and found
    assert any("batch_stats" in path or "params" in path for path in found)
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-5, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("case", distributed_run.HERE)
def test_four_devices_compute_what_one_does(case, four_devices):
    """Weights, statistics, masks, flow, losses and accuracy after 5 steps at each of 2 levels."""
    assert_close(of_case(four_devices, case), alone(four_devices, case))


@pytest.mark.parametrize("case", distributed_run.BETWEEN)
def test_two_processes_compute_what_one_does(case, two_processes, four_devices):
    assert_close(of_case(two_processes, case), alone(four_devices, case))


def test_seeds_that_the_devices_do_not_divide_are_filled_up(four_devices):
    assert four_devices["filled"].tolist() == [100 + 11 * i for i in range(6)]


def test_a_step_is_divided_over_the_devices(four_devices):
    whole, part = four_devices["flops"], four_devices["flops-divided"]
    assert 0.2 < part / whole < 0.4


def test_devices_that_do_not_fit_are_refused_in_one_line(four_devices):
    assert str(four_devices["refused-3"]) == (
        "devices: must divide 1 seeds or a batch of 16 examples, got 3"
    )
    assert str(four_devices["refused-5"]) == (
        "devices: must lie between 1 and the 4 that JAX finds, got 5"
    )


def test_one_device_needs_no_mesh():
    assert make_mesh(1, num_seeds=3, batch_size=16) is None
    tree = {"x": np.ones(3)}
    assert place(tree, None) is tree
    assert over_batch(start, None) is start
    assert num_shards(None, "batch") == 1
    assert is_lead() and from_lead(b"word") == b"word" and not lead_says(False)


def test_processes_that_nobody_started_together_cannot_join():
    with pytest.raises(ValueError, match="distributed: needs processes started by Slurm"):
        start_distributed()
