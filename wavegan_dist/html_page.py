"""Self-contained HTML pages: pictures are embedded and nothing is loaded."""

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path

from wavegan_dist.errors import UsageError
from wavegan_dist.files import check_folder

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1300px; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; }
.samples { display: flex; flex-wrap: wrap; gap: 1rem; }
.samples img { image-rendering: pixelated; width: 400px; }
figure { margin: 0; } figcaption { font-size: 13px; color: #555; }
img { max-width: 100%; }
"""


def document(title: str, sections: Iterable[tuple[str, str]], style: str = "", script: str = "") -> str:
    """Return a complete HTML document that loads no other file.

    Args:
        title: title and top heading, plain text.
        sections: heading (plain text) and content (HTML) of each section; sections without content are left out.
        style: CSS rules that are added to `STYLE`.
        script: JavaScript that runs when the page has been read; the page must make sense without it.
    """
    body = "\n".join(f"<section><h2>{escape(heading)}</h2>\n{content}</section>" for heading, content in sections if content)
    ending = f"<script>{script}</script>\n" if script else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<link rel="icon" href="data:,"><style>{STYLE}{style}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n{body}\n{ending}</body></html>\n"
    )


def page_path(out: Path) -> Path:
    """Return the file that a page is written to: `out` if it ends in .html or .htm, else `out`/index.html. Creates nothing.

    Args:
        out: the value of the command-line option --out.

    Raises:
        UsageError: `out` is a folder whose name ends in .html or .htm; or the folder of the page, or the part of its path that
            exists, is not a folder or may not be written to; or the folder does not exist and has the name of a file.
    """
    is_file = out.suffix.lower() in (".html", ".htm")
    if is_file and out.is_dir():
        raise UsageError(f"--out {out} is a folder; name a .html file, or a folder without .html in its name")
    folder = out.absolute().parent if is_file else out.absolute()
    check_folder(folder, f"--out {out}")
    return out if is_file else out / "index.html"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return an HTML table with a row of headings and rows of plain text. The table scrolls if it is wider than the page."""
    return table_of_html(map(escape, head), (map(escape, row) for row in rows))


def table_of_html(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return an HTML table with a row of headings; headings and cells are HTML, which is not escaped. A wide table scrolls."""
    header = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{header}</tr></thead>\n<tbody>{body}</tbody></table></div>\n'


def picture(png: bytes, text: str) -> str:
    """Return an HTML element that embeds a picture: `png` is the content of a PNG file, the plain `text` describes it."""
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def figure(png: bytes, text: str) -> str:
    """Return an HTML `figure` that embeds the PNG file content `png`, with the plain `text` as description and as caption."""
    return f"<figure>{picture(png, text)}<figcaption>{escape(text)}</figcaption></figure>"


def paragraph(text: str) -> str:
    """Return an HTML paragraph of plain text."""
    return f"<p>{escape(text)}</p>"
