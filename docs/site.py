"""Hooks of MkDocs: pages from outside docs/, and links to files that have no page."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = {  # page: the file that it is made from
    "index.md": "README.md",
    "benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of OUTSIDE."""
    for page, source in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point relative links to pages of the site. A link to a file without a page becomes the path of the file.

    Raises:
        PluginError: the target of a link does not exist.
    """
    source = ROOT / OUTSIDE.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return LINK.sub(lambda match: _resolve(match, source), markdown)


def _resolve(match: re.Match[str], source: Path) -> str:
    mark, text, target = match.groups()
    path, hash_sign, anchor = target.partition("#")
    if "://" in target or not path:
        return match[0]
    file = (source.parent / path).resolve()
    if not file.exists():
        raise PluginError(f"{source.relative_to(ROOT)} links to {path}, which does not exist")
    name = file.relative_to(ROOT).as_posix()
    pages = {of: page for page, of in OUTSIDE.items()}
    page = name.removeprefix("docs/") if name.startswith("docs/") else pages.get(name)
    return f"{text} (`{name}`)" if page is None else f"{mark}[{text}]({page}{hash_sign}{anchor})"
