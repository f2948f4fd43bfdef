"""Public names of a package that import their modules on first use (PEP 562).

A plain run needs a third of the library: what it does not name is not imported.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    Args:
      package: Its name.
      homes: From each module below it to the public names that live there; an empty list stands
        for the module itself.

    Returns:
      The two functions, to be bound in the package. A name must not be that of a module beside it,
      which would take its place once imported.
    """
    home_of = {name: home for home, names in homes.items() for name in names}
    public = sorted([*home_of, *(home for home, names in homes.items() if not names)])

    def find(name: str) -> Any:
        if name not in public:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{home_of.get(name, name)}")
        return getattr(module, name) if name in home_of else module

    return find, lambda: public
