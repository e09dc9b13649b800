"""Reports as pages: of a run, and of several side by side.

Each is one HTML file without links to other files. What comes from data or settings is escaped.
This folder only arranges numbers and plots that are made elsewhere.
"""

from mlp_xp.cli.report._pages import Evaluation, write_comparison, write_report

__all__ = ["Evaluation", "write_comparison", "write_report"]
