"""Generates docs/configuration.md from the schema: `python -m wavegan_dist.config.reference > docs/configuration.md`."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from wavegan_dist.config.schema import Experiment, may_change_on_resume, settings
from wavegan_dist.config.section import Section

INTRODUCTION = """# Configuration

This page is generated from the classes in `wavegan_dist/config/` by `make docs`. Do not edit it.

An experiment is one YAML file. Every key below can also be set on the command line, which overrides the file:
`wavegan train --config configs/demo.yaml model.width=32 train.batch_size=128`. Unknown keys are errors. Settings whose
names end in `kimg` are in thousands of real images shown to the discriminators.

The last column shows which keys may change when a run is resumed. If any other key differs, `wavegan train` refuses to
resume the run.
"""
HEADER = "| key | type | range | default | meaning | may change on resume |\n|---|---|---|---|---|---|"
TYPE_NAMES = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path", NoneType: "null"}
BOUNDS = {
    annotated_types.Gt: ("gt", ">"),
    annotated_types.Ge: ("ge", ">="),
    annotated_types.Lt: ("lt", "<"),
    annotated_types.Le: ("le", "<="),
}


def reference() -> str:
    """Return the content of docs/configuration.md: a table for each section of the experiment."""
    rows: dict[str, list[str]] = {}
    for key, field in settings():
        rows.setdefault(key.rpartition(".")[0], []).append(_row(key, field))
    tables = [
        "\n".join((f"\n## {section or 'Top level'}\n\n{_summary(section)}\n\n{HEADER}", *of_section))
        for section, of_section in rows.items()
    ]
    return "\n".join((INTRODUCTION, *tables)) + "\n"


def _summary(section: str) -> str:
    model: Any = Experiment
    for name in section.split(".") if section else ():
        model = model.model_fields[name].annotation
    return str(inspect.getdoc(model))


def _row(key: str, field: FieldInfo) -> str:
    cells = (
        f"`{key}`",
        _type(field.annotation),
        ", ".join(_bounds(field)),
        "required" if field.is_required() else f"`{json.dumps(field.default)}`",
        field.description,
        "yes" if key in may_change_on_resume() else "no",
    )
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if get_origin(annotation) is list:
        (element,) = get_args(annotation)
        keys = ", ".join(element.model_fields) if isinstance(element, type) and issubclass(element, Section) else ""
        return f"list of {{{keys}}}" if keys else f"list of {_type(element)}s"
    if get_origin(annotation) is Annotated:
        return _type(get_args(annotation)[0])
    if alternatives := get_args(annotation):
        return " or ".join(_type(alternative) for alternative in alternatives)
    return TYPE_NAMES[annotation]


def _bounds(field: FieldInfo) -> Iterator[str]:
    """Yield the limits of a numeric setting, such as "> 0", including one that may be null."""
    nested = [entry for part in get_args(field.annotation) if get_origin(part) is Annotated for entry in get_args(part)[1:]]
    for limit in (*field.metadata, *nested):
        for bound, (attribute, sign) in BOUNDS.items():
            if isinstance(limit, bound):
                value = getattr(limit, attribute)
                yield f"{sign} {value:g}" if isinstance(value, float) else f"{sign} {value:,}"


if __name__ == "__main__":
    print(reference(), end="")
