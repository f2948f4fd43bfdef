"""The README's snippet: a ticket, in PyTorch, gives the logits that it gives here."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_nets import torch_cifar_resnet, torch_logits  # noqa: E402  (after the skip)

from imp_rg.models import make_model  # noqa: E402  (after the skip)
from imp_rg.pytree import apply_masks  # noqa: E402  (after the skip)
from imp_rg.runs.tickets import write_ticket  # noqa: E402  (after the skip)

README = Path(__file__).resolve().parent.parent / "README.md"
SNIPPET = re.compile(r"<!-- torch snippet -->\n```py(?:thon)?\n(.*?)```", re.DOTALL)


def test_the_snippet_loads_a_ticket(tmp_path, monkeypatch):
    """Every tensor is random, norms and statistics too: untouched ones would hide a swap."""
    (code,) = SNIPPET.findall(README.read_text())
    model = make_model("resnet14", num_classes=10, width=0.25)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), (8, 8, 3)))
    rewind = jax.tree.map(lambda x: rng.uniform(0.1, 1, x.shape).astype(np.float32), shapes)
    signs = jax.tree.map(lambda x: np.float32(rng.choice([-1, 1], x.shape)), rewind.params)
    rewind = rewind._replace(params=jax.tree.map(np.multiply, rewind.params, signs))
    masks = jax.tree.map(lambda x: (rng.random(x.shape) < 0.5) | (x.ndim == 1), rewind.params)
    write_ticket(tmp_path / "seed0-level03.safetensors", rewind, masks, {"level": "3"})

    net = torch_cifar_resnet(14, "projection", "torchvision", width=0.25)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"net": net})
    x = rng.standard_normal((16, 8, 8, 3), np.float32)
    kept = {"params": apply_masks(rewind.params, masks), "batch_stats": rewind.batch_stats}
    ours: Any = model.module.apply(kept, x)
    scale = np.std(ours)
    assert np.isfinite(scale) and scale > 0
    np.testing.assert_allclose(torch_logits(net, x) / scale, ours / scale, atol=1e-4)
    unmasked: Any = model.module.apply({**kept, "params": rewind.params}, x)
    assert np.abs(unmasked - ours).max() > 0.1 * scale
