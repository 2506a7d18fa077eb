"""Experiments from YAML files and `key=value` overrides, and the differences between two of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wavegan_dist.config.decode import yaml_value
from wavegan_dist.config.explain import FileKind, cut, keys_of, nearest
from wavegan_dist.config.schema import Experiment, may_change_on_resume
from wavegan_dist.errors import UsageError

CONFIG = FileKind("config", "docs/configuration.md lists all keys", missing="give it in the file or as {key}=VALUE")


def load(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment from a YAML file, then apply `key=value` overrides in their order. Keys are dotted, values are YAML.

    Raises:
        UsageError: the file cannot be read or is not YAML, an override is not of this form or its value is not YAML, or a key
            is unknown, missing or has an invalid value. The message names the key and, for a misspelled one, the nearest known
            key.
    """
    tree = CONFIG.read(path)
    for override in overrides:
        _apply(tree, override)
    return parse(tree, str(path))


def parse(tree: dict[str, Any], source: str) -> Experiment:
    """Build an experiment from its settings by key, those of a section in a mapping of their own, as in the YAML file.

    Error messages call the settings `source`, such as the path of the file.

    Raises:
        UsageError: a key is unknown, missing or has an invalid value, or settings contradict each other.
    """
    return CONFIG.validate(Experiment, tree, source)


def differences(old: Experiment, new: Experiment) -> list[str]:
    """Return the settings that differ, each as "key: old -> new", in the order of the schema; an empty list if none does.

    Settings that may change when a run is resumed (`may_change_on_resume`) are left out.
    """
    before, after = old.flat(), new.flat()
    keys = [key for key in {**before, **after} if key not in may_change_on_resume()]
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"override '{cut(override)}' is not of the form key=value, for example train.batch_size=64")
    try:
        value = yaml_value(text)
    except ValueError as error:
        raise UsageError(f"override '{cut(override)}': the value is not valid YAML") from error
    *sections, last = key.split(".")
    for section in sections:
        if tree.get(section) is None:  # also a section without settings in the file
            tree[section] = {}
        tree = tree[section]
        if not isinstance(tree, dict):
            hint = nearest(key, keys_of(Experiment))
            raise UsageError(f"override '{cut(override)}': '{section}' is a value, not a section{hint}")
    tree[last] = value
