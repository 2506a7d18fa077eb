"""Open a page in headless Chromium."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium-headless-shell")
ASK_WIDTHS = (
    "<script>addEventListener('load', () => { document.body.dataset.pictures = JSON.stringify("
    "[...document.images].map(image => image.complete ? image.naturalWidth : 0)) })</script></body>"
)


@dataclass(frozen=True)
class OpenedPage:
    """What a browser made of a page.

    Args:
        dom: the document after all scripts have run.
        console: lines of the browser's console.
    """

    dom: str
    console: list[str]

    @property
    def text(self) -> str:
        """The words of the document, without tags, with single spaces."""
        return words(self.dom)


def words(dom: str) -> str:
    """Return the words of a part of a document, without tags, scripts and styles, with single spaces."""
    visible = re.sub(r"<(style|script)\b.*?</\1>", "", dom, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", visible)).split())


def open_page(url: str, scratch: Path, size: tuple[int, int] = (1300, 1600), seconds: int = 0) -> OpenedPage:
    """Open a page, write scratch/page.png, and return the page.

    Args:
        url: a file, or an address of this machine; nothing else is reached.
        scratch: an existing folder for the browser's files.
        size: width and height of the window.
        seconds: how long the page's timers may run after it has loaded; waiting for the server does not count, and the browser
            skips the time in which nothing happens.
    """
    local = ", EXCLUDE 127.0.0.1" if url.startswith("http://127.0.0.1:") else ""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
        f"--user-data-dir={scratch / 'profile'}", f"--screenshot={scratch / 'page.png'}", f"--window-size={size[0]},{size[1]}",
        f"--host-resolver-rules=MAP * ~NOTFOUND{local}", *([f"--virtual-time-budget={seconds * 1000}"] if seconds else []),
        "--dump-dom", url,
    ]  # fmt: skip
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert outcome.returncode == 0, outcome.stderr
    return OpenedPage(outcome.stdout, [line for line in outcome.stderr.splitlines() if "CONSOLE" in line])


def picture_widths(page: Path, scratch: Path) -> list[int]:
    """Open a copy of a page without a network, write scratch/page.png (1300 x 1600) and return the width of each picture.

    The width of a picture that did not load is 0. Only the copy has the script that asks for them. Fails if the browser has a
    complaint about the page.
    """
    probe = scratch / "probe.html"
    probe.write_text(page.read_text().replace("</body>", ASK_WIDTHS))
    opened = open_page(probe.as_uri(), scratch)
    assert opened.console == []
    found = re.search(r'data-pictures="(\[[^"]*\])"', opened.dom)
    assert found, opened.dom[-500:]
    widths: list[int] = json.loads(found[1])
    return widths
