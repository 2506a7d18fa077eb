"""A stand-in for the Hugging Face Hub: an HTTP server with the endpoints that a download and an upload of small files use."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]
NO_HEADERS: Mapping[str, str] = {}


class Hub(ThreadingHTTPServer):
    """The repositories by name; each commit holds all files, the newest comes last. Every request is recorded."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, list[Files]] = {}
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def upload(self, repository: str, files: Files) -> None:
        """Add a commit that holds exactly `files`."""
        self.repositories.setdefault(repository, []).append(files)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {urlsplit(self.path).path}")
        files: Files | None
        match unquote(urlsplit(self.path).path).strip("/").split("/"):
            case ["api", "models", user, name, "revision", revision] if (
                files := self._files(user, name, revision)
            ) is not None:
                siblings = [{"rfilename": file} for file in files]
                self._answer({"id": f"{user}/{name}", "sha": self._sha(user, name, revision), "siblings": siblings, "tags": []})
            case ["api", "models", user, name, "tree", revision] if (files := self._files(user, name, revision)) is not None:
                self._answer([{"type": "file", "path": n, "size": len(d), "oid": digest(d)} for n, d in files.items()])
            case [user, name, "resolve", revision, file] if file in (files := self._files(user, name, revision) or {}):
                headers = {"X-Repo-Commit": self._sha(user, name, revision), "ETag": f'"{digest(files[file])}"'}
                self._answer(files[file], 200, headers)
            case _:
                self._answer({"error": "not found"}, 404, {"X-Error-Code": self._reason()})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.server.requests.append(f"{self.command} {urlsplit(self.path).path}")
        body = self._body()
        match urlsplit(self.path).path.strip("/").split("/"):
            case ["api", "repos", "create"]:
                request = json.loads(body)
                repository = f"{request['organization']}/{request['name']}"
                self.server.repositories.setdefault(repository, [{".gitattributes": b""}])
                self._answer({"url": f"{self.server.address}/{repository}", "id": repository})
            case ["api", "validate-yaml"]:
                self._answer({"errors": [], "warnings": []})
            case ["api", "models", _, _, "preupload", "main"]:
                files = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]
                ]
                self._answer({"files": files})
            case ["api", "models", user, name, "commit", "main"]:
                self._commit(f"{user}/{name}", [json.loads(line) for line in body.splitlines()])
            case _:
                self._answer({"error": "not found"}, 404)

    def _commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        commits = self.server.repositories[repository]
        files = dict(commits[-1])
        for line in lines:
            if line["key"] == "deletedFile":
                del files[line["value"]["path"]]
            elif line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commits.append(files)
        sha = commit_sha(len(commits) - 1)
        self._answer({"commitOid": sha, "commitUrl": f"{self.server.address}/{repository}/commit/{sha}", "success": True})

    def _files(self, user: str, name: str, revision: str) -> Files | None:
        commits = self.server.repositories.get(f"{user}/{name}", [])
        known = {"main": -1} | {commit_sha(number): number for number in range(len(commits))}
        return commits[known[revision]] if commits and revision in known else None

    def _reason(self) -> str:
        """The error code of a request for something that is not there."""
        match unquote(urlsplit(self.path).path).strip("/").split("/"):
            case ["api", "models", user, name, "revision", _] if f"{user}/{name}" in self.server.repositories:
                return "RevisionNotFound"
            case [user, name, "resolve", *_] if f"{user}/{name}" in self.server.repositories:
                return "EntryNotFound"
        return "RepoNotFound"

    def _sha(self, user: str, name: str, revision: str) -> str:
        return revision if len(revision) == 40 else commit_sha(len(self.server.repositories[f"{user}/{name}"]) - 1)

    def _body(self) -> bytes:
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, content: object, status: int = 200, headers: Mapping[str, str] = NO_HEADERS) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def commit_sha(number: int) -> str:
    return f"{number:040x}"


def digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve an empty hub on a free port of this machine while the block runs."""
    with Hub() as hub:
        thread = Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
