"""The bounds that SECURITY.md states are those of the code."""

from PIL import Image

from tests.helpers import ROOT
from wavegan_dist.compare.mlflow_runs import LONGEST_NAME
from wavegan_dist.config import LARGEST_COUNT, RESOLUTIONS
from wavegan_dist.config.decode import LARGEST_TEXT, LARGEST_TREE
from wavegan_dist.config.explain import REASON_SHOWN, REASONS_SHOWN
from wavegan_dist.data.index import LONGEST_PATH
from wavegan_dist.data.metadata import _MAX_TEXT
from wavegan_dist.data.read import MAX_IMAGE_BYTES
from wavegan_dist.data.sources import MAX_FILE_BYTES
from wavegan_dist.data.storage import LARGEST_READ
from wavegan_dist.data.tars import MAX_EXTENDED_BYTES, MAX_MEMBERS

BOUNDS = {
    "pixels of a picture": Image.MAX_IMAGE_PIXELS,
    "bytes of a picture": MAX_FILE_BYTES,
    "side of an image": RESOLUTIONS[-1],
    "bytes of an encoded image": MAX_IMAGE_BYTES,
    "bytes of a compressed text": _MAX_TEXT,
    "members of a tar": MAX_MEMBERS,
    "bytes of a tar header": MAX_EXTENDED_BYTES,
    "label of an image": LARGEST_COUNT - 1,
    "bytes of the name of a shard": LONGEST_PATH,
    "bytes of index.json": LARGEST_READ,
    "characters of a YAML file": LARGEST_TEXT,
    "values in a YAML file": LARGEST_TREE,
    "classes of a model": LARGEST_COUNT,
    "bytes of the name under which a run": LONGEST_NAME,
    "explained mistakes": REASONS_SHOWN,
}


def test_the_table_of_bounds_has_the_numbers_of_the_code() -> None:
    rows = [line.strip("| ").split(" | ") for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")]
    stated = {what: largest for what, largest, _ in rows[1:]}
    for what, bound in BOUNDS.items():
        (row,) = (row for row in stated if row.startswith(what))
        assert stated[row].split()[0] == f"{bound:,}", row
    assert f"each of {REASON_SHOWN} characters" in " ".join(stated)
    assert len(stated) == len(BOUNDS) + 2  # data.cache_gib; 4 x model.safetensors
