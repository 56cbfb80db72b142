"""The part of the Hub's interface that models are published and loaded through, on this machine.

`Hub()` serves `repositories` of models, a dictionary from names to their files, and `datasets`, another, at `url`; clients
find it through `HF_ENDPOINT`.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import yaml


class Hub(ThreadingHTTPServer):
    """Repositories in memory. `cards` are the model cards that were sent to be checked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.datasets: dict[str, dict[str, bytes]] = {}
        self.cards: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


def revision(files: dict[str, bytes]) -> str:
    return hashlib.sha1(b"".join(name.encode() + files[name] for name in sorted(files))).hexdigest()


# Of the Hub's lists, what our cards may name.
LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-sa-3.0", "other"}
TASKS = {"text-classification", "token-classification", "feature-extraction"}
NAME = re.compile(r"([\w-][\w.-]*/)?[\w-][\w.-]*")


def problems(card: str) -> list[str]:
    """What the Hub would object to in the metadata of a model card."""
    parts = re.match(r"---\n(.*?)\n---\n", card, flags=re.DOTALL)
    data = yaml.safe_load(parts[1]) if parts else None
    if not isinstance(data, dict):
        return ["the card must begin with a YAML mapping between two lines of ---"]
    found = []

    def check(field: str, fits: Callable[[Any], bool]) -> None:
        values = data.get(field, [])
        wrong = [value for value in (values if isinstance(values, list) else [values]) if not fits(value)]
        found.extend(f'"{field}" may not be {value!r}' for value in wrong)

    check("license", LICENSES.__contains__)
    check("language", lambda value: isinstance(value, str) and re.fullmatch("[a-z]{2,3}|multilingual", value))
    check("pipeline_tag", TASKS.__contains__)
    check("base_model", lambda value: isinstance(value, str) and NAME.fullmatch(value))
    check("datasets", lambda value: isinstance(value, str) and NAME.fullmatch(value))
    check("metrics", lambda value: isinstance(value, str) and value)
    check("tags", lambda value: isinstance(value, str) and 0 < len(value) <= 64)
    for entry in data.get("model-index", []):
        if not entry.get("name") or not isinstance(entry.get("results"), list):
            found.append('"model-index" must have a name and a list of results')
        for result in entry.get("results", []):
            if not result.get("task", {}).get("type") or not NAME.fullmatch(result.get("dataset", {}).get("type") or ""):
                found.append('"model-index" must name the task and the dataset of each result')
            if not result.get("dataset", {}).get("name"):
                found.append('"model-index[].dataset.name" is required')
            if not all(metric.get("type") and isinstance(metric.get("value"), float) for metric in result.get("metrics", [])):
                found.append('"model-index" must give each metric a type and a value')
    return found


class _Requests(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def _missing(self, code: str) -> None:
        self._answer(404, b"{}", X_Error_Code=code)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/api/whoami-v2":
            return self._json({"name": "someone", "type": "user", "orgs": [], "auth": {"type": "access_token"}})
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            files = self._files(found[1], found[2])
            if files is None:
                return self._missing("RepoNotFound")
            siblings = [{"rfilename": name} for name in files]
            return self._json({"id": found[2], "sha": revision(files), "siblings": siblings, "tags": [], "private": False})
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/tree/[^/]+(?:/(.*))?", path):
            files = self._files(found[1], found[2])
            if files is None:
                return self._missing("RepoNotFound")
            below = unquote(found[3] or "").strip("/")
            own = {name: data for name, data in files.items() if not below or name.startswith(below + "/")}
            if below and not own:
                return self._missing("EntryNotFound")
            return self._json(
                [{"type": "file", "path": name, "size": len(data), "oid": _oid(data)} for name, data in own.items()]
            )
        if found := re.fullmatch(r"(?:/(datasets))?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            files = self._files(found[1] or "models", found[2])
            if files is None:
                return self._missing("RepoNotFound")
            if found[4] not in files:
                return self._missing("EntryNotFound")
            data = files[found[4]]
            return self._answer(200, data, ETag=f'"{_oid(data)}"', X_Repo_Commit=revision(files), Accept_Ranges="bytes")
        return self._missing("RepoNotFound")

    def _files(self, kind: str, name: str) -> dict[str, bytes] | None:
        return (self.server.repositories if kind == "models" else self.server.datasets).get(name)

    def do_POST(self) -> None:
        path, body = self.path.split("?")[0], self._body()
        if path == "/api/repos/create":
            name = json.loads(body)
            full = f"{name.get('organization') or 'someone'}/{name['name']}"
            self.server.repositories.setdefault(full, {})
            return self._json({"url": f"{self.server.url}/{full}", "name": full})
        if path == "/api/validate-yaml":
            card = json.loads(body)["content"]
            self.server.cards.append(card)
            found = [{"message": problem} for problem in problems(card)]
            return self._json({"errors": found, "warnings": []}, 400 if found else 200)
        if re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/[^/]+", path):
            files = json.loads(body)["files"]
            return self._json(
                {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]}
            )
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/[^/]+", path):
            files = self.server.repositories[found[1]]
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                elif entry["key"] == "deletedFile":
                    files.pop(entry["value"]["path"], None)
            sha = revision(files)
            return self._json({"commitOid": sha, "commitUrl": f"{self.server.url}/{found[1]}/commit/{sha}"})
        return self._missing("RepoNotFound")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
