"""Where pages find the tables of a comparison; see `imp_rg.runs.comparison_tables`."""

from imp_rg.runs.comparison_tables import ComparisonTables as ComparisonTables
from imp_rg.runs.comparison_tables import read_comparison as read_comparison
