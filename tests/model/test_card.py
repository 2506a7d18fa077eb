"""The model card shows what a snapshot of somebody else says as it is: no Markdown, HTML or link of its author."""

import json
import re
from collections import Counter
from html import escape

import pytest
from markdown_it import MarkdownIt

from tests.compare.helpers import evaluation
from tests.model.snapshots import write_snapshot
from wavegan_dist import WaveletGenerator

CLASSES = ("<script>alert(1)</script>", "[a](javascript:alert(1)) | **b**", "![c](http://track.er/x.png)`d`")
COMMIT = "`</td><img src=x onerror=alert(2)>\n\n# heading"


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The card of a snapshot of hostile names, as HTML."""
    folder = tmp_path_factory.mktemp("card")
    snapshot = write_snapshot(folder / "snapshot", num_classes=3)
    meta = json.loads((snapshot / "snapshot.json").read_text())
    meta |= {"classes": {"counts": [1, 1, 1], "names": CLASSES}, "git_commit": COMMIT, "packages": ["torch"]}
    meta |= {"index_digest": "1`<b>|x", "wavegan-dist": "<i>1</i>", "command": ["__main__.py", "a\n\n# b\n[c](d)", 7]}
    (snapshot / "snapshot.json").write_text(json.dumps(meta))
    result = evaluation(2000, metric="kid_|`<u>x</u>`")
    result["protocol"] |= {"snapshot_sha256": meta["weights_sha256"], "device": "*cpu*", "wavegan_dist": "[2](e)"}
    (snapshot / "evaluation.json").write_text(json.dumps(result))
    WaveletGenerator.from_pretrained(snapshot).save_pretrained(folder / "out")
    _, _, text = (folder / "out" / "README.md").read_text().split("---\n", 2)
    return str(MarkdownIt("commonmark", {"linkify": False}).enable("table").render(text))


def test_the_card_has_no_markup_but_its_own(card: str) -> None:
    tags = Counter(re.findall(r"<(\w+)", card))
    own = {"img": 1, "h1": 1, "h2": 4, "em": 1, "table": 2, "thead": 2, "tbody": 2, "tr": 9 + 4, "pre": 2}
    assert {tag: tags.pop(tag) for tag in own} == own
    assert set(tags) == {"p", "td", "th", "code"}


@pytest.mark.parametrize("text", [escape(CLASSES[0]), CLASSES[1], "`d`", "*cpu*", "[2](e)", "&lt;i&gt;1&lt;/i&gt;"])
def test_the_card_shows_the_names_as_they_are(card: str, text: str) -> None:
    assert text in card
