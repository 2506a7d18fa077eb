"""Names that hold HTML, JavaScript or Matplotlib's mathematics are shown as they are."""

from html.parser import HTMLParser

import pytest
from typing_extensions import override

from tests.compare.helpers import evaluation, write_run
from wavegan_dist.compare import compare

SCRIPT = "<script>alert(1)</script>"
NAMES = ("_<img src=x onerror=alert(1)>", "a\" onload='x' & $\\frac$ _ $^$")


class Tags(HTMLParser):
    """The tags of a page and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: dict[str, list[dict[str, str | None]]] = {}
        self.text = ""
        self.feed(page)

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.setdefault(tag, []).append(dict(attrs))

    @override
    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Tags:
    folder = tmp_path_factory.mktemp("runs")
    runs = []
    for number, name in enumerate(NAMES):
        results = {}
        for nimg in (1000, 2000):
            result = evaluation(nimg, metric=f"kid_{SCRIPT}$_$", classes=(f"{SCRIPT}0", "<b>dog</b>"))
            result["protocol"]["git_commit"] = f"<i>{SCRIPT}"
            result["protocol"]["device"] = f"cpu{number}<u>"
            results[f"kimg-00000{nimg // 1000}"] = result
        environment = {"device": "<s>cpu", "world_size": "<u>2"}
        runs.append(str(write_run(folder / name, results, environment, base_only=bool(number))))
    return Tags(compare(runs, folder / "<out>").read_text())


def test_the_page_has_no_tags_but_its_own(page: Tags) -> None:
    assert {"script", "b", "i", "u", "s"}.isdisjoint(page.tags)
    assert all(set(attributes) == {"alt", "src"} for attributes in page.tags["img"])
    assert all(attributes["src"].startswith("data:image/png") for attributes in page.tags["img"])


@pytest.mark.parametrize("text", [*NAMES, f"{SCRIPT}0", "<b>dog</b>", f"kid_{SCRIPT}$_$", f"<i>{SCRIPT}", "<s>cpu", "<u>2"])
def test_the_page_shows_the_names_as_they_are(page: Tags, text: str) -> None:
    assert text in page.text
