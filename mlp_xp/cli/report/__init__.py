"""HTML reports of one run, or of several runs side by side.

Each report is a single HTML file without links to other files. Text from data or settings is
escaped. These modules only arrange numbers and plots that are computed elsewhere.
"""

from mlp_xp.cli.report._pages import Evaluation, write_comparison, write_report

__all__ = ["Evaluation", "write_comparison", "write_report"]
