"""HTML that says everything without a style sheet: captioned tables of escaped text, for what a notebook shows of an object."""

import html
from collections.abc import Iterable, Sequence

_LEFT = "style='text-align:left'"


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table whose first column names the row; every text is escaped."""
    head = "".join(f"<th scope='col' {_LEFT}>{_text(cell)}</th>" for cell in heads)
    body = "".join(
        f"<tr><th scope='row' {_LEFT}>{_text(row[0])}</th>"
        + "".join(f"<td {_LEFT}>{_text(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    top = f"<thead><tr>{head}</tr></thead>" if heads else ""
    return f"<table><caption {_LEFT}>{_text(caption)}</caption>{top}<tbody>{body}</tbody></table>"


def facts(caption: str, rows: Iterable[tuple[str, object]]) -> str:
    """Return names and values as a table without a head."""
    return table(caption, (), rows)


def paragraph(text: str) -> str:
    """Return one paragraph of plain text."""
    return f"<p>{_text(text)}</p>"


def _text(value: object) -> str:
    return html.escape(str(value))
