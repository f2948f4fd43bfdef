"""Resumable state by Orbax, each checkpoint sealed by a digest of its own.

Orbax returns some flipped bits without an error, so the SHA-256 over all leaves is stored beside
them and checked on the way back; what does not check out is passed over for the one before.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

KEEP = 3
"""Checkpoints kept: the newest and two to fall back on."""


def digest(flat: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes of all leaves, in order of name."""
    sha = hashlib.sha256()
    for name in sorted(flat):
        leaf = np.ascontiguousarray(flat[name])
        sha.update(f"{name} {leaf.dtype.str} {leaf.shape}\n".encode())
        sha.update(leaf.tobytes())
    return sha.hexdigest()


def _own_process() -> ocp.options.MultiprocessingOptions:
    """Options by which each of several processes keeps its own folder and waits for no other."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=str(own)
    )


class Checkpoints:
    """The checkpoints of one run, one a level.

    Attributes:
      problems: One line for each checkpoint that could not be used.
    """

    def __init__(self, folder: Path):
        """Opens or creates the folder."""
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEEP,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
            create=False,  # not for one process of several
            multiprocessing_options=_own_process(),
        )
        folder.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)
        self.problems: list[str] = []

    def save(self, level: int, flat: Mapping[str, np.ndarray]) -> None:
        """Saves a flat dict of arrays as the state after `level`.

        Raises:
          OSError: If it cannot be written; earlier checkpoints stay.
        """
        try:
            self._manager.save(
                level,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(dict(flat)),
                    seal=ocp.args.JsonSave({"sha256": digest(flat)}),
                ),
            )
            self._manager.wait_until_finished()
        except Exception as error:  # Orbax and TensorStore raise many types for one full disk
            # The cause comes last, after the addresses within TensorStore.
            reason = ": ".join(" ".join(str(error).split()).split(": ")[-2:])
            raise OSError(f"checkpoint of level {level} cannot be written: {reason}") from error

    def restore(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """Returns level and content of the newest sound checkpoint, None if there is none.

        Unsound ones are removed and named in `problems`.
        """
        for level in sorted(self._manager.all_steps(), reverse=True):
            try:
                return level, self._restore(level)
            except Exception as error:  # any damage at all leads to the one before
                reason = " ".join(str(error).split())[:120]
                self.problems.append(f"checkpoint of level {level} is damaged ({reason})")
                self._manager.delete(level)
        return None

    def _restore(self, level: int) -> dict[str, np.ndarray]:
        restored: Any = self._manager.restore(
            level,
            args=ocp.args.Composite(state=ocp.args.StandardRestore(), seal=ocp.args.JsonRestore()),
        )
        flat = {name: np.asarray(leaf) for name, leaf in restored.state.items()}
        if digest(flat) != restored.seal["sha256"]:
            raise ValueError("its content does not match its digest")
        return flat

    def close(self) -> None:
        """Releases Orbax's threads."""
        self._manager.close()
