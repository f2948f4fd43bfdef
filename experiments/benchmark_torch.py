"""The same training step in PyTorch, for comparison: ResNet-(6 D + 2) with SGD, written plainly.

Each seed runs in a process of its own, so that neither library's threads disturb the other's and
two seeds do not wait for one interpreter. PyTorch is optional: ``pip install torch==2.13.0``.
"""

import importlib
import importlib.util
import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

STAGE_CHANNELS = (16, 32, 64)
PADDING = 4

MakeStep = Callable[[Any, Any], Callable[[], Any]]
"""`make_step(torch, spec)`, a function that takes one step; `spec.num_threads` is set before."""


class TorchSpec(NamedTuple):
    """What one PyTorch seed trains; plain values, because they go to another process.

    Attributes:
      blocks_per_stage: D of ResNet-(6 D + 2).
      width: Multiplies the channels.
      input_shape: Height, width, channels.
      batch_size: Examples a step.
      is_augmented: Whether images are flipped and cropped inside the step.
      num_threads: Threads of this seed.
    """

    blocks_per_stage: int
    width: float
    input_shape: tuple[int, int, int]
    batch_size: int
    is_augmented: bool
    num_threads: int


def is_available() -> bool:
    """Whether PyTorch can be imported. House definition."""
    return importlib.util.find_spec("torch") is not None


class TorchSeeds:
    """Seeds that train side by side, a process each; stops them on exit."""

    def __init__(self, make_step: MakeStep, spec: Any, num_seeds: int):
        """Starts the processes, each with a step of `spec`; the first `run` waits for them."""
        context = multiprocessing.get_context("spawn")
        self._connections, self._processes = [], []
        for seed in range(num_seeds):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, make_step, spec, seed), daemon=True
            )
            process.start()
            self._connections.append(ours)
            self._processes.append(process)

    def run(self, num_steps: int) -> float:
        """Takes the steps with every seed at once; returns the CPU seconds of all processes."""
        for connection in self._connections:
            connection.send(num_steps)
        return sum(connection.recv() for connection in self._connections)

    def close(self) -> None:
        """Ends the processes."""
        for connection, process in zip(self._connections, self._processes, strict=True):
            connection.send(0)
            process.join()


def _serve(connection: Connection, make_step: MakeStep, spec: Any, seed: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(spec.num_threads)
    torch.manual_seed(seed)
    take_step = make_step(torch, spec)
    while num_steps := connection.recv():
        began = time.process_time()
        for _ in range(num_steps):
            take_step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        connection.send(time.process_time() - began)


def make_step(torch: Any, spec: TorchSpec) -> Callable[[], float]:
    """One step of SGD with momentum and weight decay on random images, channels last.

    Args:
      torch: The imported library.
      spec: Network and batch.

    Returns:
      A function that takes one step and returns the loss.

    References:
      House definition; the network is `imp_rg.models.resnet_cifar`.
    """
    functional = torch.nn.functional
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = _Network(torch, spec, device)
    height, width, channels = spec.input_shape
    shape = (4 * spec.batch_size, channels, height, width)
    x = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (len(x),), device=device)
    sgd = torch.optim.SGD(network.params, lr=0.1, momentum=0.9, weight_decay=1e-4)

    def take_step() -> float:
        rows = torch.randint(0, len(x), (spec.batch_size,), device=device)
        images = x[rows]
        if spec.is_augmented:
            images = _flip_crop(torch, images)
        images = (images.float() / 128 - 1).contiguous(memory_format=torch.channels_last)
        sgd.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(network(images), y[rows])
        loss.backward()
        sgd.step()
        return loss.detach()

    return take_step


def _flip_crop(torch: Any, x: Any) -> Any:
    """Mirrors with probability one half, then crops out of the padded images, each for itself."""
    num, _, height, width = x.shape
    flips = torch.rand(num, 1, 1, 1, device=x.device) < 0.5
    padded = torch.nn.functional.pad(torch.where(flips, x.flip(3), x), [PADDING] * 4)
    offset = torch.randint(0, 2 * PADDING + 1, (2, num, 1), device=x.device)
    rows = offset[0] + torch.arange(height, device=x.device)
    columns = offset[1] + torch.arange(width, device=x.device)
    images = torch.arange(num, device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None]].permute(
        0, 3, 1, 2
    )


class _Network:
    """Residual network with batch norm and projection shortcuts; parameters in a plain list."""

    def __init__(self, torch: Any, spec: TorchSpec, device: str):
        self._torch, self._device, self.params = torch, device, []
        channels = [max(1, round(c * spec.width)) for c in STAGE_CHANNELS]
        self._stem = self._conv_norm(spec.input_shape[2], channels[0], 3, 1)
        self._blocks, before = [], channels[0]
        for stage, after in enumerate(channels):
            for block in range(spec.blocks_per_stage):
                stride = 2 if stage > 0 and block == 0 else 1
                has_projection = stride > 1 or before != after
                self._blocks.append(
                    (
                        self._conv_norm(before, after, 3, stride),
                        self._conv_norm(after, after, 3, 1),
                        self._conv_norm(before, after, 1, stride) if has_projection else None,
                    )
                )
                before = after
        self._head = torch.nn.Linear(before, 10, device=device)
        self.params += list(self._head.parameters())

    def __call__(self, x: Any) -> Any:
        relu = self._torch.relu
        x = relu(self._stem(x))
        for first, second, shortcut in self._blocks:
            x = relu(second(relu(first(x))) + (x if shortcut is None else shortcut(x)))
        return self._head(x.mean((2, 3)))

    def _conv_norm(self, before: int, after: int, size: int, stride: int) -> Any:
        nn = self._torch.nn
        module = nn.Sequential(
            nn.Conv2d(before, after, size, stride, size // 2, bias=False), nn.BatchNorm2d(after)
        )
        module = module.to(self._device, memory_format=self._torch.channels_last)
        self.params += list(module.parameters())
        return module
