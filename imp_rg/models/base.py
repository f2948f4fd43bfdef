"""What every model file shares: the initialiser, and the type of its block partitions."""

from collections.abc import Mapping

from jax.nn.initializers import variance_scaling

KERNEL_INIT = variance_scaling(2.0, "fan_in", "normal")
"""Kaiming normal, std sqrt(2 / fan_in); JAX's own `he_normal` truncates the tails."""

Partitions = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Partition name (``block``, ``stage``, ``layer``) to block name to patterns of leaf paths."""
