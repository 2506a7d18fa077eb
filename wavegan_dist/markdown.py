"""Texts of other people in Markdown: shown as they are, without markup, links, pictures and HTML."""

import re


def plain(text: object) -> str:
    """Return Markdown that shows a text on one line, also in a table."""
    return re.sub(r"([\\`*_{}\[\]()<>#!|~&])", r"\\\1", " ".join(str(text).split()))


def code(text: object) -> str:
    """Return Markdown that shows a text on one line as code, also in a table. Leaves out backticks and pipes."""
    return f"`{' '.join(re.sub('[`|]', ' ', str(text)).split()) or '-'}`"
