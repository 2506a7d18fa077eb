"""Decode YAML within bounds: PyYAML raises almost any exception, and a few aliases can stand for billions of values."""

from typing import Any

import yaml

LARGEST_TEXT = 2**20  # characters; PyYAML reads about 100,000 a second
LARGEST_TREE = 10**5  # values, where an alias counts as often as it occurs


class _Bounded:
    """Mixin for loaders of PyYAML: refuses a document before its values are built if they are more than LARGEST_TREE."""

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()  # type: ignore[misc]
        if node is not None and _count(node, {}) > LARGEST_TREE:
            raise ValueError(f"its aliases stand for more than {LARGEST_TREE:,} values, or for themselves")
        return node


class _ValueLoader(_Bounded, yaml.SafeLoader):
    pass


class _TextLoader(_Bounded, yaml.BaseLoader):
    pass


def yaml_value(text: str) -> Any:
    """Decode YAML. Raises ValueError for everything that cannot be decoded or exceeds the bounds above."""
    return _decode(text, _ValueLoader)


def yaml_text(text: str) -> Any:
    """Decode YAML with every scalar as a string: `yaml_value` would decode 12:00:00 to the integer 43200."""
    return _decode(text, _TextLoader)


def _decode(text: str, loader: type[_ValueLoader | _TextLoader]) -> Any:
    if len(text) > LARGEST_TEXT:
        raise ValueError(f"its {len(text):,} characters are more than {LARGEST_TEXT:,}")
    try:
        return yaml.load(text, loader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except Exception as error:  # PyYAML raises IndexError for !!int '', KeyError for !!bool x, ...
        raise ValueError(str(error)) from error


def _count(node: yaml.Node, counts: dict[yaml.Node, float]) -> float:
    """Count the values of a node; infinitely many if it contains itself. `counts` has those of the nodes so far."""
    if isinstance(node, yaml.ScalarNode):
        node.value.encode()  # raises ValueError for half of a surrogate pair, which an escape can write
        return 1
    if node not in counts:
        counts[node] = float("inf")
        if isinstance(node, yaml.MappingNode):
            _refuse_duplicates(node)
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        counts[node] = 1 + sum(_count(part, counts) for part in parts)
    return counts[node]


def _refuse_duplicates(node: yaml.MappingNode) -> None:
    """Raise ValueError if a mapping has a key twice, of which PyYAML would drop the first value."""
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise ValueError(f"line {key.start_mark.line + 1} has the key '{key.value}' again; keep one of them")
            seen.add(key.value)
