"""An encoder on tasks without a run: planted flows by single matrix, and a small checkpoint."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from bert_inputs import hugging_face_sizes, random_checkpoint
from safetensors.numpy import save_file

from imp_rg.blocks import BlockPartition
from imp_rg.flow import FlowPoint, FlowTrajectory
from imp_rg.models.bert import KINDS
from imp_rg.rg import gaussian_null_flow
from imp_rg.runs import tables
from imp_rg.runs.files import write_csv, write_json

DENSITY = np.arange(10, 0, -1) / 10
SIZE = 1000


def encoder_partition(num_layers):
    names = [f"layer{i}/{kind}" for i in range(num_layers) for kind in KINDS] + ["pooler"]
    sizes = [SIZE * (4 if name.endswith(("intermediate", "/output")) else 1) for name in names]
    return BlockPartition(names=tuple(names), block_of=tuple(range(len(names))), sizes=tuple(sizes))


def write_task(folder, *, excess=(), num_layers=3, seeds=3, noise=0.002, seed=0, finished=True):
    """One task; `excess` by layer is added to sigma of the `init` null, up to a constant."""
    rng, blocks = np.random.default_rng(seed), encoder_partition(num_layers)
    sizes = np.array(blocks.sizes)
    scales = 0.05 * (1 + 0.1 * np.cos(np.arange(sizes.size)))
    null = gaussian_null_flow(sizes, scales, np.arange(sizes.size), DENSITY)
    time = -np.log(DENSITY)[:, None]
    shape = (seeds, len(DENSITY), sizes.size)

    def flow(slopes):
        magnitude = np.broadcast_to(null.magnitude * np.exp(slopes * time), shape)
        return FlowPoint(magnitude, np.broadcast_to(null.surviving, shape), magnitude.sum(-1) + 50)

    planted = np.repeat([*excess, *[0.0] * (num_layers - len(excess))], len(KINDS))
    scatter = noise * rng.standard_normal((seeds, 1, num_layers)).repeat(len(KINDS), axis=-1)
    trained = np.append(planted + scatter, np.zeros((seeds, 1, 1)), axis=-1)
    trajectory = FlowTrajectory(
        blocks=blocks,
        num_kept=np.round(DENSITY * sizes.sum()),
        points={"trained": flow(trained), "rewound": flow(0.1 * trained)},
        nulls={
            "gaussian": flow(np.zeros(1)),
            "init": flow(np.zeros(1)),
            "oneshot": flow(0.5 * trained),
            "random": flow(-np.log(null.magnitude[-1] / null.magnitude[0]) / time[-1] - 1),
        },
    )
    folder, seed_list = Path(folder), range(seeds)
    config = {"checkpoint": "minilm", "epochs": 1, "max_length": 64, "levels": 9, "ci_level": 0.95}
    write_json(folder / "config.json", config)
    write_json(folder / "environment.json", {"command": "none", "finished": finished})
    write_csv(folder / "flow.csv", tables.flow_frame(trajectory, seed_list))
    write_csv(folder / "null_flow.csv", tables.null_frame(trajectory, seed_list))
    metrics = {"level": np.arange(10), "test_metric": np.linspace(80, 71, 10), "status": "ok"}
    frames = [pd.DataFrame({"seed": s, **metrics}) for s in seed_list]
    write_csv(folder / "metrics.csv", pd.concat(frames))
    return folder


def write_tasks(folder, **excess_of):
    """A folder of tasks, each with its planted excess."""
    for i, (task, excess) in enumerate(excess_of.items()):
        write_task(folder / task, excess=excess, seed=i)
    write_json(folder / "config.json", {"experiment": "language", "tasks": list(excess_of)})
    return folder


def write_uneven_checkpoint(folder, num_layers):
    """Matrices of uneven scale, so that sigma differs between layers."""
    tensors = random_checkpoint(num_layers=num_layers, width=12, vocabulary=40)
    rng = np.random.default_rng(1)
    for name in tensors:
        if name.endswith("weight") and "LayerNorm" not in name:
            tensors[name] *= np.float32(rng.uniform(0.5, 1.5))
    save_file(tensors, folder / "model.safetensors")
    settings = hugging_face_sizes(num_layers=num_layers, width=12, vocabulary=40)
    (folder / "config.json").write_text(json.dumps(settings))
    return tensors
