"""Passwords in text that others may read: removed from logs, messages and settings, refused in shell commands; and paths."""

import re

_USERINFO = re.compile(r"\b(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<user>[^\s/:@\"']*)(?::[^\s/\"]*)?@", re.IGNORECASE)
# Names of settings, options and headers whose value is a secret: the name ends in one of these words.
_NAME = (
    r"(?:password|passwd|passphrase|secret|token|signature|bearer|"
    r"(?:api|secret|access|account|storage|auth|master|shared)[_-]?key)"
)
_VALUE = r"[\"']?[^\s\"'$&]"  # not empty, and no variable of the environment
_USER = r"[^\s:,%\"'$/]+"
# Parameters of a URL, with the separator that follows them. Presigned URLs of S3, Azure and Google Cloud end in a signature.
_PARAMETER = re.compile(
    rf"(?<=[?&;])(?:[\w.-]*{_NAME}|pwd|pass|sig|key|auth|code|jwt|sas|sid|jsessionid)=(?!\$)[^&;\s\"']*[&;]?", re.IGNORECASE
)
# A secret among the words of a shell command, unless a variable of the environment stands for it.
_IN_COMMAND = re.compile(
    rf"(?:^|\s)(?:-\w*u|--user|--proxy-user)[=\s]*[\"']?(?!\d+:\d+\b)(?![+-]){_USER}[:,%](?!/){_VALUE}"  # NAME:PASSWORD
    rf"|(?:{_NAME}|\b(?:authorization|cookie|x-auth[\w-]*))[\"']?\s*:\s*(?:\w+\s+)?+{_VALUE}"  # a header
    rf"|(?:{_NAME}|_(?:pwd|pass))={_VALUE}"  # a variable, or --option=SECRET
    rf"|(?:^|\s)--?[\w-]*{_NAME}\s+(?!-){_VALUE}"  # --option SECRET
    rf"|\bsshpass\s+-p\s*{_VALUE}|\bpass:{_VALUE}|(?:^|\s)(?:-b|--cookie)[=\s]*[\"']?[^\s\"'$=]+={_VALUE}",
    re.IGNORECASE,
)
# An absolute path, also in sqlite:///PATH and file://PATH; not the path of another URL or a relative one.
_PATH = re.compile(r"(?:(?<![\w/.~{}-])|(?<=:///)|(?<=file://))~?/(?![/\s]|$)[^\s\"',;=]*")
_EMPTY_QUERY = re.compile(r"(?<=\w)[?&](?=[\s\"']|$)")


def redacted(text: str) -> str:
    """Return `text` without the secrets in its URLs; a text without such URLs is returned unchanged.

    http and https URLs lose user and password: https://HOST for https://USER:PASSWORD@HOST and https://USER@HOST. URLs of other
    schemes, such as those of databases, lose only the password. Parameters with the name of a secret, such as `?password=...`
    and `&sig=...`, are left out, unless the value starts with "$".
    """
    without = _PARAMETER.sub("", _USERINFO.sub(_without_password, text))
    return text if without == text else _EMPTY_QUERY.sub("", without)


def holds_password(text: str) -> bool:
    """Return whether a URL or a shell command seems to hold a secret in clear text; `curl -u name:$PASSWORD` does not.

    Secrets are found by the form of URLs and by the names of options, headers and variables: others remain unnoticed. An http
    or https URL with a user name but no password counts, too, because some services take the password as the name.
    """
    return redacted(text) != text or _IN_COMMAND.search(text) is not None


def without_folders(text: str) -> str:
    """Return `text` with only the last part of every absolute path: `--config demo.yaml` for `--config /home/me/demo.yaml`.

    Paths that start with ~/, sqlite:/// or file:// are shortened, too; relative paths and the paths of other URLs stay.
    """
    return _PATH.sub(lambda found: found[0].rstrip("/").rpartition("/")[2], text)


def _without_password(found: re.Match[str]) -> str:
    scheme, user = found["scheme"], found["user"]
    # Over HTTP, a name without its password is useless, and some services take the password as the name.
    return f"{scheme}://" if scheme.lower() in ("http", "https") or not user else f"{scheme}://{user}@"
