"""Runs read from disk, ours or made by other code, and compared.

In: paths. Out: a `Flow` each, and a `Comparison` of several. Nothing is trained, and a level is
read only when its turn comes.
"""

from imp_rg.runs.compare import compare as compare
from imp_rg.runs.flow import Flow as Flow
from imp_rg.runs.read import read as read
