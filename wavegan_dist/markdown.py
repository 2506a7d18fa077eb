"""Texts of other people in Markdown: shown as they are, without markup, links, pictures and HTML."""

import re


def plain(text: object) -> str:
    """Return Markdown that shows a text on one line, also in a table."""
    return re.sub(r"([\\`*_{}\[\]()<>#!|~&])", r"\\\1", _line(text))


def code(text: object) -> str:
    """Return Markdown that shows a text on one line as code, also in a table. Leaves out backticks and pipes."""
    return f"`{_line(re.sub('[`|]', ' ', str(text))) or '-'}`"


def _line(text: object) -> str:
    """Return a text on one line. Bytes of file names that are not UTF-8 are written as \\udcNN."""
    return " ".join(str(text).encode("utf-8", "backslashreplace").decode().split())
