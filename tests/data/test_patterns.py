"""Brace patterns of remote tars: expanded as WebDataset does, and written into the index as one address."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webdataset.shardlists import expand_urls

from tests.helpers import Command, refused
from wavegan_dist.data.patterns import MAX_TARS, expand
from wavegan_dist.data.storage import Storage
from wavegan_dist.errors import UsageError


@pytest.mark.parametrize(
    ("pattern", "source", "files"),
    [
        ("https://host/set/s-{08..11}.tar", "https://host/set/{file}", ["s-08.tar", "s-09.tar", "s-10.tar", "s-11.tar"]),
        ("s3://bucket/a.tar", "s3://bucket/{file}", ["a.tar"]),
        ("s3://bucket/{b,a}/{1..2}.tar", "s3://bucket/{file}", ["a/1.tar", "a/2.tar", "b/1.tar", "b/2.tar"]),
        ("gs://bucket/{9..11}.tar", "gs://bucket/{file}", ["10.tar", "11.tar", "9.tar"]),
        ("s3://{x,y}/a.tar", "s3://{file}", ["x/a.tar", "y/a.tar"]),
        ("https://host/a{1..2}.tar?versionId=3", "https://host/{file}?versionId=3", ["a1.tar", "a2.tar"]),
        ("https://host/get?file=a{1..2}&x=1", "https://host/get?file={file}&x=1", ["a1", "a2"]),
        ("https://host/my%20set/b%20{1..2}.tar", "https://host/my%20set/{file}", ["b 1.tar", "b 2.tar"]),
        ("pipe:aws s3 cp s3://b/s/x-{0..1}.tar -", "pipe:aws s3 cp s3://b/s/{file} -", ["x-0.tar", "x-1.tar"]),
        ("pipe:curl -sf 'https://h/x-{0..1}.tar'", "pipe:curl -sf 'https://h/{file}'", ["x-0.tar", "x-1.tar"]),
        ("pipe:cat /set/only.tar | tail -c +1", "pipe:cat /set/{file} | tail -c +1", ["only.tar"]),
        ('pipe:curl -H "A: $T" https://h/{a,b}/0.tar', 'pipe:curl -H "A: $T" https://h/{file}', ["a/0.tar", "b/0.tar"]),
        (
            "pipe:curl -sf -u me:${WORD} https://h/{1..2}.tar",
            "pipe:curl -sf -u me:${WORD} https://h/{file}",
            ["1.tar", "2.tar"],
        ),
    ],
)
def test_a_pattern_is_one_address_and_the_names_of_its_tars(pattern: str, source: str, files: list[str]) -> None:
    assert expand(pattern) == (source, files)


NUMBERS = st.builds("{{{:02d}..{:02d}}}".format, st.integers(8, 11), st.integers(8, 11))
WORDS = st.lists(st.text("abc", min_size=1, max_size=3), min_size=2, max_size=3, unique=True).map(
    lambda words: f"{{{','.join(words)}}}"
)
PATTERNS = st.lists(NUMBERS | WORDS | st.sampled_from(["-", "x", "/", "a1"]), min_size=1, max_size=4).map("".join)


@given(middle=PATTERNS, frame=st.sampled_from(["s3://bucket/s{}.tar", "http://host/s{}y.tar?a=1", "pipe:get s3://b/s{}.tar -"]))
def test_the_tars_are_those_of_webdataset(middle: str, frame: str) -> None:
    pattern = frame.replace("{}", middle)
    urls = expand_urls(pattern)
    if len(set(urls)) < len(urls) or "//" in middle or middle.endswith("/"):
        return
    source, files = expand(pattern)
    storage = Storage(source)
    assert sorted(map(storage.url, files)) == sorted(urls)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("s3://bucket/{000..}.tar", "stands for no tar: its braces hold neither a range nor a list; write the numbers"),
        ("s3://bucket/{}.tar", "stands for no tar"),
        ("s3://bucket/{0..9.tar", "a brace was not closed"),
        ("s3://bucket/0..9}.tar", "a brace was not closed or not opened"),
        (r"s3://bucket/\{0..9}.tar", "a brace was not closed or not opened"),
        (
            "s3://bucket/*.tar",
            "a pattern of URLs has braces and no *; write the numbers of the tars as in shard-{000..099}.tar",
        ),
        ("s3://bucket/{0..999999}.tar", f"stands for 1,000,000 tars, more than {MAX_TARS:,}; correct it"),
        ("s3://b/{a,b{0..99999999999}}{0..99999999999}.tar", "stands for 10,000,000,000"),
        ("s3://bucket/{1,1}.tar", "stands for 1.tar twice"),
        ("s3://bucket/{file}", "{file} stands for no tar here"),
        ("https://", "names no tar"),
        ("pipe:", "names no tar"),
        ("pipe:aws s3 ls", "names no tar"),
        ("s3://bucket/a/{.,..}/b.tar", "has no plain file name"),
        ("pipe:cat '/my set/a b$(x){1..2}.tar'", "has no plain file name"),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_one_line(pattern: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        expand(pattern)
    assert "\n" not in str(caught.value)


SECRET = "pa55-w0rd"
WITH_PASSWORD = [
    f"https://alice:{SECRET}@host/{{0..1}}.tar",
    f"https://host/{{0..1}}.tar?X-Amz-Signature={SECRET}",
    f"https://host/{{0..1}}.tar?sig={SECRET}",
    f"s3://key:{SECRET}@bucket/{{0..1}}.tar",
    f"pipe:curl -sf -H 'Authorization: Bearer {SECRET}' https://host/{{0..1}}.tar",
    f"pipe:AWS_SECRET_ACCESS_KEY={SECRET} aws s3 cp s3://bucket/{{0..1}}.tar -",
]


@pytest.mark.parametrize("pattern", WITH_PASSWORD)
def test_a_password_in_a_pattern_is_refused_and_not_shown(pattern: str) -> None:
    with pytest.raises(
        UsageError, match=r"holds a password or a token, which index\.json and messages would show; put it"
    ) as caught:
        expand(pattern)
    assert SECRET not in str(caught.value)


def test_a_password_is_in_no_file_and_no_output(wavegan: Command, tmp_path: Path) -> None:
    outcome = wavegan("shards", "index", WITH_PASSWORD[0], "--out", f"{tmp_path}/set", cwd=tmp_path)
    refused(outcome, "holds a password or a token")
    assert SECRET not in outcome.stdout + outcome.stderr
    assert list(tmp_path.iterdir()) == []
