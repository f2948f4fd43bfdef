"""Flags and defaults of every command stay what users have in their scripts."""

import re
import runpy
import sys
from pathlib import Path

import pytest

import experiments

GOLDEN = Path(__file__).with_name("golden_flags.txt")
RENAMED = {"exponents": "error_law", "projection": "rg_axioms"}
PRESENT = {path.stem for path in Path(experiments.__path__[0]).glob("*.py")} - {"__init__"}


def golden_flags():
    """By command, the rest of the lines ``command flag type = default``."""
    found: dict[str, list[str]] = {}
    for line in GOLDEN.read_text().splitlines():
        command, _, flag = line.partition(" ")
        found.setdefault(command, []).append(flag)
    return found


def flags_of(text):
    """What a help text offers, sorted: ``--seeds INT = 3``; explanations are left out."""
    entries: list[str] = []
    for line in text.replace("│", " ").splitlines():
        if re.match(r"  (--?\w|\[*PATH)", line):
            entries.append(re.sub(r"  +", "  ", line.strip()))
        elif entries and line.startswith("    ") and line.strip():
            entries[-1] += ("  " if "  " not in entries[-1] else " ") + line.strip()
    flags = []
    for entry in entries:
        flag, _, explanation = entry.partition("  ")
        default = re.search(r"\((?:default: ?(.*)|(required))\)$", explanation)
        if default:
            flags.append(f"{flag} = {default[2] or default[1]}".strip())
    return sorted(flags)


def outcome_of(command, *args):
    """Exit code of a command run in this process, as ``python -m experiments.NAME`` does."""
    with pytest.MonkeyPatch.context() as patched, pytest.raises(SystemExit) as stop:
        patched.setattr(sys, "argv", [command, *args])
        patched.setenv("COLUMNS", "100")
        patched.delitem(sys.modules, f"experiments.{command}", raising=False)
        runpy.run_module(f"experiments.{command}", run_name="__main__")
    return stop.value.code


def test_every_command_has_its_flags_listed():
    assert set(golden_flags()) == PRESENT - set(RENAMED)


@pytest.mark.parametrize("command", sorted(golden_flags()))
def test_flags_and_defaults_are_those_listed(command, capsys):
    assert outcome_of(command, "--help") in (None, 0)
    assert flags_of(capsys.readouterr().out) == golden_flags()[command]


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_names_say_the_new_one(old, new, capsys):
    assert outcome_of(old, "--seeds", "3") == 2
    told = capsys.readouterr()
    assert told.err == f"error: experiments.{old} is called experiments.{new} now\n"
    assert told.out == ""
