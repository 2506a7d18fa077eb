"""Open pages in headless Chromium."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)
NO_CHROMIUM = "no Chromium: apt-get install chromium-headless-shell"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")


class Browser:
    """A browser that shows one page at a time.

    Args:
        context: Playwright's browser context.
        noise: parts of messages that are no complaints.

    Attributes:
        complaints: messages of the console, and exceptions, of all pages so far.
    """

    def __init__(self, context: BrowserContext, noise: tuple[str, ...] = ()) -> None:
        self.context, self.noise = context, noise
        self.complaints: list[str] = []

    def open(self, url: str, size: tuple[int, int] = (1300, 1600)) -> Page:
        """Close the last page and open a new one with a window of `size` pixels."""
        for page in self.context.pages:
            page.close()
        page = self.context.new_page()
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.on("console", lambda message: self._complain(f"{message.text} ({message.location['url']})"))
        page.on("pageerror", lambda error: self._complain(str(error)))
        page.goto(url)
        return page

    def _complain(self, text: str) -> None:
        if not any(part in text for part in self.noise):
            self.complaints.append(text)


@contextmanager
def start_browser(noise: tuple[str, ...] = ()) -> Iterator[Browser]:
    """Start a browser that reaches files and the servers of this machine, and no network."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield Browser(browser.new_context(), noise)
        browser.close()


def picture_widths(page: Path, scratch: Path) -> list[int]:
    """Open a page without a network, write scratch/page.png (1300 x 1600) and return the width of each picture.

    The width of a picture that did not load is 0. Fails if the browser has a complaint about the page.
    """
    with start_browser() as browser:
        opened = browser.open(page.as_uri())
        opened.screenshot(path=scratch / "page.png")
        widths: list[int] = opened.evaluate("[...document.images].map(image => image.complete ? image.naturalWidth : 0)")
        assert browser.complaints == []
    return widths
