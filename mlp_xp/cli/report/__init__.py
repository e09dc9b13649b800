"""Reports as pages: of a run, and of several side by side.

Each is one HTML file without links to other files. What comes from data or settings is escaped.
Numbers and pictures are made elsewhere: here they are arranged.
"""

from mlp_xp.cli.report._compare import write_comparison
from mlp_xp.cli.report._run import Evaluation, write_report

__all__ = ["Evaluation", "write_comparison", "write_report"]
