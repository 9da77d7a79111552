"""A report as Markdown with pictures beside it, and as one HTML page with the pictures in it."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report.tables import Table


@dataclass(frozen=True)
class Picture:
    """A picture: the name of its file, what it shows, and its PNG bytes."""

    name: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Section:
    """A heading of level 2 or 3, and under it paragraphs, tables and pictures in order."""

    title: str
    level: int
    content: Sequence[str | Table | Picture]


STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 76em; margin: 2em auto; padding: 0 1em; color: #111; }
h2 { border-bottom: 2px solid #111; margin-top: 2.5em; }
table { border-collapse: collapse; margin: .4em 0 1.2em; }
caption { text-align: left; font-weight: 600; padding: .3em 0; }
th, td { padding: .15em .7em; border-bottom: 1px solid #ccc; text-align: right; vertical-align: top; }
th:first-child, td:first-child, .words td { text-align: left; }
thead th { border-bottom: 1.5px solid #111; }
.tables { display: flex; flex-wrap: wrap; gap: 0 3em; align-items: flex-start; }
img { max-width: 100%; }
@media print { h2 { break-before: page; } }
"""


def markdown_page(title: str, sections: Sequence[Section]) -> str:
    """Markdown; pictures are linked as files in the same folder."""
    blocks = [f"# {title}"]
    for section in sections:
        blocks.append(f"{'#' * section.level} {section.title}")
        blocks += [_markdown(item) for item in section.content]
    return "\n\n".join(blocks) + "\n"


def _markdown(item: str | Table | Picture) -> str:
    if isinstance(item, Picture):
        return f"![{item.caption}]({item.name})"
    if isinstance(item, str):
        return item
    head = [f"**{item.title}**", "", _markdown_row(item.header), "|" + " --- |" * len(item.header)]
    rows = [
        _markdown_row([f"**{text}**" if (r, c) in item.bold else text for c, text in enumerate(row)])
        for r, row in enumerate(item.rows)
    ]
    return "\n".join([*head, *rows])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def html_page(title: str, sections: Sequence[Section]) -> str:
    """One HTML page that needs no other file."""
    body = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        body.append(f"<h{section.level}>{html.escape(section.title)}</h{section.level}>")
        body.append('<div class="tables">' if _only_tables(section) else "<div>")
        body += [_html(item) for item in section.content]
        body.append("</div>")
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return "\n".join(["<!doctype html>", f'<html lang="en"><head>{head}</head><body>', *body, "</body></html>", ""])


def _only_tables(section: Section) -> bool:
    return all(isinstance(item, Table) for item in section.content)


def _html(item: str | Table | Picture) -> str:
    if isinstance(item, Picture):
        data = base64.b64encode(item.png).decode()
        return f'<p><img alt="{html.escape(item.caption)}" src="data:image/png;base64,{data}"></p>'
    if isinstance(item, str):
        return f"<p>{html.escape(item)}</p>"
    rows = [
        "".join(f"<td>{_bold(text, (r, c) in item.bold)}</td>" for c, text in enumerate(row))
        for r, row in enumerate(item.rows)
    ]
    header = "".join(f"<th>{html.escape(text)}</th>" for text in item.header)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    kind = ' class="words"' if item.words else ""
    caption = f"<caption>{html.escape(item.title)}</caption>"
    return f"<table{kind}>{caption}<thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"


def _bold(text: str, bold: bool) -> str:
    return f"<b>{html.escape(text)}</b>" if bold else html.escape(text)
