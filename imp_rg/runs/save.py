"""The one writer of run folders: of a run at work, level by level, and of a flow that was read.

In: a `Flow`. Out: the CSVs of the contract in a folder that `imp_rg.report.write_report` draws.
"""

from pathlib import Path

from imp_rg.runs.files import write_csv, write_json
from imp_rg.runs.flow import Flow
from imp_rg.runs.folder import RunFolder, describe_environment


def write_tables(folder: RunFolder, flow: Flow) -> None:
    """Writes ``flow.csv``, ``null_flow.csv`` and ``metrics.csv``: all levels so far."""
    write_csv(folder.table("flow"), flow.frame())
    write_csv(folder.table("null_flow"), flow.null_frame())
    write_csv(folder.table("metrics"), flow.metrics)


def write_flow(
    flow: Flow, path: Path, *, ci_level: float, command: str, seconds: float, fresh: bool = False
) -> RunFolder:
    """Writes settings, tables and environment.

    Args:
      flow: As `imp_rg.read` gives it.
      path: Folder; created, or one with the same settings.
      ci_level: Coverage of the intervals, in (0, 1).
      command: What was called, for the record.
      seconds: How long it took.
      fresh: Throw away a run with other settings that lies there.

    Returns:
      The folder.

    Raises:
      ValueError: If the folder holds something else, or `ci_level` is out of range.
      OSError: If it cannot be written.
    """
    spectrum = flow.spectrum_frame(ci_level=ci_level)
    folder = RunFolder(path, flow.settings | {"name": flow.name, "ci_level": ci_level}, fresh=fresh)
    write_tables(folder, flow)
    write_csv(folder.table("spectrum"), spectrum)
    if len(flow.observables):
        write_csv(folder.table("observables"), flow.observables)
    environment = describe_environment(command=command, seconds=seconds)
    write_json(folder.environment, environment | {"finished": True})
    return folder
