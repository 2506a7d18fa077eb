"""Data of others: indexes, tars, zips and pictures."""

import io
import tarfile
import zipfile
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import torch
from typing_extensions import override

from tests.data.odd_files import KINDS, READ_BY_TRAINING, odd_files
from tests.data.odd_pictures import photograph
from tests.fuzz.harness import Target, read_files
from tests.fuzz.mutate import Files
from wavegan_dist.data import Index, index_shards, write_shards
from wavegan_dist.data.codec import DecodeError, decode, encode, read_picture
from wavegan_dist.data.decode_batch import decode_batch
from wavegan_dist.data.labels import classes_for_training
from wavegan_dist.data.loader import epoch_keys
from wavegan_dist.data.picture import Picture
from wavegan_dist.data.read import Reader
from wavegan_dist.data.sources import list_pictures
from wavegan_dist.data.tars import key_at, walk
from wavegan_dist.data.verify import info, info_table, verify_shards
from wavegan_dist.data.zips import open_zip

SIDE = 32
IMAGES = 6


class Indexes(Target):
    """index.json and members.npy with shards: loaded, described, verified, and read as training reads them."""

    @override
    def seeds(self, scratch: Path) -> list[Files]:
        for label in ("cat", "dog"):
            for number in range(IMAGES // 2):
                path = scratch / "pictures" / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode(photograph(number), "png"))
        source = str(scratch / "pictures")
        write_shards(source, scratch / "plain", SIDE, encoding="jpg", shard_images=IMAGES)
        write_shards(source, scratch / "labeled", SIDE, encoding="jpg", labels=True, shard_images=IMAGES // 2)
        write_shards(source, scratch / "chosen", SIDE, encoding="jpg", labels=True, shard_images=IMAGES // 2)
        index_shards(scratch / "chosen", classes="1")
        return [read_files(scratch / name) for name in ("plain", "labeled", "chosen")]

    @override
    def mutated(self, files: Files, rng: Random) -> Files:
        described = {name: content for name, content in files.items() if name in ("index.json", "members.npy")}
        return files | super().mutated(described, rng)

    @override
    def read(self, folder: Path) -> None:
        index = Index.load(folder)
        info(index)
        info_table(index)
        verify_shards(folder)
        rows = index.order(0).batch(0, min(index.count, IMAGES))
        decode_batch(Reader(index), rows, torch.empty(len(rows), index.size, index.size, 3, dtype=torch.uint8))
        next(epoch_keys(index, seed=0, epoch=0, world_size=1, workers=0, batch_size=2))
        if index.classes:
            classes_for_training(index, 2)


class Tars(Target):
    """A tar of another tool: indexed, and its pictures read. What was indexed must be verified without a problem."""

    @override
    def seeds(self, scratch: Path) -> list[Files]:
        formats = {"ustar": tarfile.USTAR_FORMAT, "pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT}
        return [{"a.tar": _tar(number, name, format)} for number, (name, format) in enumerate(formats.items())]

    @override
    def mutated(self, files: Files, rng: Random) -> Files:
        """Change a tar. Its headers often get the right checksums, without which tarfile reads no further."""
        changed = {"a.tar": b"", **super().mutated(files, rng)}
        return {"a.tar": _with_checksums(changed["a.tar"])} if rng.random() < 0.7 else changed

    @override
    def read(self, folder: Path) -> None:
        path = folder / "a.tar"
        members = list(walk(path))
        for member in members:
            if member.size:
                key_at(path, member.offset)
        listing = list_pictures(str(folder), SIDE, cut_patches=False, labels=False)
        for picture in listing.pictures[:2]:
            list(picture.images(SIDE))
        index_shards(folder)
        problems = verify_shards(folder)
        assert not problems, problems


def _with_checksums(tar: bytes) -> bytes:
    blocks = [tar[start : start + 512] for start in range(0, len(tar), 512)]
    for number, block in enumerate(blocks):
        if block[257:262] == b"ustar":
            total = sum(block[:148]) + sum(block[156:]) + 8 * 32
            blocks[number] = block[:148] + b"%06o\0 " % total + block[156:]
    return b"".join(blocks)


def _tar(number: int, name: str, format: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        directory = tarfile.TarInfo("folder")
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        for image in range(2):
            key = f"folder/{'long' * (30 if name != 'ustar' else 10)}{image}"
            for ending, content in (("cls", b"%d" % image), ("jpg", encode(photograph(number + image), "jpg"))):
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size, member.mtime = len(content), 1.5 if name == "pax" else 1
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Pictures(Target):
    """A picture: decoded as training does and as `shards write` does. Both must see the same."""

    memory = 1024 * 2**20  # of a picture with 89 million pixels in several color modes

    @override
    def seeds(self, scratch: Path) -> list[Files]:
        files = [file for file in odd_files(SIDE, SIDE, count=len(KINDS)) if file.pixels is not None]
        for_training = [{"picture": file.content} for file in files if file.extension in READ_BY_TRAINING]
        return 3 * for_training + [{"picture": file.content} for file in files if file.extension not in READ_BY_TRAINING]

    @override
    def mutated(self, files: Files, rng: Random) -> Files:
        return {"picture": b"", **super().mutated(files, rng)}

    @override
    def read(self, folder: Path) -> None:
        content = (folder / "picture").read_bytes()
        try:
            decoded = decode(content, SIDE)
        except DecodeError:
            decoded = None
        try:
            image = read_picture(content)
        except Exception as error:
            if decoded is not None:
                raise AssertionError("only training decodes it") from error
            list(Picture("picture", "", -1, 0, partial(read_picture, content)).images(SIDE))
            raise
        if decoded is not None:
            np.testing.assert_array_equal(np.asarray(image), decoded)


class Zips(Target):
    """A zip of another tool: listed, and its pictures read."""

    @override
    def seeds(self, scratch: Path) -> list[Files]:
        seeds = []
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", method) as archive:
                for number in range(2):
                    archive.writestr(f"class{number}/{number}.jpg", encode(photograph(number), "jpg"))
                archive.writestr("class0/without extension", encode(photograph(2), "png"))
            seeds.append({"a.zip": buffer.getvalue()})
        return seeds

    @override
    def read(self, folder: Path) -> None:
        open_zip.cache_clear()
        listing = list_pictures(str(folder / "a.zip"), SIDE, cut_patches=False, labels=True)
        for picture in listing.pictures:
            list(picture.images(SIDE))
