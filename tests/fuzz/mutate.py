"""Change valid files so that most of them are no longer valid: bytes, numbers, and the structure of JSON and YAML."""

import copy
import json
import math
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import PurePosixPath
from random import Random
from typing import Any

import yaml

Files = dict[str, bytes]  # name to content

EDGES = (0, 1, 2, 7, 15, 16, 31)  # and powers of two, below
NUMBERS = sorted({*EDGES, *(2**n + d for n in (7, 8, 15, 16, 20, 24, 31, 32, 53, 62, 63, 64, 95) for d in (-1, 0, 1))})
# Raw JSON and YAML, among them values that no encoder writes: very deep, very long, out of the range of floats and integers.
RAW = {
    "@deep list": "[" * 3000 + "]" * 3000,
    "@deep mapping": '{"a":' * 3000 + "1" + "}" * 3000,
    "@digits": "9" * 5000,
    "@integer": "1" + "0" * 400,
    "@infinity": "1e999",
    "@long": '"' + "x" * 20_000 + '"',
    "@many": "[" + ",".join(["1"] * 2000) + "]",
    "@unknown": "{" + ",".join(f'"k{number}":{number}' for number in range(300)) + "}",
}
TEXTS = (
    "", " ", "0", "-1", "1e999", "nan", "true", "null", "a" * 300, "\0", "a\0b", "\n", "\r\n", "\ud800", "\udcff", "\u202e",
    "é", "😀",
    "..", "../..", "/", "/etc/passwd", "a/b", "~", "*", "{file}", "%s", "$HOME", "$(id)", "pipe:false", "http://[", "file:///etc",
    "<script>alert(1)</script>", "'", '"', "`", "\x1b[2J", "1.5", "-0", "0x", "1_000", "२", "1:2:3", "2001-99-99",
)  # fmt: skip
PLAIN: tuple[object, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    {"": None},
    0.5,
    -0.0,
    -1,
    1e308,
    5e-324,
    math.nan,
    math.inf,
    -math.inf,
    *TEXTS,
)
VALUES = (*4 * PLAIN, *RAW)  # PyYAML takes a second to refuse what is very deep
YAML_TEXTS = (
    b"&a [*a]", b"*a", b"&a {b: *a}", b"<<: {a: 1}", b"!!int ''", b"!!float x", b"!!bool x", b"!!timestamp x", b"!!binary /",
    b"!!set {a}", b"!!python/object/apply:os.system [id]", b"!!omap [1]", b"!!pairs [1]", b"? [a]\n: b", b"=", b"|\n  a",
    b"%YAML 9.9\n---\n", b"---\na\n---\nb",
)  # fmt: skip
TOKENS = (
    *(text.encode("utf-8", "surrogatepass") for text in TEXTS),
    *YAML_TEXTS, b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b":", b",", b"\t", b"=", b"\x85",
    b"\xe2\x80\xa8", bytes(64), b"\xff" * 64,
)  # fmt: skip


def mutated(files: Files, rng: Random) -> Files:
    """Change one file of a valid set of files, seldom several; JSON and YAML half of the time as a tree, else as bytes."""
    changed = dict(files)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        name = rng.choice(sorted(changed))
        changed[name] = _mutated_file(name, changed[name], rng)
    if rng.random() < 0.02:
        del changed[rng.choice(sorted(changed))]
    return changed


def mutated_bytes(content: bytes, rng: Random) -> bytes:
    """Apply a few edits to bytes: flips, integers, deletions, repetitions, truncation, tokens, splices."""
    edited = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        rng.choice(_EDITS)(edited, rng)
    return bytes(edited)


def mutated_tree(tree: Any, rng: Random) -> Any:
    """Change a few nodes of a tree of JSON values: other values and types, keys that are missing, renamed or copied."""
    holder = [copy.deepcopy(tree)]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        parent, key = _random_place(holder, rng)
        _EDITS_OF_TREES[rng.randrange(len(_EDITS_OF_TREES))](parent, key, rng)
    return holder[0]


def encode_json(tree: Any) -> bytes:
    """Encode a tree; texts that are keys of RAW stand for their values."""
    text = json.dumps(tree, indent=1)
    if '"@' in text:
        text = re.sub(r'"(@[a-z ]+)"', lambda found: RAW.get(found[1], found[0]), text)
    return text.encode()


def _mutated_file(name: str, content: bytes, rng: Random) -> bytes:
    suffix = PurePosixPath(name).suffix
    if rng.random() < 0.5:
        if suffix == ".json" and (tree := _parsed(content, json.loads)) is not None:
            return encode_json(mutated_tree(tree, rng))
        if suffix == ".yaml" and (tree := _parsed(content, yaml.safe_load)) is not None:
            text = encode_json(mutated_tree(tree, rng))  # which is YAML, except for:
            return re.sub(rb"(-?)\b(?:(NaN)|Infinity)\b", lambda found: b".nan" if found[2] else found[1] + b".inf", text)
        if suffix == ".jsonl":
            lines = content.splitlines(keepends=True) or [b""]
            number = rng.randrange(len(lines))
            tree = _parsed(lines[number], json.loads)
            lines[number] = encode_json(mutated_tree(tree, rng)).replace(b"\n", b"") + b"\n"
            return b"".join(lines)
    return mutated_bytes(content, rng)


@lru_cache(maxsize=256)
def _parsed(content: bytes, decode: Callable[[bytes], Any]) -> Any:
    """Return the tree, or None if the content cannot be decoded or contains itself, which aliases in YAML can do."""
    try:
        tree = decode(content)
        json.dumps(tree)
    except Exception:
        return None
    return tree


def _random_place(holder: list[Any], rng: Random) -> tuple[Any, Any]:
    """Choose a node by its parent and its key or position, with a chance to stop at each level."""
    parent, key = holder, 0
    while isinstance(parent[key], dict | list) and parent[key] and rng.random() < 0.85:
        parent = parent[key]
        key = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
    return parent, key


def _replace(parent: Any, key: Any, rng: Random) -> None:
    parent[key] = copy.deepcopy(rng.choice(VALUES))


def _replace_by_number(parent: Any, key: Any, rng: Random) -> None:
    number = rng.choice(NUMBERS) * rng.choice((1, 1, 1, -1))
    parent[key] = rng.choice((number, number, float(number), str(number), number / 7))


def _edit_text(parent: Any, key: Any, rng: Random) -> None:
    text = parent[key] if isinstance(parent[key], str) else json.dumps(parent[key])
    where = rng.randrange(len(text) + 1)
    parent[key] = text[:where] + rng.choice(TEXTS) + text[where + rng.randrange(3) :]


def _delete(parent: Any, key: Any, rng: Random) -> None:
    del parent[key]
    if not parent:
        _insert(parent, key, rng)


def _insert(parent: Any, key: Any, rng: Random) -> None:
    value = copy.deepcopy(rng.choice(VALUES))
    if isinstance(parent, dict):
        parent[rng.choice((*TEXTS, key))] = value
    else:
        parent.insert(key, value)


def _repeat(parent: Any, key: Any, rng: Random) -> None:
    if isinstance(parent, list):
        parent[key:key] = [copy.deepcopy(parent[key]) for _ in range(rng.choice((1, 2, 200)))]
    else:
        parent[key] = [parent[key]] * rng.choice((0, 1, 2, 200))


def _swap(parent: Any, key: Any, rng: Random) -> None:
    other = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
    parent[key], parent[other] = parent[other], parent[key]


_EDITS_OF_TREES = (_replace, _replace, _replace_by_number, _replace_by_number, _edit_text, _delete, _insert, _repeat, _swap)


def _place(content: bytearray, rng: Random) -> int:
    return min(int(rng.random() ** rng.choice((1, 1, 4)) * len(content)), max(len(content) - 1, 0))  # more often at the start


def _flip(content: bytearray, rng: Random) -> None:
    if content:
        content[_place(content, rng)] ^= 1 << rng.randrange(8)


def _set_byte(content: bytearray, rng: Random) -> None:
    if content:
        content[_place(content, rng)] = rng.choice((0, 1, 0x20, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))


def _set_integer(content: bytearray, rng: Random) -> None:
    width, where = rng.choice((1, 2, 4, 8)), _place(content, rng)
    number = (rng.choice(NUMBERS) % 256**width).to_bytes(width)
    content[where : where + width] = number if rng.random() < 0.5 else number[::-1]


def _set_digits(content: bytearray, rng: Random) -> None:
    numbers = list(re.finditer(rb"[0-9]+", content[:20_000]))
    if numbers:
        start, end = rng.choice(numbers).span()
        number = rng.choice((b"%d" % rng.choice(NUMBERS), b"%o" % rng.choice(NUMBERS), b"-1", b"9" * 400, b"1e999"))
        content[start:end] = number.rjust(end - start, b"0")[: end - start] if rng.random() < 0.5 else number


def _remove(content: bytearray, rng: Random) -> None:
    where = _place(content, rng)
    del content[where : where + rng.choice((1, 2, 4, 16, 512, len(content)))]


def _truncate(content: bytearray, rng: Random) -> None:
    del content[_place(content, rng) :]


def _copy(content: bytearray, rng: Random) -> None:
    source, where = _place(content, rng), _place(content, rng)
    part = content[source : source + rng.choice((1, 2, 4, 16, 512, 4096))] * rng.choice((1, 1, 1, 50))
    content[where : where + rng.choice((0, len(part)))] = part


def _put_token(content: bytearray, rng: Random) -> None:
    token, where = rng.choice(TOKENS), _place(content, rng)
    content[where : where + rng.choice((0, 0, len(token)))] = token


def _put_random(content: bytearray, rng: Random) -> None:
    where = _place(content, rng)
    content[where : where + rng.randrange(16)] = rng.randbytes(rng.randrange(1, 16))


_EDITS: tuple[Callable[[bytearray, Random], None], ...] = (
    *(_flip, _flip, _set_byte, _set_byte, _set_integer, _set_integer, _set_digits),
    *(_remove, _truncate, _copy, _put_token, _put_random),
)
