"""One data model, rendered for people and for machines."""

from __future__ import annotations

from gms_rt.report.model import Report
from gms_rt.report.write import write_report

__all__ = ["Report", "write_report"]
