"""Removes passwords from text that others may read: logs, messages, command lines, settings in files and in MLflow."""

import re

_USERINFO = re.compile(r"\b(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<user>[^\s/:@\"']*)(?::[^\s/\"]*)?@", re.IGNORECASE)
_PARAMETER = re.compile(r"(?<=[?&])(?:password|passwd|sslpassword|token|access_token)=[^&\s\"']*&?", re.IGNORECASE)
_EMPTY_QUERY = re.compile(r"(?<=\w)[?&](?=[\s\"']|$)")


def redacted(text: str) -> str:
    """Return `text` without the passwords of its URLs: https://HOST for https://USER:PASSWORD@HOST.

    URLs of databases keep the user's name. Parameters such as `?password=...` are left out.
    """
    without = _PARAMETER.sub("", _USERINFO.sub(_without_password, text))
    return text if without == text else _EMPTY_QUERY.sub("", without)


def _without_password(found: re.Match[str]) -> str:
    scheme, user = found["scheme"], found["user"]
    # Over HTTP, a name without its password is useless, and some services take the password as the name.
    return f"{scheme}://" if scheme.lower() in ("http", "https") or not user else f"{scheme}://{user}@"
