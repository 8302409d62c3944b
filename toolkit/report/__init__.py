"""What a reader sees: tables, figures and the page, drawn from predictions and scores alone.

Nothing here fits or searches; numbers are computed in :mod:`toolkit.validation`.
"""

from toolkit.report.figures import compute_confusion, plot_confusion, save_figure
from toolkit.report.page import format_report
from toolkit.report.premium import (
    describe_premium,
    find_premiums,
    format_premium,
    plot_premium,
)

__all__ = [
    "compute_confusion",
    "describe_premium",
    "find_premiums",
    "format_premium",
    "format_report",
    "plot_confusion",
    "plot_premium",
    "save_figure",
]
