"""The page of a run: a pure function of its folder, whoever wrote it."""

from imp_rg.report.run_page import write_report as write_report
