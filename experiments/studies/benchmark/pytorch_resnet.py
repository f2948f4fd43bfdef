"""The same training step of a ResNet in PyTorch, for comparison: SGD, written plainly.

Nothing is masked here, which PyTorch is spared. Weights are float32; the layout of the images, the
type of the computation and compilation are settings, because the fastest differs by device.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

PADDING = 4

Compiled = Literal["", "default", "reduce-overhead"]
"""Mode of `torch.compile`; not at all, or ``reduce-overhead``: replayed as CUDA graphs."""


class TorchSpec(NamedTuple):
    """What one PyTorch seed trains; plain values, because they go to another process.

    Attributes:
      channels: Of the 3x3 convolutions of each stage.
      depths: Residual blocks of each stage.
      is_bottleneck: Whether blocks are bottlenecks, four times as wide at their ends.
      input_shape: Height, width, channels.
      batch_size: Examples a step.
      is_augmented: Whether images are flipped and cropped inside the step.
      num_threads: Threads of this seed.
      is_channels_last: Layout in memory.
      is_bf16: Whether convolutions run under bfloat16 autocast.
      compiled: Mode of `torch.compile`.
    """

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    is_bottleneck: bool
    input_shape: tuple[int, int, int]
    batch_size: int
    is_augmented: bool
    num_threads: int
    is_channels_last: bool = True
    is_bf16: bool = False
    compiled: Compiled = ""

    @property
    def variant(self) -> str:
        """Layout, type and compilation in words."""
        words = {"": "eager", "default": "compiled", "reduce-overhead": "compiled CUDA graphs"}
        layout = "channels_last" if self.is_channels_last else "contiguous"
        return f"{layout} {'bf16' if self.is_bf16 else 'fp32'} {words[self.compiled]}"


def make_step(torch: Any, spec: TorchSpec) -> Callable[[], Any]:
    """One step of SGD with momentum and weight decay on random images.

    Args:
      torch: The imported library.
      spec: Network, batch and variant.

    Returns:
      A function that takes one step and returns the loss.

    References:
      House definition; the networks are `imp_rg.models.resnet_cifar` and `resnet_imagenet`.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout = torch.channels_last if spec.is_channels_last else torch.contiguous_format
    network = make_network(torch, spec).to(device, memory_format=layout)
    height, width, channels = spec.input_shape
    shape = (4 * spec.batch_size, channels, height, width)
    x = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    x = x.contiguous(memory_format=layout)
    y = torch.randint(0, 10, (len(x),), device=device)
    sgd = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True)

    def loss_fn(images, labels):
        images = (images.float() / 128 - 1).contiguous(memory_format=layout)
        with torch.autocast(device, torch.bfloat16, enabled=spec.is_bf16):
            return torch.nn.functional.cross_entropy(network(images), labels)

    if spec.compiled:
        loss_fn = torch.compile(loss_fn, mode=spec.compiled)

    def take_step() -> Any:
        if spec.compiled == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        rows = torch.randint(0, len(x), (spec.batch_size,), device=device)
        images = _flip_crop(torch, x[rows]) if spec.is_augmented else x[rows]
        sgd.zero_grad(set_to_none=True)
        loss = loss_fn(images, y[rows])
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


def make_network(torch: Any, spec: TorchSpec) -> Any:
    """ResNet with batch norm, projections and a 3x3 stem, as a module. House definition."""
    nn = torch.nn

    def conv_norm(before, after, size, stride=1):
        conv = nn.Conv2d(before, after, size, stride, size // 2, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(after))

    class Block(nn.Module):
        def __init__(self, before, channels, stride):
            super().__init__()
            after = 4 * channels if spec.is_bottleneck else channels
            if spec.is_bottleneck:
                convs = [(before, channels, 1), (channels, channels, 3, stride)]
                convs.append((channels, after, 1))
            else:
                convs = [(before, channels, 3, stride), (channels, channels, 3)]
            self.convs = nn.ModuleList(conv_norm(*conv) for conv in convs)
            is_same = stride == 1 and before == after
            self.shortcut = nn.Identity() if is_same else conv_norm(before, after, 1, stride)

        def forward(self, x):
            y = x
            for conv in self.convs[:-1]:
                y = torch.relu(conv(y))
            return torch.relu(self.convs[-1](y) + self.shortcut(x))

    blocks, before = [], spec.channels[0]
    stem = conv_norm(spec.input_shape[2], before, 3)
    for stage, (channels, depth) in enumerate(zip(spec.channels, spec.depths, strict=True)):
        for block in range(depth):
            blocks.append(Block(before, channels, 2 if stage > 0 and block == 0 else 1))
            before = 4 * channels if spec.is_bottleneck else channels
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(stem, nn.ReLU(), *blocks, pool, nn.Flatten(), nn.Linear(before, 10))
