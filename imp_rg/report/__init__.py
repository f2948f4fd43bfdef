"""The page of a run: a pure function of its folder, whoever wrote it."""

from imp_rg.report.lead import LEAD_COLUMNS as LEAD_COLUMNS
from imp_rg.report.lead import LeadRow as LeadRow
from imp_rg.report.lead import lead_rows as lead_rows
from imp_rg.report.page import write_report as write_report
