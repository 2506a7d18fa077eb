"""Read the YAML and JSON files that users write, and report mistakes in them on one line.

Experiments, Slurm profiles, hardware files, indexes of shards and DeepSpeed configurations are all read and validated here, so
that the same mistake gets the same message in each of them.
"""

import difflib
import re
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from wavegan_dist.config.decode import yaml_text, yaml_value
from wavegan_dist.errors import UsageError
from wavegan_dist.files import parse_json

Model = TypeVar("Model", bound=BaseModel)
Decoder = Callable[[str], Any]

SYNTAX: dict[Decoder, str] = {yaml_value: "YAML", yaml_text: "YAML", parse_json: "JSON"}
REASONS_SHOWN = 20  # largest number of explained keys in a message
REASON_SHOWN = 500  # largest number of characters of each
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 100


@dataclass(frozen=True)
class FileKind:
    """A kind of file that users write.

    Args:
        name: what errors call such a file, for example "hardware file".
        advice: what to do about a malformed file or an unknown key.
        decode: `yaml_value`, `yaml_text` or `parse_json`.
        missing: what to do about a missing key, with {key} in place of the key; by default `advice`.
        always_advise: append `advice` to all errors, for files that a command can regenerate.
    """

    name: str
    advice: str
    decode: Decoder = yaml_value
    missing: str = ""
    always_advise: bool = False

    def read(self, path: Path) -> dict[str, Any]:
        """Read the mapping in a file, without validation.

        Raises:
            UsageError: the file cannot be read, cannot be decoded, or does not hold a mapping.
        """
        try:
            return self.parse(path.read_bytes(), str(path))
        except OSError as error:
            raise UsageError(f"cannot read the {self.name} {path}: {error.strerror}") from error

    def parse(self, content: bytes, path: str) -> dict[str, Any]:
        """Decode the content of a file to a mapping, without validation; `path` is what an error calls the file.

        Raises:
            UsageError: the content is not UTF-8, cannot be decoded, or is not a mapping.
        """
        try:
            tree = self.decode(content.decode())
        except ValueError as error:
            reason = cut(" ".join(str(error).split()))
            raise UsageError(f"{path} is not valid {SYNTAX[self.decode]}: {reason}; {self.advice}") from error
        if not isinstance(tree, dict):
            article = "an" if self.name[0] in "aeiou" else "a"
            raise UsageError(f"{path} is not {article} {self.name}: its content is not a mapping; {self.advice}")
        return tree

    def validate(self, model: type[Model], tree: dict[str, Any], path: str) -> Model:
        """Build a pydantic model from the mapping in a file of this kind.

        Args:
            model: the class to build.
            tree: the mapping.
            path: what an error message calls the file.

        Raises:
            UsageError: one line that explains every unknown, missing or invalid key.
        """
        try:
            return model.model_validate(tree)
        except ValidationError as error:
            known = keys_of(model)
            details = error.errors()
            explained = [self._explain(dict(detail), known) for detail in details[:REASONS_SHOWN]]
            reasons = [cut(reason) for reason, _ in explained]
            if len(details) > REASONS_SHOWN:
                reasons.append(f"and {len(details) - REASONS_SHOWN:,} more")
            if self.always_advise or any(wants_advice for _, wants_advice in explained):
                reasons.append(self.advice)  # once: a file may lack twenty keys
            raise UsageError(f"{path}: {'; '.join(reasons)}") from error
        except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON and YAML can escape
            raise UsageError(f"{path}: the text {shown(error.object)} is not Unicode; {self.advice}") from error

    def _explain(self, detail: dict[str, Any], known: Sequence[str]) -> tuple[str, bool]:
        """Return what is wrong with one key, and whether `advice` helps with it."""
        key = ".".join(str(part) for part in detail["loc"])
        message = detail["msg"].removeprefix("Value error, ")
        match detail["type"]:
            case "extra_forbidden":
                hint = nearest(key, known)
                return f"unknown key '{key}'{hint}", not hint
            case "missing":
                return f"'{key}' is not set" + (f"; {self.missing.format(key=key)}" if self.missing else ""), not self.missing
            case "literal_error":
                choices = [choice.strip("'") for choice in re.split(", | or ", detail["ctx"]["expected"])]
                value = detail["input"]
                return f"{key} = {shown(value)} is not one of {', '.join(choices)}{nearest(str(value), choices)}", False
            case "model_type" | "model_attributes_type" if detail["input"] is None:
                return f"{key} is empty; remove this line, or set keys below it", False
            case "model_type" | "model_attributes_type":
                return f"{key} = {shown(detail['input'])} is not a mapping of settings", False
            case "value_error":
                return f"{key}: {message}" if key else message, False
        return f"{key} = {shown(detail['input'])}: {message[0].lower()}{message[1:]}", False


def shown(value: object) -> str:
    """Format a value for a message; cuts long texts, lists and mappings short."""
    try:
        return _REPR.repr(value)
    except ValueError:  # an integer of more digits than Python converts to text
        return "a number of thousands of digits"


def nearest(word: str, choices: Sequence[str]) -> str:
    """Return "; did you mean 'CHOICE'?" for a misspelled word, or "" if no choice is similar.

    Full dotted keys are compared first, then their last parts.
    """
    by_leaf = {choice.rpartition(".")[2]: choice for choice in choices}
    close = difflib.get_close_matches(word, choices, 1, 0.6)
    close = close or [by_leaf[leaf] for leaf in difflib.get_close_matches(word.rpartition(".")[2], list(by_leaf), 1, 0.6)]
    return f"; did you mean '{close[0]}'?" if close else ""


def cut(text: str) -> str:
    """Return the first REASON_SHOWN characters of a text, for messages."""
    return text if len(text) <= REASON_SHOWN else f"{text[:REASON_SHOWN]}..."


def keys_of(model: type[BaseModel]) -> list[str]:
    """Return the dotted keys of a model, in order; the key of a section is followed by the keys in it: "data", "data.index"."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(name)
        for section in (field.annotation, *get_args(field.annotation)):
            if isinstance(section, type) and issubclass(section, BaseModel):
                keys += [f"{name}.{key}" for key in keys_of(section)]
    return keys
