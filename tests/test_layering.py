"""Imports point one way, and light parts stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "imp_rg"

LAYERS = [
    {"types", "config", "pytree", "blocks"},
    {"data"},
    {"models"},
    {"flow"},
    {"imp", "rg"},
    {"tickets"},
    {"io", "published"},
    {"reading"},
    {"plots"},
    {"report"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
INSIDE_BASE = ("types", "config", "pytree", "blocks")


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (names if node.module in ("imp_rg", "experiments") else [node.module])
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def modules():
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports_of(path):
        parts = module.split(".")
        assert parts[0] not in ("experiments", "tests"), f"{path.name} imports {module}"
        if parts[0] != "imp_rg" or parts[1] == own:
            continue
        other = parts[1]
        is_base = own in INSIDE_BASE and other in INSIDE_BASE
        if is_base:
            assert INSIDE_BASE.index(other) < INSIDE_BASE.index(own) or other == "types"
        else:
            assert RANK[other] < RANK[own], f"{own} imports {other}"


def test_every_module_has_a_layer():
    assert {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in modules()} <= set(RANK)


def test_files_are_touched_at_the_edge_only():
    """Matplotlib in plots, Orbax and safetensors in io."""
    for path in modules():
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        roots = {module.split(".")[0] for module in imports_of(path)}
        assert "matplotlib" not in roots or own == "plots"
        assert not roots & {"orbax", "safetensors"} or own == "io"


def test_parts_of_experiments_import_no_command():
    experiments = PACKAGE.parent / "experiments"
    commands = {path.stem for path in experiments.glob("*.py")} - {"__init__"}
    for path in (experiments / "parts").rglob("*.py"):
        for module in imports_of(path):
            own = module.split(".")[1:2] if module.startswith("experiments.") else []
            assert not commands & set(own), f"{path.relative_to(experiments)} imports {module}"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("imp_rg", {"jax", "flax", "optax", "orbax", "pandas", "matplotlib"}),
        ("imp_rg.rg", {"jax", "flax", "optax", "orbax", "pandas", "matplotlib"}),
        ("imp_rg.flow", {"flax", "optax", "orbax", "pandas", "matplotlib"}),
        ("imp_rg.imp.levels", {"orbax", "pandas", "matplotlib", "tensorflow_datasets"}),
    ],
)
def test_light_imports(module, absent):
    code = f"import sys, {module}; print(*sorted({absent!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert done.stdout.strip() == ""


def test_public_names_resolve():
    import imp_rg

    for name in imp_rg.__all__:
        assert getattr(imp_rg, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        imp_rg.nothing  # noqa: B018  (the look-up is the test)
