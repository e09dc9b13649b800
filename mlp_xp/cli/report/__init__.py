"""Report pages for one run, and for several side by side.

Each is one HTML file without links to other files. Text from data or settings is escaped. This
folder only arranges numbers and plots that are computed elsewhere.
"""

from mlp_xp.cli.report._pages import Evaluation, write_comparison, write_report

__all__ = ["Evaluation", "write_comparison", "write_report"]
