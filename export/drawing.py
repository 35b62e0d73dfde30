"""How a chart becomes SVG text that takes its colours and fonts from the page around it.

matplotlib draws with stand-in colours, which become CSS variables (`var(--teacher)`), so one drawing reads
well on a light and on a dark page. Knows no report.
"""

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from export.report_wording import shortest

_ROLES = ("ink", "muted", "line", "card", "teacher", "student", "fp32", "baseline")
COLOURS = {role: f"#0102{index:02x}" for index, role in enumerate(_ROLES)}
_SIZE_INCHES = (4.3, 2.6)
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 8.5,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "ytick.left": False,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "savefig.transparent": True,
}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def svg(title: str, draw: Callable[[Axes], None], size_inches: tuple[float, float] = _SIZE_INCHES) -> str:
    """Return what `draw` draws as an element of an HTML page, under a title for those who cannot see it."""
    with rc_context(_STYLE | {"svg.hashsalt": title}):  # the salt keeps ids of several drawings apart
        figure = Figure(figsize=size_inches, layout="constrained")
        draw(figure.add_subplot())
        drawing = io.StringIO()
        figure.savefig(drawing, format="svg", metadata=_NO_METADATA)
    return _for_page(drawing.getvalue(), title)


def plain_numbers(axis: Axis, subs: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """Write the ticks of a logarithmic axis as numbers, at these multiples of each power of ten."""
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: shortest(value)))
    axis.set_minor_locator(NullLocator())


def _for_page(drawing: str, title: str) -> str:
    """Turn a standalone SVG document into an element of an HTML page: no URLs, no fixed size or colour."""
    match = re.search(r'viewBox="([^"]+)"', drawing)
    box = match.group(1) if match else "0 0 338 198"
    inside = drawing[drawing.index("<defs>") : drawing.rindex("</svg>")]
    inside = re.sub(r"<metadata>.*?</metadata>", "", inside, flags=re.DOTALL)
    inside = re.sub(r'<g id="[^"]*">', "<g>", inside)
    inside = re.sub(r"\s*<!--.*?-->", "", inside, flags=re.DOTALL)
    inside = re.sub(r"font-family: [^;\"]*;? ?", "", inside)
    inside = inside.replace("xlink:href", "href")
    for role, colour in COLOURS.items():
        inside = inside.replace(colour, f"var(--{role})")
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(title)}">\n{inside.strip()}\n</svg>'
