"""The parts that every HTML page of ours is made of: the document, sections, figures and tables.

No script and no external address; the page's content policy forbids what could load or run. Text passes through
`escape` here, markup that was made here does not.
"""

from collections.abc import Iterable
from html import escape

from export.report_style import STYLE
from export.report_tables import Table

_NOT_MEASURED = '<p class="note">Not measured.</p>'


def document(title: str, body: str, footer: str) -> str:
    """Return a self-contained HTML document; `title` is text, `body` and `footer` are markup."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)} · Potstill</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{body}
<footer>{footer}</footer>
</main>
</body>
</html>
"""


def section(name: str, body: str) -> str:
    """Return a section under its heading."""
    return f'<section id="{anchor(name)}"><h2>{name}</h2>{body}</section>\n'


def anchor(name: str) -> str:
    """Return what a link to the section of that name points to."""
    return name.lower().replace(" ", "-")


def figures(cards: Iterable[tuple[str, str, str]]) -> str:
    """Return cards of (what it is, the value, what stands below), all text."""
    items = (
        f'<div class="card"><dt>{escape(term)}</dt><dd class="value">{escape(value)}</dd>'
        f'<dd class="meta">{escape(below)}</dd></div>'
        for term, value, below in cards
    )
    return f'<dl class="cards">{"".join(items)}</dl>'


def figure(title: str, caption: str, chart: str | None) -> str:
    """Return a chart under its title and caption, or a note that there is none."""
    return f"<figure><h3>{title}</h3><figcaption>{caption}</figcaption>{chart or _NOT_MEASURED}</figure>"


def card(table: Table, title: str | None = None) -> str:
    """Return a table on a card, under `title` or its own."""
    heading = escape(table.title if title is None else title)
    return f'<div class="card">{f"<h3>{heading}</h3>" if heading else ""}{_table(table)}</div>'


def folded(table: Table) -> str:
    """Return a table that opens on a click."""
    return f'<details class="card"><summary>{escape(table.title)}</summary>{_table(table)}</details>'


def _table(table: Table) -> str:
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    if not table.rows:
        return note
    heads = "".join(
        f'<th scope="col"{_figure_class(table, index)}>{escape(name)}</th>' for index, name in enumerate(table.columns)
    )
    head = f"<thead><tr>{heads}</tr></thead>" if any(table.columns) else ""
    body = "".join(f"<tr>{''.join(_cell(table, *cell) for cell in enumerate(row))}</tr>" for row in table.rows)
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>{note}'


def _cell(table: Table, index: int, text: str) -> str:
    if index == 0:
        return f'<th scope="row">{breakable(text)}</th>'
    kinds = {"result": f' class="result-{text.lower()}"', "detail": ' class="detail"'}
    return f"<td{kinds.get(table.columns[index]) or _figure_class(table, index)}>{breakable(text)}</td>"


def breakable(text: str) -> str:
    """Return escaped text whose long names may wrap between their words."""
    return escape(text).replace("_", "_<wbr>")


def _figure_class(table: Table, index: int) -> str:
    return ' class="figure"' if index >= table.text_columns else ""
