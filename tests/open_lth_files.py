"""A run of facebookresearch/open_lth as that program leaves it: real torch files, real names."""

import hashlib
import json
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

START, END = (2, 218), (160, 0)
"""Epoch and iteration of the rewind point and of the end of training."""


class Block(nn.Module):
    def __init__(self, num_in, num_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(num_in, num_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(num_out)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(num_out)
        self.shortcut = nn.Sequential()
        if stride > 1:
            conv = nn.Conv2d(num_in, num_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(num_out))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet-(6 D + 2) under open_lth's names."""

    def __init__(self, depth=2, width=4, num_classes=10):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        sizes = [width, *(width * 2**stage for stage in range(3) for _ in range(depth))]
        blocks = [Block(a, b, 1 if a == b else 2) for a, b in zip(sizes, sizes[1:], strict=False)]
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(sizes[-1], num_classes)

    def forward(self, x):
        x = self.blocks(torch.relu(self.bn(self.conv(x))))
        return self.fc(x.mean((2, 3)))


def write_run(root, *, num_levels=3, num_replicates=2, fraction=0.2):
    """Writes a run below `root`; returns its folder ``lottery_HASH``.

    As in the program itself, trained weights are not zero where they are pruned: the last step of
    the optimizer moves them.
    """
    run = root / f"lottery_{hashlib.md5(b'cifar_resnet_14').hexdigest()}"
    for replicate in range(1, num_replicates + 1):
        torch.manual_seed(replicate)
        folder = run / f"replicate_{replicate}"
        write_model(folder / "level_pretrain" / "main", (0, 0), CifarResNet().state_dict())
        model = CifarResNet()
        start = {name: x.clone() for name, x in model.state_dict().items()}
        write_model(folder / "level_pretrain" / "main", START, start)
        masks = {name: torch.ones_like(x) for name, x in start.items() if x.ndim > 1}
        for level in range(num_levels):
            main = folder / f"level_{level}" / "main"
            write_model(main, START, {name: x * masks.get(name, 1) for name, x in start.items()})
            trained = {
                name: x + 0.1 * torch.randn_like(x) if x.is_floating_point() else x
                for name, x in start.items()
            }
            write_model(main, END, trained)
            write_beside(main, model, masks, trained)
            masks = prune(trained, masks, fraction)
    return run


def prune(trained, masks, fraction):
    """Global magnitude pruning of the weights that are left."""
    scores = torch.cat([trained[name][mask > 0].abs() for name, mask in masks.items()])
    threshold = scores.sort().values[round(fraction * len(scores))]
    return {name: mask * (trained[name].abs() >= threshold) for name, mask in masks.items()}


def write_model(main, step, state):
    main.mkdir(parents=True, exist_ok=True)
    torch.save(state, main / "model_ep{}_it{}.pth".format(*step))


def write_beside(main, model, masks, trained):
    """Masks and whatever else the program leaves with them."""
    torch.save({name: mask.int() for name, mask in masks.items()}, main / "mask.pth")
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    checkpoint = {"ep": END[0], "it": END[1], "model_state_dict": trained, "logger": ""}
    torch.save(
        checkpoint | {"optimizer_state_dict": optimizer.state_dict()}, main / "checkpoint.pth"
    )
    sizes = {"total": sum(m.numel() for m in masks.values())}
    kept = {"unpruned": float(sum(m.sum() for m in masks.values()))}
    (main / "sparsity_report.json").write_text(json.dumps(sizes | kept))
    (main / "logger").write_text("test_accuracy,62560,0.91\n")
    if main.parent.name == "level_0":
        (main / "hparams.log").write_text("Training Hyperparameters\n    * lr => 0.1")
