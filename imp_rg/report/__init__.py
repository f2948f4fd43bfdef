"""The page of a run: a pure function of its folder, whoever wrote it."""

from imp_rg.report.lead import LeadRow as LeadRow
from imp_rg.report.lead import lead_columns as lead_columns
from imp_rg.report.lead import lead_rows as lead_rows
from imp_rg.report.run_page import write_report as write_report
