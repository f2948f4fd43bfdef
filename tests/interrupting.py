"""Ctrl-C at a chosen moment, without a process of its own."""

import contextlib
import threading

from experiments.shell import cli
from imp_rg.runs.checkpoints import Checkpoints


@contextlib.contextmanager
def interrupted_after(monkeypatch, *, epoch):
    """Ctrl-C arrives when the checkpoint of an epoch has been written."""
    asked, save = threading.Event(), Checkpoints.save

    def save_and_ask(checkpoints, number, state):
        save(checkpoints, number, state)
        if number == epoch:
            asked.set()

    with monkeypatch.context() as patched:
        patched.setattr(cli, "interrupted", asked)
        patched.setattr(Checkpoints, "save", save_and_ask)
        yield
