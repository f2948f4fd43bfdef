"""One process at a time in a run folder."""

import os
import weakref
from pathlib import Path

from filelock import lock_descriptor

_held: weakref.WeakValueDictionary[Path, "FolderLock"] = weakref.WeakValueDictionary()


class FolderLock:
    """Keeps other processes out of a folder for as long as this object lives.

    The folder itself is locked: no file of a lock is left in it.
    The system lets go of what a killed process held. File systems that know no locks give none.
    """

    def __init__(self, path: Path):
        """Locks the folder.

        Raises:
          BlockingIOError: If another process has it.
        """
        descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        try:
            is_ours = lock_descriptor(descriptor, blocking=False)
        except OSError:
            is_ours = True  # no locks on this file system
        if not is_ours:
            raise BlockingIOError(f"{path} is in use")


def lock_folder(path: Path) -> FolderLock:
    """Locks a folder, or shares the lock that this process holds on it already.

    Args:
      path: A folder that is there.

    Returns:
      The lock, to be kept while the folder is in use.

    Raises:
      ValueError: If another process is at work in it.

    References:
      House definition.
    """
    key = path.resolve()
    lock = _held.get(key)
    if lock is None:
        try:
            lock = _held[key] = FolderLock(key)
        except BlockingIOError as error:
            rule = "must not be a folder that another run is using"
            raise ValueError(f"out: {rule}, {path} is in use") from error
    return lock
