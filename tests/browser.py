"""Open a page in headless Chromium."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium-headless-shell")
ASK_WIDTHS = (
    "<script>addEventListener('load', () => { document.body.dataset.pictures = JSON.stringify("
    "[...document.images].map(image => image.complete ? image.naturalWidth : 0)) })</script></body>"
)


def picture_widths(page: Path, scratch: Path) -> list[int]:
    """Open a copy of a page without a network, write scratch/page.png (1300 x 1600) and return the width of each picture.

    The width of a picture that did not load is 0. Only the copy has the script that asks for them. Fails if the browser has a
    complaint about the page.
    """
    probe = scratch / "probe.html"
    probe.write_text(page.read_text().replace("</body>", ASK_WIDTHS))
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
        f"--user-data-dir={scratch / 'profile'}", f"--screenshot={scratch / 'page.png'}", "--window-size=1300,1600",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", probe.as_uri(),
    ]  # fmt: skip
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert outcome.returncode == 0, outcome.stderr
    assert "CONSOLE" not in outcome.stderr, outcome.stderr
    found = re.search(r'data-pictures="(\[[^"]*\])"', outcome.stdout)
    assert found, outcome.stdout[-500:]
    widths: list[int] = json.loads(found[1])
    return widths
