"""Accuracy of a PyTorch network, evaluated here: equal to PyTorch's own."""

import re
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_nets import torch_cifar_resnet, torch_logits  # noqa: E402  (after the skip)

from experiments import evaluate  # noqa: E402  (after the skip)
from experiments.shell import cli  # noqa: E402  (after the skip)

MEAN, STD = np.array([0.45, 0.5, 0.4], np.float32), np.array([0.25, 0.2, 0.3], np.float32)
FLAGS = ("--model", "resnet14")
GIVEN = ("--mean", *map(str, MEAN), "--std", *map(str, STD))


@pytest.fixture(scope="module", params=[np.uint8, np.float32], ids=["uint8", "float32"])
def case(request, tmp_path_factory):
    """A checkpoint, its data, and how many of 1,100 images PyTorch gets right as trained."""
    folder = tmp_path_factory.mktemp("case")
    rng = np.random.default_rng(0)
    brightness = rng.integers(60, 256, (1150, 1, 1, 3))  # of each channel, else all look alike
    x = rng.integers(0, brightness, (1150, 8, 8, 3)).astype(np.uint8)
    scaled = (x / 255).astype(np.float32)
    net = torch_cifar_resnet(14, "pad", "kuangliu", width=0.5)
    seen = (scaled - MEAN) / STD
    with torch.no_grad():
        net.linear.bias -= torch.from_numpy(torch_logits(net, seen).mean(0))
    torch.save({"state_dict": net.state_dict()}, folder / "net.th")
    y = torch_logits(net, seen).argmax(1)
    y[50:][rng.random(1100) < 0.3] += 1
    y %= 10
    y[:10] = range(10)
    x = x if request.param == np.uint8 else scaled
    data = folder / "data.npz"
    np.savez(data, x_train=x[:50], y_train=y[:50], x_test=x[50:], y_test=y[50:])

    def num_correct(mean, std):
        logits = torch_logits(net, ((scaled[50:] - mean) / std).astype(np.float32))
        return int((logits.argmax(1) == y[50:]).sum())

    train_mean, train_std = (f(scaled[:50], axis=(0, 1, 2)) for f in (np.mean, np.std))
    return folder, num_correct(MEAN, STD), num_correct(train_mean, train_std)


def evaluate_with(folder, *flags):
    args = ["--checkpoint", str(folder / "net.th"), "--dataset", f"npz:{folder / 'data.npz'}"]
    return cli.parse(evaluate.PRESETS, [*args, *FLAGS, *flags], prog="evaluate")


def test_accuracy_is_pytorchs(case, capsys, monkeypatch):
    folder, expected, with_train = case
    assert 700 < expected < 850 and with_train != expected
    found = evaluate.evaluate(evaluate_with(folder, *GIVEN, "--shortcut", "pad"))
    assert (found.num_correct, found.num_test, found.density) == (expected, 1100, 1)
    np.testing.assert_allclose((found.mean, found.std), (MEAN, STD), rtol=1e-6)
    monkeypatch.setattr(evaluate, "evaluate", lambda config: found)
    evaluate.run(evaluate_with(folder, *GIVEN))
    said = capsys.readouterr().out
    assert f"test accuracy: {expected / 11:.2f} % ({expected} of 1,100)" in said
    assert "mean 0.45 0.5 0.4, std 0.25 0.2 0.3 on the 0 to 1 scale, as given" in said


def test_the_default_normalization_is_that_of_the_training_images(case, capsys):
    folder, _, with_train = case
    evaluate.run(evaluate_with(folder))
    said = capsys.readouterr().out
    assert f"({with_train} of 1,100)" in said
    assert re.search(r"mean 0\.\d+ 0\.\d+ 0\.\d+, std .* of the training images of npz:", said)


def test_masks_lie_apart(case, tmp_path):
    folder, *_ = case
    state = torch.load(folder / "net.th")["state_dict"]
    masks = {name: torch.rand(x.shape) < 0.25 for name, x in state.items() if x.ndim > 1}
    torch.save(masks, tmp_path / "mask.pth")
    found = evaluate.evaluate(evaluate_with(folder, *GIVEN, "--masks", str(tmp_path / "mask.pth")))
    kept, total = (sum(float(f(m)) for m in masks.values()) for f in (torch.sum, torch.numel))
    assert found.density == pytest.approx(kept / total, rel=1e-9)
    assert found.num_correct < 700


BAD = [
    (("--mean", "0.5", "0.5", "0.5"), "std: must have as many values as mean"),
    (
        ("--mean", "0.5", "--std", "0.5"),
        r"mean: must have a value for each of 3 channels, got \(0.5",
    ),
    (("--mean", "0", "0", "0", "--std", "1", "0", "1"), "std: must be positive"),
    (("--model", "resnet20"), "model: must be resnet14: "),
    (("--shortcut", "projection"), "shortcut: must be pad for "),
    (("--dataset", "digits"), r"dataset: must have images that fit the stem/kernel .*\(8, 8, 1\)$"),
    (("--checkpoint", "nowhere.pt"), "nowhere.pt: .* it is not there$"),
]


@pytest.mark.parametrize(("flags", "message"), BAD, ids=[flags[0] + flags[1] for flags, _ in BAD])
def test_bad_input_gets_one_line(case, flags, message, monkeypatch, capsys):
    folder, *_ = case
    args = ["--checkpoint", str(folder / "net.th"), "--dataset", f"npz:{folder / 'data.npz'}"]
    monkeypatch.setattr(sys, "argv", ["evaluate", *args, *FLAGS, *flags])
    with pytest.raises(SystemExit) as stop:
        cli.main(evaluate.run, evaluate.PRESETS, prog="evaluate")
    assert stop.value.code == cli.EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert re.fullmatch(f"error: .*{message.removesuffix('$')}.*\n", said)
