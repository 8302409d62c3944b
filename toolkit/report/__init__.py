"""What a reader sees: tables, figures and the page, drawn from predictions and scores alone.

Nothing here fits or searches; numbers are computed in :mod:`toolkit.validation`.
"""

from toolkit.report.figures import compute_confusion, plot_confusion, save_figure
from toolkit.report.page import format_report

__all__ = ["compute_confusion", "format_report", "plot_confusion", "save_figure"]
