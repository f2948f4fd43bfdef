"""Imports point one way, light parts stay light, and every library has its room."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS = [
    {"imp_rg.lazy", "imp_rg.types"},
    {"imp_rg.config"},
    {"imp_rg.pytree"},
    {"imp_rg.blocks"},
    {"imp_rg.data"},
    {"imp_rg.models", "imp_rg.flow"},
    {"imp_rg.imp", "imp_rg.rg"},  # which never import each other
    {"imp_rg.tickets", "imp_rg.nulls"},
    {"imp_rg.foreign", "imp_rg.published"},
    {"imp_rg.runs"},
    {"imp_rg.plots"},
    {"imp_rg.report"},
    {"experiments.shell"},
    {"experiments.trunk"},
    {"experiments.studies"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
COMMANDS = len(LAYERS)

ROOMS = {
    "matplotlib": {"imp_rg/plots"},
    "orbax": {"imp_rg/runs/checkpoints.py", "imp_rg/foreign"},
    "safetensors": {"imp_rg/runs/tickets.py", "imp_rg/foreign"},
    "fcntl": set(),  # filelock does it
}
"""Where else than in its room a library is not imported."""

MOST_MODULES = 90
"""Modules of ours that a plain run may import."""


def modules():
    paths = [*(ROOT / "imp_rg").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]
    tops = (ROOT / "imp_rg" / "__init__.py", ROOT / "experiments" / "__init__.py")
    return sorted(path for path in paths if path not in tops)


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path):
    """Modules a file names, wherever in it: `from package import name` may name a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (names if node.module in ("imp_rg", "experiments") else [node.module])
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room_of(module):
    return ".".join(module.split(".")[:2])


def rank_of(module):
    """Of commands, which are modules beside the packages of `experiments`, the highest."""
    room = room_of(module)
    return RANK.get(room, COMMANDS if room.startswith("experiments.") else -1)


IMPORTS = [(path, module) for path in modules() for module in imports_of(path)]


def test_imports_point_one_way():
    wrong = []
    for path, module in IMPORTS:
        own, top = name_of(path), module.split(".")[0]
        is_ours = top in ("imp_rg", "experiments") and module != top
        if is_ours and room_of(module) != room_of(own):
            is_right = 0 <= rank_of(module) < rank_of(own)
            wrong += [] if is_right else [f"{own} imports {module}"]
        assert top != "tests", f"{own} imports {module}"
    assert not wrong


def test_every_module_has_a_layer():
    rooms = {room_of(name_of(path)) for path in modules()}
    commands = {f"experiments.{path.stem}" for path in (ROOT / "experiments").glob("*.py")}
    assert rooms - commands == set(RANK)


def test_libraries_stay_in_their_rooms():
    wrong = []
    for path, module in IMPORTS:
        own = path.relative_to(ROOT).as_posix()
        rooms = ROOMS.get(module.split(".")[0])
        is_right = rooms is None or any(own.startswith(room) for room in rooms)
        wrong += [] if is_right else [f"{own} imports {module}"]
    assert not wrong


def test_nobody_imports_plots_for_a_type():
    wrong = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("imp_rg.plots"):
                is_inside = room_of(name_of(path)) == "imp_rg.plots"
                is_type = "Frame" in [alias.name for alias in node.names]
                wrong += [name_of(path)] if is_type and not is_inside else []
    assert not wrong


def imported_by(module):
    code = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("imp_rg", {"jax", "flax", "optax", "orbax", "pandas", "matplotlib"}),
        ("imp_rg.rg.spectrum", {"jax", "flax", "optax", "orbax", "pandas", "matplotlib"}),
        ("imp_rg.flow", {"flax", "optax", "orbax", "pandas", "matplotlib"}),
        ("imp_rg.imp.levels", {"orbax", "pandas", "matplotlib", "tensorflow_datasets"}),
        ("imp_rg.runs.recognize", {"matplotlib", "torch", "imp_rg.runs.checkpoints"}),
    ],
)
def test_light_imports(module, absent):
    assert not absent & imported_by(module)


def test_all_of_rg_needs_neither_networks_nor_a_device():
    """`imp_rg.rg` itself imports nothing before it is asked, so every module of it is imported."""
    paths = [*(ROOT / "imp_rg" / "rg").glob("*.py")]
    names = ", ".join(name_of(path) for path in paths)
    assert not {"jax", "flax", "optax", "orbax", "pandas", "matplotlib"} & imported_by(names)


def test_a_plain_run_imports_what_it_needs():
    names = imported_by("experiments.imp_flow")
    ours = {name for name in names if name.split(".")[0] in ("imp_rg", "experiments")}
    assert len(ours) <= MOST_MODULES, sorted(ours)
    others = ("imp_rg.foreign", "imp_rg.data.text", "imp_rg.data.views", "imp_rg.imp.hessian")
    assert not [name for name in ours if name.startswith(others)]
    studies = {name for name in ours if name.startswith("experiments.studies")}
    assert not studies


@pytest.mark.parametrize("package", ["imp_rg", "imp_rg.rg", "imp_rg.runs"])
def test_public_names_resolve(package):
    """Each after the others, whose modules must not take the place of a name."""
    import importlib

    module = importlib.import_module(package)
    for _ in range(2):
        for name in dir(module):
            value = getattr(module, name)
            assert value is not None
            is_room = package == "imp_rg" and name in ("foreign", "rg")
            assert type(value).__name__ != "module" or is_room, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        module.nothing  # noqa: B018  (the look-up is the test)
