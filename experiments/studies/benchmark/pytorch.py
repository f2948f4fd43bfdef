"""PyTorch beside the library: every seed in a process of its own.

Neither library's threads disturb the other's so, and two seeds do not wait for one interpreter.
PyTorch is optional: ``pip install torch==2.13.0``.
"""

import contextlib
import importlib
import importlib.util
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

MakeStep = Callable[[Any, Any], Callable[[], Any]]
"""`make_step(torch, spec)`, a function that takes one step; `spec.num_threads` is set before."""

WARM_UP_STEPS = 3
"""Steps a process takes by itself, side by side with others: PyTorch compiles in the first."""


def is_available() -> bool:
    """Whether PyTorch can be imported. House definition."""
    return importlib.util.find_spec("torch") is not None


def resident_peak_gb() -> float:
    """Largest resident memory of this process so far, GB. House definition."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


class TorchSeeds:
    """Seeds that train side by side, a process each; stops them on exit."""

    def __init__(self, make_step: MakeStep, spec: Any, num_seeds: int):
        """Starts the processes, each with a step of `spec`, and returns before they are ready."""
        context = multiprocessing.get_context("spawn")
        self.num_seeds = num_seeds
        self._connections, self._processes = [], []
        self._is_ready, self._memory_gb = False, 0.0
        for seed in range(num_seeds):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, make_step, spec, seed), daemon=True
            )
            process.start()
            theirs.close()  # so that the end of the process is seen here
            self._connections.append(ours)
            self._processes.append(process)

    def wait(self) -> None:
        """Returns once all seeds have warmed up.

        Raises:
          RuntimeError: If a seed cannot train: what PyTorch said.
        """
        if not self._is_ready:
            for problem in [_receive(connection) for connection in self._connections]:
                if problem is not None:
                    raise RuntimeError(f"torch: {problem}")
            self._is_ready = True

    def run(self, num_steps: int) -> float:
        """Takes the steps with every seed at once; returns the CPU seconds of all processes."""
        self.wait()
        for connection in self._connections:
            connection.send(num_steps)
        used = [_receive(connection) for connection in self._connections]
        self._memory_gb = sum(memory for _, memory in used)
        return sum(seconds for seconds, _ in used)

    def memory_gb(self) -> float:
        """Peak memory of all processes after the last run, on the device if there is one."""
        return self._memory_gb

    def close(self) -> None:
        """Ends the processes."""
        for connection, process in zip(self._connections, self._processes, strict=True):
            with contextlib.suppress(OSError):  # it has ended by itself
                connection.send(0)
            process.join()


def _receive(connection: Connection) -> Any:
    try:
        return connection.recv()
    except EOFError:
        raise RuntimeError("torch: the process has ended") from None


def _serve(connection: Connection, make_step: MakeStep, spec: Any, seed: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    # Several processes compile at once; by default each would start a worker a core.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "4")
    torch: Any = importlib.import_module("torch")
    try:
        torch.set_num_threads(spec.num_threads)
        torch.manual_seed(seed)
        take_step = make_step(torch, spec)
        for _ in range(WARM_UP_STEPS):
            take_step()
        _synchronize(torch)
    except Exception as error:  # a variant that this PyTorch or device cannot run
        connection.send(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
        return
    connection.send(None)
    # cuDNN tries its algorithms from here on: one process at a time, so that none disturbs it.
    torch.backends.cudnn.benchmark = True
    while num_steps := connection.recv():
        began = time.process_time()
        for _ in range(num_steps):
            take_step()
        _synchronize(torch)
        connection.send((time.process_time() - began, _peak_gb(torch)))


def _synchronize(torch: Any) -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _peak_gb(torch: Any) -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resident_peak_gb()
