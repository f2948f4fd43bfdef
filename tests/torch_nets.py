"""ResNets in plain PyTorch, with the tensor names of the repositories that publish them."""

from typing import Any, Literal

import pytest

torch: Any = pytest.importorskip("torch")
nn = torch.nn

Naming = Literal["torchvision", "kuangliu", "open_lth"]
"""``torchvision`` names tensors as timm, chenyaofo and bearpaw do, ``kuangliu`` as akamaster."""

SHORTCUT = {"torchvision": "downsample", "kuangliu": "shortcut", "open_lth": "shortcut"}
HEAD = {"torchvision": "fc", "kuangliu": "linear", "open_lth": "fc"}


class Block(nn.Module):
    """Residual block of any number of convolutions, each (channels, size, stride)."""

    def __init__(self, num_in, convs, shortcut, shortcut_name):
        super().__init__()
        self.depth, self.shortcut_name = len(convs), shortcut_name
        stride, channels, num_out = max(c[2] for c in convs), num_in, convs[-1][0]
        for i, (num, size, step) in enumerate(convs, start=1):
            conv = nn.Conv2d(channels, num, size, step, padding=size // 2, bias=False)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", nn.BatchNorm2d(num))
            channels = num
        self.extra = 0
        module = nn.Sequential()
        if stride != 1 or num_in != num_out:
            if shortcut == "pad":
                self.extra = num_out - num_in
            else:
                conv = nn.Conv2d(num_in, num_out, 1, stride, bias=False)
                module = nn.Sequential(conv, nn.BatchNorm2d(num_out))
        setattr(self, shortcut_name, module)

    def forward(self, x):
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = torch.relu(y) if i < self.depth else y
        x = getattr(self, self.shortcut_name)(x)
        if self.extra:
            half = self.extra // 2
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, self.extra - half))
        return torch.relu(x + y)


class ResNet(nn.Module):
    """A stem convolution, blocks and a linear head under the names of a repository."""

    def __init__(self, stem, stages, num_classes, naming: Naming, pool):
        super().__init__()
        self.naming, self.pool, self.num_stages = naming, pool, len(stages)
        self.is_flat = naming == "open_lth"
        setattr(self, "conv" if self.is_flat else "conv1", stem)
        setattr(self, "bn" if self.is_flat else "bn1", nn.BatchNorm2d(stem.out_channels))
        if self.is_flat:
            self.blocks = nn.ModuleList([block for stage in stages for block in stage])
        else:
            for i, stage in enumerate(stages, start=1):
                setattr(self, f"layer{i}", nn.Sequential(*stage))
        last = getattr(stages[-1][-1], f"conv{stages[-1][-1].depth}").out_channels
        setattr(self, HEAD[naming], nn.Linear(last, num_classes))

    def forward(self, x):
        x = self.bn(self.conv(x)) if self.is_flat else self.bn1(self.conv1(x))
        x = self.pool(torch.relu(x))
        if self.is_flat:
            for block in self.blocks:
                x = block(x)
        else:
            for i in range(1, self.num_stages + 1):
                x = getattr(self, f"layer{i}")(x)
        return getattr(self, HEAD[self.naming])(x.mean((2, 3)))


def torch_cifar_resnet(
    depth: int,
    shortcut: Literal["projection", "pad"],
    naming: Naming,
    width: float = 1.0,
    num_classes: int = 10,
):
    """ResNet-(6 D + 2) in evaluation mode, randomised."""
    channels = [round(c * width) for c in (16, 32, 64)]
    stages, num_in = [], channels[0]
    for s, c in enumerate(channels):
        stage = []
        for b in range((depth - 2) // 6):
            convs = [(c, 3, 2 if s > 0 and b == 0 else 1), (c, 3, 1)]
            stage.append(Block(num_in, convs, shortcut, SHORTCUT[naming]))
            num_in = c
        stages.append(stage)
    stem = nn.Conv2d(3, channels[0], 3, padding=1, bias=False)
    return randomise(ResNet(stem, stages, num_classes, naming, nn.Identity()))


def torch_resnet(
    depth: Literal[18, 34, 50],
    stem: Literal["cifar", "imagenet"],
    width: float = 1.0,
    num_classes: int = 10,
    naming: Naming = "torchvision",
):
    """ResNet-18, 34 or 50 (v1.5) in evaluation mode, randomised."""
    planes = [round(p * width) for p in (64, 128, 256, 512)]
    stages, num_in = [], planes[0]
    for s, (p, num_blocks) in enumerate(
        zip(planes, (2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3), strict=True)
    ):
        stage = []
        for b in range(num_blocks):
            stride = 2 if s > 0 and b == 0 else 1
            convs = [(p, 3, stride), (p, 3, 1)]
            if depth == 50:
                convs = [(p, 1, 1), (p, 3, stride), (4 * p, 1, 1)]
            stage.append(Block(num_in, convs, "projection", SHORTCUT[naming]))
            num_in = convs[-1][0]
        stages.append(stage)
    if stem == "cifar":
        conv, pool = nn.Conv2d(3, planes[0], 3, padding=1, bias=False), nn.Identity()
    else:
        conv = nn.Conv2d(3, planes[0], 7, stride=2, padding=3, bias=False)
        pool = nn.MaxPool2d(3, stride=2, padding=1)
    return randomise(ResNet(conv, stages, num_classes, naming, pool))


def randomise(network, seed: int = 0):
    """Draws every tensor anew, running statistics too: untouched ones would hide a swap.

    The scales keep the activations near one through the depth.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                limit = (3 / module.weight[0].numel()) ** 0.5
                uniform(module.weight, -limit, limit)
            if isinstance(module, nn.Linear):
                uniform(module.bias, -1, 1)
            if isinstance(module, nn.BatchNorm2d):
                uniform(module.weight, 0.5, 1.0)
                uniform(module.bias, -0.5, 0.5)
                uniform(module.running_mean, -0.5, 0.5)
                uniform(module.running_var, 0.5, 2.0)
    return network.eval()


def torch_logits(network, x):
    """Logits of images [example height width channel], as NumPy arrays in and out."""
    with torch.no_grad():
        return network(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
