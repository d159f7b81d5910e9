"""A Hugging Face hub on this machine: the requests that huggingface_hub sends to push and to pull, and no more."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

Files = dict[str, bytes]


class FakeHub:
    """`repositories` hold the commits of each, newest last; `requests` is what was asked, as "METHOD PATH"."""

    def __init__(self) -> None:
        self.repositories: dict[str, list[Files]] = {}
        self.private: dict[str, bool] = {}
        self.requests: list[str] = []
        self.refuses = False

    def commit(self, name: str, lines: list[dict]) -> None:
        files = dict(self.repositories[name][-1])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.repositories[name].append(files)


def sha(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()  # noqa: S324 (as git names things)


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, body: bytes | dict | list, code: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def handle_request(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                sent += self.rfile.read(size + 2)[:size]
            self.rfile.readline()
        if path == "/api/repos/create":
            asked = json.loads(sent)
            name = f"{asked['organization']}/{asked['name']}"
            self.hub.private[name] = asked.get("private", asked.get("visibility") == "private")  # by the hub's version
            code = 409 if name in self.hub.repositories else 200
            self.hub.repositories.setdefault(name, [{}])
            return self.answer({"url": f"http://{self.headers['Host']}/{name}", "id": name, "name": name}, code)
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/models/(\w+/\w+)/(preupload|commit|revision|tree)/(\w+)/?.*", path):
            return self.model(match[1], match[2], sent)
        if match := re.fullmatch(r"/(\w+/\w+)/resolve/(\w+)/(.*)", path):
            return self.resolve(*match.groups())
        return self.answer({"error": f"{path} is not known here"}, 404)

    def model(self, name: str, what: str, sent: bytes) -> None:
        if name not in self.hub.repositories:
            return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        commits = self.hub.repositories[name]
        if what == "preupload":
            return self.answer({"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                                          for file in json.loads(sent)["files"]]})
        if what == "commit" and self.hub.refuses:
            return self.answer({"error": "you may not write here"}, 403)
        if what == "commit":
            self.hub.commit(name, [json.loads(line) for line in sent.splitlines()])
            oid = sha(str(len(commits)).encode())
            return self.answer({"commitUrl": f"http://{self.headers['Host']}/{name}/commit/{oid}", "commitOid": oid,
                                "success": True})
        if what == "tree":
            return self.answer([{"type": "file", "path": file, "size": len(data), "oid": sha(data)}
                                for file, data in commits[-1].items()])
        return self.answer({"id": name, "sha": sha(str(len(commits)).encode()), "private": False, "tags": [],
                            "siblings": [{"rfilename": file} for file in commits[-1]]})

    def resolve(self, name: str, commit: str, file: str) -> None:
        commits = {sha(str(i + 1).encode()): files for i, files in enumerate(self.hub.repositories[name])}
        data = commits[commit][file]
        self.answer(data, ETag=f'"{sha(data)}"', X_Repo_Commit=commit, Content_Type="application/octet-stream")

    do_GET = do_POST = do_HEAD = handle_request


@contextmanager
def fake_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Has huggingface_hub talk to a hub of this process, with a token, and keep what it fetches in `cache`."""
    from huggingface_hub import constants

    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"hub": hub}))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(cache / "assets"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def matching(files: Files, pattern: str) -> list[str]:
    return sorted(name for name in files if fnmatch(name, pattern))
