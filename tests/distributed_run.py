"""A child process of test_mesh.py: levels on several devices, results in an npz file.

python distributed_run.py OUT               4 simulated devices, beside one
python distributed_run.py OUT joined        one of 2 processes, as Slurm's variables say
"""

import dataclasses
import os
import sys

NUM_DEVICES, NUM_SEEDS, NUM_STEPS = 4, 4, 5
# What is tested is what is computed: a program compiled in a hurry does.
FLAGS = "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count="
SHAPE, NUM_EXAMPLES, BATCH_SIZE = (8, 8, 1), 52, 16

CASES = {
    "resnet-batch": ("resnet", 1),
    "resnet-seed": ("resnet", NUM_SEEDS),
    "mlp-batch": ("mlp", 1),
    "mlp-seed": ("mlp", NUM_SEEDS),
}

HERE, BETWEEN = ("resnet-batch", "resnet-seed"), ("mlp-batch", "mlp-seed")
"""What the devices of one process run, and what two processes do; each takes seconds to compile."""


def main(out, joined=""):
    os.environ["XLA_FLAGS"] = FLAGS + ("1" if joined else str(NUM_DEVICES))
    import jax
    import numpy as np

    from imp_rg.imp import mesh as meshes

    jax.config.update("jax_platforms", "cpu")
    if joined:
        meshes.start_distributed()
    results = {}
    for case in BETWEEN if joined else HERE:
        network, num_seeds = CASES[case]
        mesh = meshes.make_mesh(jax.device_count(), num_seeds=num_seeds, batch_size=BATCH_SIZE)
        assert mesh is not None and case.endswith(mesh.axis_names[0])
        results |= {f"{case}/{path}": x for path, x in run(network, num_seeds, mesh).items()}
    if not joined:
        for network in ("resnet", "mlp"):
            alone = run(network, NUM_SEEDS, None)
            results |= {f"{network}-alone/{path}": x for path, x in alone.items()}
        results |= extras()
    own = b"lead" if meshes.is_lead() else b"no word of it"
    assert meshes.from_lead(own) == b"lead"
    assert meshes.lead_says(meshes.is_lead())
    if meshes.is_lead():
        np.savez(out, **results)


def make_network(name):
    from imp_rg.models import make_model
    from imp_rg.models.resnet_imagenet import ResNetImagenet

    if name == "mlp":
        return make_model("lenet12", num_classes=2)
    module = ResNetImagenet(blocks_per_stage=(1,), is_bottleneck=False, num_classes=2, width=0.1)
    model = make_model("resnet18", num_classes=2)
    return dataclasses.replace(model, module=module, partitions={"block": {"stage1": ("stage1",)}})


def run(name, num_seeds, mesh):
    """Two levels; all that a run keeps of them."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from imp_rg.config import PruneConfig, TrainConfig
    from imp_rg.imp.execution import choose_execution
    from imp_rg.imp.levels import make_scheme, run_level
    from imp_rg.imp.mesh import place
    from imp_rg.imp.replicates import stack
    from imp_rg.pytree import to_flat
    from imp_rg.types import Batch

    model = make_network(name)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, NUM_EXAMPLES, np.int32)
    x = rng.integers(0, 9, (NUM_EXAMPLES, *SHAPE)) + 7 * (y[:, None, None, None] == 1)
    execution = choose_execution(has_convolutions=model.has_convolutions, mesh=mesh)
    if mesh is None:
        execution = execution._replace(driver="scan", strategy="loop")
    shapes = model.shapes(SHAPE)
    scheme = make_scheme(
        model.make_apply_fn(np.array([6.0], np.float32), np.array([5.0], np.float32)),
        blocks=model.partition("block", SHAPE),
        leaf_sizes=tuple(leaf.size for leaf in jax.tree.leaves(shapes)),
        num_examples=NUM_EXAMPLES,
        num_levels=2,
        prune_config=PruneConfig(),
        train_config=TrainConfig(num_steps=NUM_STEPS, rewind_step=0, batch_size=BATCH_SIZE),
        execution=execution,
        policy="flip_crop",
    )
    data = place(Batch(jnp.asarray(x, jnp.uint8), jnp.asarray(y)), mesh)
    seeds = range(num_seeds)
    keys = jax.vmap(jax.random.key)(np.arange(num_seeds))
    init_fn = jax.jit(lambda key: model.init(key, SHAPE))
    initial = stack([init_fn(jax.random.key(10 + seed)) for seed in seeds])
    state, kept = scheme.start(keys, initial, data), {}
    for level in range(2):
        state, record = run_level(scheme, keys, state, data, data)
        kept |= {f"level{level}/{path}": leaf for path, leaf in to_flat((state, record)).items()}
    return kept


def extras():
    """Seeds that the devices do not divide, what is refused, and how a step is divided."""
    import jax
    import numpy as np

    from imp_rg.imp import mesh as meshes
    from imp_rg.imp.replicates import map_replicates

    found = {}
    seeds = meshes.make_mesh(NUM_DEVICES, num_seeds=NUM_SEEDS, batch_size=1)
    add = map_replicates(
        lambda replicate, own, shared: own + 10 * replicate + shared, "loop", seeds
    )
    found["filled"] = np.asarray(add(np.arange(6), np.array(100)))
    for num_devices, batch_size in ((3, BATCH_SIZE), (5, BATCH_SIZE)):
        try:
            meshes.make_mesh(num_devices, num_seeds=1, batch_size=batch_size)
        except ValueError as error:
            found[f"refused-{num_devices}"] = np.array(str(error))
    batch = meshes.make_mesh(NUM_DEVICES, num_seeds=1, batch_size=BATCH_SIZE)
    for mesh in (None, batch):
        step = meshes.over_batch(_gather_and_multiply, mesh)
        data, kernel = np.ones((64, 32), np.float32), np.ones((32, 8), np.float32)
        args = meshes.place((kernel, None, None, data, np.arange(BATCH_SIZE), 0), mesh)
        cost = jax.jit(step).lower(*args).compile().cost_analysis() or {}
        found["flops" if mesh is None else "flops-divided"] = np.array(cost["flops"])
    return found


def _gather_and_multiply(carry, key, masks, data, batch, step):
    del key, masks, step
    return carry + 1, ((data[batch] @ carry) ** 2).mean()


if __name__ == "__main__":
    main(*sys.argv[1:])
