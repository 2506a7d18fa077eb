"""Brace patterns of remote tars, as WebDataset writes them: s3://bucket/set/shard-{000..099}.tar, pipe:aws s3 cp s3://..."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import PurePosixPath
from urllib.parse import unquote

from braceexpand import braceexpand

from wavegan_dist.data.storage import Storage
from wavegan_dist.errors import UsageError
from wavegan_dist.redact import holds_password

MAX_TARS = 500_000  # a pattern that stands for more is taken for a mistake

_EXAMPLE = "write the numbers of the tars as in shard-{000..099}.tar"
_RANGE = re.compile(r"(?<!\\)\{(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?\}")
_TAR = re.compile(r"[^\s/\"'=&?#|;<>()]+\.tar(?![^\s\"'&?#|;<>()])", re.IGNORECASE)
_BEFORE_NAME = re.compile(r".*[\s/\"'=&?]", re.DOTALL)  # what precedes the name of a tar in a URL or command
_AFTER_NAME = re.compile(r"[\s\"'&?#|;<>()]|$")


def expand(pattern: str) -> tuple[str, list[str]]:
    """Expand a pattern of URLs or of shell commands.

    Args:
        pattern: a URL, or pipe:COMMAND, in which braces stand for numbers {000..099} or words {train,val}.

    Returns:
        What the URLs or commands have in common, with {file} for the part that differs (`Storage.base`); and that part of each
        URL or command, which is the file name of the tar with the folders that differ, sorted. Percent-encoding of http(s) URLs
        is undone in the names, not in the common part.

    Raises:
        UsageError: the pattern holds a password, is empty, is not a valid pattern, stands for more than MAX_TARS tars or for
            one of them twice, or has tars without a plain name.
    """
    if holds_password(pattern):
        raise UsageError(
            "the address of the tars holds a password or a token, which index.json and messages would show; put it into the "
            'environment (pipe:curl -sf -H "Authorization: Bearer $TOKEN" URL) or into ~/.netrc (pipe:curl -sf --netrc URL)'
        )
    urls = _urls(pattern)
    source = _source(urls)
    start, end = source.index("{file}"), len(source) - source.index("{file}") - len("{file}")
    files = [url[start : len(url) - end] for url in urls]
    if pattern.startswith("http"):
        files = list(map(unquote, files))
    storage = Storage(source)
    for url, file in zip(urls, files, strict=True):
        if unquote(storage.url(file)) != unquote(url) or not {"", ".", ".."}.isdisjoint(file.split("/")):
            raise UsageError(
                f"{url} has no plain file name; rename the tar or give a pattern whose braces are in the file name"
            )
    if len(set(files)) < len(files):
        twice = next(file for file, times in Counter(files).items() if times > 1)
        raise UsageError(f"{pattern} stands for {twice} twice; {_EXAMPLE}")
    return source, sorted(files, key=lambda file: PurePosixPath(file).parts)


def _urls(pattern: str) -> list[str]:
    is_pipe = pattern.startswith("pipe:")
    if "{file}" in pattern:
        raise UsageError(f"{pattern}: {{file}} stands for no tar here; {_EXAMPLE}")
    if not is_pipe and "*" in pattern:
        raise UsageError(f"{pattern}: a pattern of URLs has braces and no *; {_EXAMPLE}")
    try:
        count = _count(pattern)
    except ValueError as error:
        raise UsageError(f"{pattern}: a brace was not closed or not opened; {_EXAMPLE}") from error
    if count > MAX_TARS:
        raise UsageError(
            f"{pattern} stands for {count:,} tars, more than {MAX_TARS:,}; correct it, or make fewer and larger tars"
        )
    urls = list(braceexpand(pattern))
    if not is_pipe and any(set("{}") & set(url) for url in urls[:1]):
        raise UsageError(f"{pattern} stands for no tar: its braces hold neither a range nor a list; {_EXAMPLE}")
    if not urls[0].partition(":")[2].strip("/ "):
        raise UsageError(f"{pattern} names no tar; {_EXAMPLE}")
    return urls


def _count(pattern: str) -> int:
    """Return the number of texts that a pattern stands for; for more than MAX_TARS, some number above MAX_TARS.

    Ranges of numbers are counted without being expanded.

    Raises:
        ValueError: a brace was not closed or not opened.
    """
    counted = _RANGE.sub(lambda found: f"\0{_length(*found.groups())}\0", pattern)
    texts = islice(braceexpand(counted), MAX_TARS + 1)
    return sum(math.prod(map(int, text.split("\0")[1::2])) for text in texts)


def _length(first: str, last: str, step: str | None) -> int:
    return abs(int(last) - int(first)) // (int(step or 1) or 1) + 1


def _source(urls: Sequence[str]) -> str:
    """Return the text that the URLs or commands, at least one, have in common, with {file} for the name of the tar.

    Raises:
        UsageError: there is only one command, and it names no tar.
    """
    before, after = _common_start(urls), _common_start([url[::-1] for url in urls])[::-1]
    if len(urls) == 1:
        (url,) = urls
        names = list(_TAR.finditer(url))
        if not names and url.startswith("pipe:"):
            raise UsageError(f"{url} names no tar; {_EXAMPLE}")
        name_end = names[-1].end() if names else len(url)
        before, after = url[:name_end], url[name_end:]
    start, end = _BEFORE_NAME.match(before), _AFTER_NAME.search(after)
    assert start
    assert end
    return f"{start[0]}{{file}}{after[end.start() :]}"


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    return first[: next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
