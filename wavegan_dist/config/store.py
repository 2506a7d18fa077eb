"""Which MLflow stores a run can be tracked in, by their URI and by the content of a database file."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from wavegan_dist.redact import redacted

DATABASES = ("postgresql", "mysql")
_SQLITE = b"SQLite format 3\0"
GIVE = "give sqlite:///FILE or http://HOST:PORT"


def check_store(uri: str) -> str:
    """Return the URI of an MLflow store unchanged, after a check of its form. Connects to nothing.

    Raises:
        ValueError: MLflow can never store a run at a URI of this form, or the URI is ambiguous: it has a space, a quote, or a
            password with one of / ? #. The message holds no password.
    """
    scheme, separator, rest = uri.partition("://")
    if scheme != "sqlite":
        _check_password(uri, rest)
    if scheme in ("http", "https"):
        _check_address(uri)
        return uri
    if scheme == "sqlite" and (":memory:" in rest or "mode=memory" in rest):
        raise ValueError(f"{uri} is forgotten when the process ends; give sqlite:///FILE")
    is_file = scheme == "sqlite" and rest.startswith("/") and rest.strip("/") != "" and not rest.endswith("/")
    is_database = scheme.partition("+")[0] in DATABASES and separator != ""
    if not (is_file or is_database or scheme == "databricks"):
        raise ValueError(f"{redacted(uri)} is not an MLflow store that runs can be sent to; {GIVE}")
    return uri


def is_database(path: Path) -> bool:
    """Return whether a file is a SQLite database: it is empty or begins as one. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) in (b"", _SQLITE)


def _check_password(uri: str, rest: str) -> None:
    """Raise ValueError if the URI is ambiguous, so that its password could not be told from the rest."""
    if re.search(r"[\s\"]", uri):
        raise ValueError("the URI holds a quote, a space or a line break; remove it, or write it as %22, %20 or %0A")
    if "@" in "".join(re.split(r"[/?#]", rest, maxsplit=1)[1:]):
        raise ValueError("the password holds one of / ? #; write it as %2F, %3F or %23")


def _check_address(uri: str) -> None:
    try:
        address = urlsplit(uri)
        is_complete = bool(address.hostname) and address.port != 0
    except ValueError:  # the port is not a number, or a bracket of IPv6 is missing
        is_complete = False
    if not is_complete:
        raise ValueError(f"{redacted(uri)} names no server; give http://HOST:PORT")
    if address.query or address.fragment:  # MLflow appends the path of each request
        raise ValueError(
            "the address of a server has no ? or #; give http://HOST:PORT, and a password or token in "
            "MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN"
        )
