"""Tars as WebDataset uses them: members `KEY.EXTENSION`, those of one key together. Written, walked and looked into."""

import re
import tarfile
from collections.abc import Collection, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from wavegan_dist.errors import WaveganError
from wavegan_dist.files import atomic_file

BLOCK = tarfile.BLOCKSIZE
EXTENDED = (b"x", b"g", b"L", b"K")  # types of the headers that carry a long name (PAX, GNU) for the header after them
LONGEST_EXTENSION = 64  # blocks, of such a header's content

_NAME = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)")  # WebDataset's own rule: the key ends at the basename's first dot


class Member(NamedTuple):
    """A file in a tar: `name` is `key`.`extension` (the latter in lower case); `size` bytes of content at `offset`."""

    name: str
    key: str
    extension: str
    offset: int
    size: int


class Sample(NamedTuple):
    """An image of a tar, and its label or -1."""

    image: Member
    label: int


def write_tar(path: Path, files: Iterable[tuple[str, bytes]]) -> list[tuple[str, tuple[int, int]]]:
    """Write (name, content) pairs as a tar whose bytes depend on them alone.

    Returns:
        Each name with offset and size of its content.
    """
    places = []
    with atomic_file(path, "wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            places.append((name, (tar.offset + BLOCK, len(content))))
            tar.addfile(header, BytesIO(content))
    return places


def walk(path: Path) -> Iterator[Member]:
    """The files of a tar in their order; no content is read. Names that WebDataset does not take for samples are left out.

    Raises:
        WaveganError: a link, a device, a sparse file or a name that leads out of the tar, named; or the tar is damaged
            or cut short: said after what is whole, where the stock readers end without a word.
    """
    with path.open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for header in tar:
                    if not header.isdir():
                        yield from _member(path, header)
                end = tar.offset
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise WaveganError(f"{path} is not a whole tar ({error}); copy it again or write it anew") from error
        file.seek(end)
        if file.read(BLOCK) != bytes(BLOCK):
            raise WaveganError(f"{path} is damaged or cut short at byte {end:,}; copy it again or write it anew")


def pair(path: Path, members: Iterable[Member], extensions: Collection[str]) -> list[Sample]:
    """The images among a tar's members, in their order, each with the label in the .cls member of its key.

    Raises:
        WaveganError: a name comes twice, a key has two images, or a .cls member is not a number from 0; named.
    """
    images: dict[str, Member] = {}
    classes: dict[str, Member] = {}
    for member in members:
        group = images if member.extension in extensions else classes if member.extension == "cls" else None
        if group is not None:
            if member.key in group:
                twice = f"{group[member.key].name} and {member.name}"
                raise WaveganError(f"{path} has two members of one key, {twice}; pack it again under keys of their own")
            group[member.key] = member
    with path.open("rb") as file:
        return [Sample(image, _label(path, file, classes[key]) if key in classes else -1) for key, image in images.items()]


def read_at(path: Path, offset: int, size: int) -> bytes:
    """So many bytes of a file from a place in it; fewer where it ends."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def key_at(path: Path, offset: int) -> str:
    """The key of the member whose content begins at `offset`, from its header: for messages and listings.

    Raises:
        WaveganError: there is no header before that place.
    """
    with path.open("rb") as file:
        start = offset - BLOCK
        while (earlier := _extension_before(file, start)) is not None:
            start = earlier
        file.seek(max(start, 0))
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                header = tar.next()
        except (tarfile.TarError, ValueError):
            header = None
    if header is None or header.offset_data != offset:
        raise WaveganError(f"{path} has no member at byte {offset:,}; find all damage with `wavegan shards verify`")
    found = _NAME.fullmatch(header.name)
    return found[1] if found else header.name


def _label(path: Path, file: BinaryIO, member: Member) -> int:
    file.seek(member.offset)
    text = file.read(min(member.size, 20)).strip()
    if not text.isdigit():
        raise WaveganError(f"{member.name} in {path} holds {text!r}, not a class number from 0; mend or leave out .cls members")
    return int(text)


def _member(path: Path, header: tarfile.TarInfo) -> Iterator[Member]:
    refuse_unsafe(f"{header.name} in {path}", header.name, regular=header.isreg() and not header.issparse())
    if found := _NAME.fullmatch(header.name):
        yield Member(header.name, found[1], found[2].lower(), header.offset_data, header.size)


def refuse_unsafe(where: str, name: str, *, regular: bool) -> None:
    """Raises WaveganError for a member of an archive that is no plain file inside it; the message calls it `where`."""
    if not regular:
        raise WaveganError(f"{where} is a link, a device or a sparse file, which are refused; pack plain files only")
    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name):
        raise WaveganError(f"{where} leads out of the archive, which is refused; pack it under a plain relative name")


def _extension_before(file: BinaryIO, header: int) -> int | None:
    """Place of the extended header whose content ends where `header` begins, if there is one."""
    start = max(header - (LONGEST_EXTENSION + 1) * BLOCK, header % BLOCK)
    file.seek(start)
    before = file.read(max(header - start, 0))
    for blocks in range(1, len(before) // BLOCK):
        place = len(before) - (blocks + 1) * BLOCK
        block = before[place : place + BLOCK]
        if block[156:157] in EXTENDED and block[257:262] == b"ustar":
            try:
                size = tarfile.TarInfo.frombuf(block, "utf-8", "replace").size
            except tarfile.HeaderError:  # the pixels of an image, by chance
                continue
            if -(-size // BLOCK) == blocks:
                return start + place
    return None
