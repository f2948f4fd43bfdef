"""Ctrl-C at a chosen moment, without a process of its own."""

import contextlib
import threading
from unittest import mock

import pytest

from experiments.shell import cli
from experiments.trunk.progress import LevelProgress
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


@contextlib.contextmanager
def stopped_before(level):
    """Ctrl-C arrives when a level is about to begin; the block must end with it."""
    start_level = LevelProgress.start_level

    def stop(progress, number, density, active):
        if number == level:
            raise KeyboardInterrupt
        start_level(progress, number, density, active)

    with (
        mock.patch.object(LevelProgress, "start_level", stop),
        pytest.raises(KeyboardInterrupt),
    ):
        yield
