"""Where a command computes, and where its compiled programs wait for the next run."""

import os
from pathlib import Path

import jax

from experiments.shell.settings import RunSettings


def use_device(config: RunSettings) -> None:
    """Chooses the backend before JAX starts one; compiled programs are kept for the next run."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "imp_rg" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if config.deterministic:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
    if config.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif config.device == "gpu":
        try:
            jax.config.update("jax_default_device", jax.local_devices(backend="gpu")[0])
        except RuntimeError as error:
            raise ValueError("device: gpu must be present, JAX finds none") from error
