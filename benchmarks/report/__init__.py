"""The report: a Markdown file with pictures beside it, and one HTML page that holds everything."""

from benchmarks.report.write import write_report as write_report

__all__ = ["write_report"]
