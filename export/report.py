"""The report on one run, from the dictionary that report.json holds to Markdown and HTML.

Renders what was measured and measures nothing. Any figure may be absent: it is shown as a dash. Shares, gaps
and intervals are fractions of 1, times are seconds or milliseconds as their key says, `size.ratio` is the
teacher's fp32 bytes over `model_bytes`.
"""

from export.report_html import render_html
from export.report_markdown import render_markdown

__all__ = ["render_html", "render_markdown"]
