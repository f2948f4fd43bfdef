"""Where pages find the tables of a run folder; they are read by `imp_rg.runs.run_tables`."""

from imp_rg.runs.run_tables import RunTables as RunTables
from imp_rg.runs.run_tables import read_tables as read_tables
from imp_rg.runs.run_tables import select as select
