"""Runs on disk: written, read, whoever made them, and compared.

In: paths. Out: a `Flow` each, and a `Comparison` of several. Nothing is trained, and a level is
read only when its turn comes.
"""

from typing import TYPE_CHECKING

from imp_rg.lazy import lazy_names

if TYPE_CHECKING:
    from imp_rg.runs.comparison import compare as compare
    from imp_rg.runs.flow import Flow as Flow
    from imp_rg.runs.recognize import read as read

_HOMES = {"comparison": ("compare",), "flow": ("Flow",), "recognize": ("read",)}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
