"""Write, list and read WebDataset tars: members are named `KEY.EXTENSION`, and the members of one key form a sample."""

import re
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from wavegan_dist.config import LARGEST_COUNT
from wavegan_dist.data.folders import is_hidden
from wavegan_dist.data.formats import compression, describe_content, is_lfs_pointer, picture_extensions
from wavegan_dist.data.forward_file import ForwardFile
from wavegan_dist.data.left_out import HIDDEN, LeftOut
from wavegan_dist.data.remote import TransferError
from wavegan_dist.errors import WaveganError
from wavegan_dist.files import atomic_file

BLOCK = tarfile.BLOCKSIZE
EXTENDED_TYPES = (b"x", b"g", b"L", b"K")  # types of PAX and GNU headers that hold a long name for the header after them
MAX_EXTENDED_BLOCKS = 64  # largest content of such a header that `key_at` recognizes
MAX_EXTENDED_BYTES = 2**20  # largest content of such a header
MAX_MEMBERS = 2**22  # of a tar: their names take memory
LABEL = "cls"  # extension of the labels
LABEL_BYTES = 20  # read of a label

COMPANION = "beside an image of the same key"
WITHOUT_IMAGE = "without an image of the same key"
NO_EXTENSION = "without an extension, which WebDataset does not read"
DOTTED = "with a dot before the extension of a picture: WebDataset ends the key at the first dot; rename them in the tar"

_NAME = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)")  # WebDataset's rule: the key ends at the first dot of the file name


class Member(NamedTuple):
    """A file in a tar."""

    name: str  # `key`.`extension`
    key: str  # empty if WebDataset does not read the member: its base name has no extension, or nothing before it
    extension: str  # in lower case; empty if the key is
    offset: int  # of the content in the tar, in bytes
    size: int  # of the content, in bytes


class Sample(NamedTuple):
    """An image of a tar and its label; the label is -1 if the image has none."""

    image: Member
    label: int


def write_tar(path: Path, files: Iterable[tuple[str, bytes]]) -> list[tuple[str, tuple[int, int]]]:
    """Write (name, content) pairs as a tar, atomically. The bytes of the tar depend on those pairs only: no times or owners.

    Returns:
        (name, (offset, size)) of each content in the tar, in bytes, in the order of `files`.

    Raises:
        ValueError: a name is too long for a USTAR header.
        OSError: the tar cannot be written.
    """
    written = []
    with atomic_file(path, "wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            written.append((name, (tar.offset + BLOCK, len(content))))
            tar.addfile(header, BytesIO(content))
    return written


def walk(path: Path) -> Iterator[Member]:
    """Yield the files of the tar at `path` in order, from the headers alone.

    Raises:
        WaveganError: see `walk_file`.
        OSError: the tar cannot be opened or read.
    """
    with path.open("rb") as file:
        yield from walk_file(file, str(path))


def walk_file(file: BinaryIO | ForwardFile, name: str) -> Iterator[Member]:
    """Yield the files of a tar in order, from the headers alone.

    Whenever a member is yielded, `file` is at the start of its content, of which the caller may read as much as it needs.

    Args:
        file: the open tar, at its start.
        name: name of the tar, for error messages.

    Raises:
        WaveganError: a member is a link, a device, a sparse file or has a name that is absolute or contains `..`; or, after
            all complete members have been yielded, the tar is damaged or cut short, has more than MAX_MEMBERS members or a
            header above MAX_EXTENDED_BYTES, or another tar or other data follows its end, where tarfile itself would just end.
        Exception: any error that `file` raises.
    """
    head = file.read(BLOCK)
    file.seek(0)
    try:
        with tarfile.open(fileobj=_HeaderFile(file, name), mode="r:") as tar:  # type: ignore[call-overload]
            for _ in range(MAX_MEMBERS + 1):
                if (header := tar.next()) is None:
                    break
                tar.members = []  # in which tarfile keeps the header of every member
                if header.size < 0:  # from which tarfile would go back and read the same headers again, without end
                    raise ValueError("a member of negative size")
                if not header.isdir():
                    yield _member(name, header)
            else:
                raise WaveganError(f"{name} has more than {MAX_MEMBERS:,} members; split it into several tars")
            end = tar.offset
    except (OSError, WaveganError, TransferError):
        raise
    except Exception as error:  # tarfile raises OverflowError, RecursionError and others on hostile headers
        raise WaveganError(f"{name} {_not_a_tar(head, error)}") from error
    file.seek(end)
    if file.read(BLOCK) != bytes(BLOCK):
        raise WaveganError(f"{name} is damaged or cut short at byte {end:,}; copy or write it again")
    _refuse_second_tar(name, file)


class _HeaderFile:
    """What tarfile uses of an open tar. tarfile reads the long names and attributes of a member into memory, of any size.

    Args:
        file: the open tar.
        name: its name, for the message of the WaveganError that a header above MAX_EXTENDED_BYTES raises.
    """

    def __init__(self, file: BinaryIO | ForwardFile, name: str) -> None:
        self._file, self._name = file, name
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > MAX_EXTENDED_BYTES:
            advice = "pack it with shorter names and without extended attributes"
            raise WaveganError(f"{self._name} has a header of {size:,} bytes; {advice}")
        if size < 0:  # which would read the whole file
            raise ValueError("a header of negative size")
        return self._file.read(size)


@dataclass
class Contents:
    """The members of a tar and its labels, as far as `read` has read the tar.

    Args:
        name: name of the tar, for error messages.
        extensions: extensions of images, in lower case and without the dot.
        members: the members that have been read, in order, without the hidden ones.
        hidden: the members that have been read, in order, of which the name or a folder is hidden (`is_hidden`).
    """

    name: str
    extensions: Collection[str]
    members: list[Member] = field(default_factory=list)
    hidden: list[Member] = field(default_factory=list)
    _labels: dict[str, tuple[Member, bytes]] = field(default_factory=dict)  # by key

    def read(self, file: BinaryIO | ForwardFile, on_image: Callable[[Member], object] | None = None) -> None:
        """Walk through the tar and read its labels; what has been read before an error stays.

        Args:
            file: the open tar, at its start.
            on_image: called with each image that is not hidden, while `file` is at the start of its content.

        Raises:
            WaveganError: see `walk_file`.
            Exception: any error that `file` or `on_image` raises.
        """
        for member in walk_file(file, self.name):
            hidden = any(map(is_hidden, PurePosixPath(member.name).parts))
            (self.hidden if hidden else self.members).append(member)
            if member.extension == LABEL:
                self._labels[member.key] = (member, file.read(min(member.size, LABEL_BYTES)))
            elif on_image is not None and member.extension in self.extensions and not hidden:
                on_image(member)

    def samples(self) -> list[Sample]:
        """Return the images among the members, in order, each with the label in the .cls member of its key, -1 without one.

        Raises:
            WaveganError: a key has two images or two labels, or a .cls member does not hold an integer from 0 to
                LARGEST_COUNT - 1.
        """
        images: dict[str, Member] = {}
        labels: dict[str, Member] = {}
        for member in self.members:
            group = images if member.extension in self.extensions else labels if member.extension == LABEL else None
            if group is not None:
                if member.key in group:
                    names = f"{group[member.key].name} and {member.name}"
                    raise WaveganError(f"{self.name} has two members of one key, {names}; pack it again with one key per image")
                group[member.key] = member
        return [Sample(image, self.label(key) if key in labels else -1) for key, image in images.items()]

    def label(self, key: str) -> int:
        """Return the label of a key, as far as the tar has been read; -1 if there is none.

        Raises:
            WaveganError: the .cls member does not hold an integer from 0 to 1,048,575.
        """
        if key not in self._labels:
            return -1
        member, content = self._labels[key]
        text = content.strip()
        if not text.isdigit() or int(text) >= LARGEST_COUNT:
            raise WaveganError(
                f"{member.name} in {self.name} holds {text!r}, not a class number from 0 to {LARGEST_COUNT - 1}; correct or "
                "remove the .cls members"
            )
        return int(text)

    def left_out(self) -> list[LeftOut]:
        """List the members of the tar that are neither an image nor the label of one, with the reason.

        Members that may be images (see `_unread_image`) get one entry each. Others, such as captions, are counted in one entry
        for each reason and extension. Hidden members get one entry, and so does an empty tar.
        """
        if not self.members and not self.hidden:
            return [LeftOut(self.name, "an empty tar")]
        keys = {member.key for member in self.members if member.extension in self.extensions}
        hidden = [LeftOut(f"{member.name} in {self.name}", HIDDEN, len(self.hidden)) for member in self.hidden[:1]]
        listed, counted = hidden, dict[str, list[str]]()
        for member in self.members:
            used = member.key in keys and member.extension in (*self.extensions, LABEL)
            if reason := None if used else _unread_image(member):
                listed.append(LeftOut(f"{member.name} in {self.name}", reason))
            elif not used:
                reason = COMPANION if member.key in keys else WITHOUT_IMAGE
                counted.setdefault(f"{reason} (.{member.extension.rpartition('.')[2]})", []).append(member.name)
        return listed + [LeftOut(f"{names[0]} in {self.name}", reason, len(names)) for reason, names in counted.items()]


def read_at(path: Path, offset: int, size: int) -> bytes:
    """Read `size` bytes of a file from byte `offset`; fewer if the file ends before. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def key_at(path: Path, offset: int) -> str:
    """Read the key of the member whose content begins at `offset` from its header, without reading the members before it.

    Returns:
        The key; the whole name of a member that WebDataset does not read.

    Raises:
        WaveganError: no header precedes that offset, or one above MAX_EXTENDED_BYTES.
        OSError: the tar cannot be read.
    """
    with path.open("rb") as file:
        start = offset - BLOCK
        while (extended := _extended_header_before(file, start)) is not None:
            start = extended
        file.seek(max(start, 0))
        try:
            with tarfile.open(fileobj=_HeaderFile(file, str(path)), mode="r:") as tar:  # type: ignore[call-overload]
                header = tar.next()
        except (OSError, WaveganError):
            raise
        except Exception:  # see `walk_file`
            header = None
    if header is None or header.offset_data != offset:
        raise WaveganError(f"{path} has no member at byte {offset:,}; find all damage with `wavegan shards verify`")
    match = _NAME.fullmatch(header.name)
    return match[1] if match else header.name


def refuse_unsafe(description: str, name: str, *, regular: bool) -> None:
    """Check a member of an archive.

    Args:
        description: what the error message calls the member, such as "NAME in ARCHIVE".
        name: file name of the member.
        regular: whether the member is a regular file and not sparse.

    Raises:
        WaveganError: `regular` is False, or `name` is absolute or contains `..`: it could lead out of the folder into which
            the archive is unpacked.
    """
    if not regular:
        raise WaveganError(f"{description} is a link, a device or a sparse file, which are refused; pack plain files only")
    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name):
        raise WaveganError(f"{description} leads out of the archive, which is refused; pack it under a plain relative name")


def _unread_image(member: Member) -> str | None:
    """Return why a member that may be an image is not read (`LeftOut.reason`); None if its name is not that of an image.

    Files without an extension and files with the extension of a picture may be images. Not for members that are read, which
    would get a wrong reason.
    """
    if not member.key:
        return NO_EXTENSION
    _, dot, last = member.extension.rpartition(".")
    if last in picture_extensions():
        return DOTTED if dot else f"of a format that training does not read (.{last}); convert with `wavegan shards write`"
    return None


def _member(name: str, header: tarfile.TarInfo) -> Member:
    refuse_unsafe(f"{header.name} in {name}", header.name, regular=header.isreg() and not header.issparse())
    match = _NAME.fullmatch(header.name)
    key, extension = (match[1], match[2].lower()) if match else ("", "")
    return Member(header.name, key, extension, header.offset_data, header.size)


def _not_a_tar(head: bytes, error: Exception) -> str:
    """Return what follows a file's name in an error message: what the file is, if tarfile cannot read it, and what to do.

    Args:
        head: the first BLOCK bytes of the file; fewer if the file is shorter.
        error: the error of tarfile; quoted if the file begins like a tar, or is too short to tell.
    """
    if kind := compression(head):
        return f"is a {kind} file despite its name; decompress it to a plain tar"
    if is_lfs_pointer(head):
        return f"is not a tar: {describe_content(head)}"
    if len(head) == BLOCK and head[257:262] != b"ustar":
        return f"is not a tar and begins with {head[:16]!r}; copy it again or move it elsewhere"
    return f"is not a complete tar ({error}); copy or write it again"


def _refuse_second_tar(name: str, file: BinaryIO | ForwardFile) -> None:
    """Raise WaveganError if the rest of a file, after the end of its tar, has other bytes than zeros: no reader looks there.

    Args:
        name: name of the file, for the message.
        file: the open file, after the first block of zeros that ends the tar.
    """
    while block := file.read(BLOCK):
        if block != bytes(len(block)):
            start = file.tell() - len(block)
            try:
                tarfile.TarInfo.frombuf(block, "utf-8", "replace")
            except tarfile.HeaderError as error:
                raise WaveganError(
                    f"{name} holds other data from byte {start:,} on, behind the end of the tar, which is never read; copy or "
                    "write it again"
                ) from error
            raise WaveganError(
                f"{name} holds another tar from byte {start:,} on, which is never read (two joined by `cat`?); "
                "unpack it with `tar --ignore-zeros -x` and pack it again"
            )


def _extended_header_before(file: BinaryIO, header: int) -> int | None:
    """Return the offset of the PAX or GNU header whose content ends at the offset `header`; None if there is no such header."""
    start = max(header - (MAX_EXTENDED_BLOCKS + 1) * BLOCK, header % BLOCK)
    file.seek(start)
    before = file.read(max(header - start, 0))
    for blocks in range(1, len(before) // BLOCK):
        offset = len(before) - (blocks + 1) * BLOCK
        block = before[offset : offset + BLOCK]
        if block[156:157] in EXTENDED_TYPES and block[257:262] == b"ustar":
            try:
                size = tarfile.TarInfo.frombuf(block, "utf-8", "replace").size
            except tarfile.HeaderError:  # image data that looks like a header
                continue
            if -(-size // BLOCK) == blocks:
                return start + offset
    return None
