"""Runs with planted exponents: what comparing must find, and what it must not."""

import numpy as np

from imp_rg.rg.universality import RunExponents

BLOCKS = tuple(f"stage{s}/block{b}" for s in (1, 2, 3) for b in (0, 1))
SIGMA = np.array([0.20, 0.12, 0.05, -0.02, -0.08, -0.15])
SHIFT = np.array([0, 0.05, 0, 0, -0.05, 0])
"""What parts the two planted classes: 0.05 in two of six."""

SEED_SD = 0.03
DENSITY = 0.8 ** np.arange(8)


def planted_run(rng, name, sigma=SIGMA, *, num_seeds=5, blocks=BLOCKS, sd=SEED_SD, density=DENSITY):
    """Exponents that scatter about `sigma`; counts follow the same law."""
    values = sigma + sd * rng.standard_normal((num_seeds, len(blocks)))
    init = 0.8 * sigma + 0.2 * sd * rng.standard_normal(values.shape)
    shares = density[:, None] ** -values[:, None, :] / len(blocks)
    return RunExponents(
        name=name,
        blocks=blocks,
        sigma=values,
        excess={"init": values - init, "gaussian": values - 0.8 * sigma},
        density=density,
        param_share=shares / shares.sum(axis=-1, keepdims=True),
    )


def two_classes(rng, *, runs_per_class=5, num_seeds=5):
    """Runs a0, a1, ... of one class, then b0, b1, ... of the other."""
    return [
        planted_run(rng, f"{name}{i}", SIGMA + is_b * SHIFT, num_seeds=num_seeds)
        for is_b, name in enumerate("ab")
        for i in range(runs_per_class)
    ]
