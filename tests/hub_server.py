"""As much of the Hugging Face hub's HTTP as pushing and pulling call: a real server, in memory."""

import base64
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secretSECRETsecret"
OWNER = "me"
_REPO = r"/(?P<type>models|datasets)/(?P<id>[^/]+/[^/]+)"
Files = dict[str, bytes]


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Repo:
    """Commits of one repository, the newest of each branch, and which files are large."""

    def __init__(self, private: bool) -> None:
        self.private = private
        self.commits: dict[str, Files] = {}
        self.branches = {"main": self.add({".gitattributes": b"*.h5 filter=lfs\n"})}

    def add(self, files: Files) -> str:
        oid = f"{len(self.commits) + 1:040x}"
        self.commits[oid] = files
        return oid

    def at(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)

    @property
    def files(self) -> Files:
        return self.commits[self.branches["main"]]


class Hub(ThreadingHTTPServer):
    """The hub: what is in it, what was asked of it, and what shall go wrong."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.cdn = f"http://localhost:{self.server_address[1]}/cdn"  # another origin
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.lock = Lock()
        self.requests: list[tuple[str, str]] = []
        self.sent = Counter[str]()  # bytes of downloads by path
        self.leaked = False  # a token came to another origin
        self.fail: dict[str, list[int]] = {}  # "METHOD path-regex" to the statuses to answer
        self.cut: int | None = None  # bytes after which a download breaks off, always
        self.spoil: dict[str, bytes] = {}  # a file's name to what is sent instead
        self.ranges = True
        self.pace: tuple[int, float] | None = None  # of downloads: bytes, then seconds of waiting
        self.stall: int | None = None  # so many uploads end, no more
        self.corrupt_commits = False
        self.portal = False  # a page answers everything
        self.silent = False  # nothing answers
        self.gated = set[str]()  # names of repositories whose files nobody may have
        self.heard: Callable[[str], object] = lambda path: None  # called with each request

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keeps quiet about those who were killed."""

    def add(self, kind: str, name: str, files: Files) -> None:
        """Puts a repository there that somebody else made."""
        self.repos[kind, name] = repo = Repo(private=False)
        repo.branches["main"] = repo.add(files)

    def counted(self, method: str, pattern: str) -> int:
        return sum(m == method and re.search(pattern, p) is not None for m, p in self.requests)


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.handle_any()

    def do_GET(self) -> None:
        self.handle_any()

    def do_POST(self) -> None:
        self.handle_any()

    def do_PUT(self) -> None:
        self.handle_any()

    def handle_any(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self.chunks())
        hub.heard(f"{self.command} {path}")
        with hub.lock:
            hub.requests.append((self.command, path))
            for key, statuses in hub.fail.items():
                if statuses and re.fullmatch(key, f"{self.command} {path}"):
                    status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
                    if status:
                        # So long that what cuts it off cuts the token in two.
                        words = f"{'said the hub ' * 14}to {self.headers.get('Authorization')}"
                        return self.answer(status, {"error": words})
        if hub.silent:
            time.sleep(0.5)
            return None
        if hub.portal:
            return self.answer(200, ["Please log in to this network"])
        if path.startswith("/cdn/"):
            hub.leaked |= "Authorization" in self.headers
            return self.send_file(path, hub.objects[path.rpartition("/")[2]])
        if self.headers.get("Authorization") not in (None, f"Bearer {TOKEN}"):
            return self.answer(401, {"error": "Invalid credentials in Authorization header"})
        return self.route(path, body)

    def chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    @property
    def is_known(self) -> bool:
        return "Authorization" in self.headers

    def route(self, path: str, body: bytes) -> None:
        if path == "/api/whoami-v2" and self.is_known:
            return self.answer(200, {"name": OWNER, "type": "user", "orgs": []})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if match := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):
            return self.take(match[1], body)
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.batch(json.loads(body))
        match = re.fullmatch(rf"/api{_REPO}(?:/(?P<verb>\w+)/(?P<rest>.*))?", path)
        if match:
            return self.api(match, body)
        match = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if match:
            repo = self.find("datasets" if match[1] else "models", match[2])
            return self.resolve(repo, match[3], match[4])
        return self.answer(404, {"error": f"no {path}"})

    def take(self, oid: str, body: bytes) -> None:
        hub = self.server
        if hashlib.sha256(body).hexdigest() != oid:
            return self.answer(400, {"error": "another digest"})
        with hub.lock:
            stalled = hub.stall is not None and len(hub.objects) >= hub.stall
            if not stalled:
                hub.objects[oid] = body
        if stalled:
            time.sleep(60)
        return self.answer(200, {})

    def create(self, asked: dict[str, Any]) -> None:
        owner = asked.get("organization") or OWNER
        if not self.is_known or owner != OWNER:
            return self.answer(403, {"error": f"You don't have the rights to create {owner}/..."})
        key = f"{asked.get('type') or 'model'}s", f"{owner}/{asked['name']}"
        url = {"url": f"{self.server.url}/{key[1]}", "name": key[1]}
        if key in self.server.repos:
            return self.answer(409, {**url, "error": "You already created this repo"})
        private = asked.get("private") or asked.get("visibility") == "private"
        self.server.repos[key] = Repo(bool(private))
        return self.answer(200, url)

    def batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for one in asked["objects"]:
            entry = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.server.objects:
                entry["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}"}}
            objects.append(entry)
        self.answer(200, {"transfer": "basic", "objects": objects})

    def find(self, kind: str, name: str) -> Repo | None:
        repo = self.server.repos.get((kind, name))
        return repo if repo and (self.is_known or not repo.private) else None

    def api(self, match: re.Match[str], body: bytes) -> None:
        repo = self.find(match["type"], match["id"])
        if repo is None:
            return self.answer(404 if self.is_known else 401, {}, {"X-Error-Code": "RepoNotFound"})
        if match["id"] in self.server.gated and match["verb"] not in (None, "revision"):
            return self.answer(403, {}, {"X-Error-Code": "GatedRepo"})
        verb, rest = match["verb"] or "revision", match["rest"] or "main"
        if verb == "branch":
            repo.branches.setdefault(rest, repo.branches["main"])
            return self.answer(200, {})
        revision, _, _ = rest.partition("/") if verb == "tree" else (rest, "", "")
        commit = repo.at(revision)
        if commit is None:
            return self.answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        files = repo.commits[commit]
        if verb == "revision":
            siblings = [{"rfilename": name} for name in files]
            record = {"id": match["id"], "sha": commit, "private": repo.private}
            record |= {"siblings": siblings}
            return self.answer(200, record)
        if verb == "tree":
            return self.answer(200, [self.entry(name, files[name]) for name in files])
        if verb == "preupload":
            asked = json.loads(body)["files"]
            return self.answer(200, {"files": [self.mode(one, files) for one in asked]})
        assert verb == "commit"
        return self.commit(repo, revision, body)

    def entry(self, name: str, content: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": name, "size": len(content), "oid": git_oid(content)}
        if is_large(name):
            oid = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 134}
        return entry

    def mode(self, one: dict[str, Any], files: Files) -> dict[str, Any]:
        name = one["path"]
        told = {"path": name, "uploadMode": "lfs" if is_large(name) else "regular"}
        if name in files:
            content = files[name]
            large = hashlib.sha256(content).hexdigest()
            told["oid"] = large if is_large(name) else git_oid(content)
        return {**told, "shouldIgnore": False}

    def commit(self, repo: Repo, branch: str, body: bytes) -> None:
        if not self.is_known:
            return self.answer(401, {"error": "Unauthorized"})
        lines = [json.loads(line) for line in body.splitlines()]
        files = dict(repo.commits[repo.branches[branch]])
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                if value.get("parentCommit") not in (None, repo.branches[branch]):
                    return self.answer(412, {"error": "A commit has happened since"})
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        if self.server.corrupt_commits:
            files = {name: content + b"?" for name, content in files.items()}
        repo.branches[branch] = oid = repo.add(files)
        return self.answer(200, {"commitUrl": f"{self.server.url}/c/{oid}", "commitOid": oid})

    def resolve(self, repo: Repo | None, revision: str, name: str) -> None:
        commit = repo.at(revision) if repo else None
        if repo is None or commit is None or name not in repo.commits[commit]:
            return self.answer(404, {}, {"X-Error-Code": "EntryNotFound"})
        content = repo.commits[commit][name]
        if is_large(name) and name not in self.server.spoil:
            oid = hashlib.sha256(content).hexdigest()
            self.server.objects[oid] = content
            place = f"{self.server.cdn}/{oid}"
            told = {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            told |= {"X-Repo-Commit": commit, "Location": place}
            return self.answer(302, {}, told)
        told = {"X-Repo-Commit": commit, "ETag": f'"{git_oid(content)}"'}
        return self.send_file(name, self.server.spoil.get(name, content), told)

    def send_file(self, path: str, content: bytes, told: dict[str, str] | None = None) -> None:
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and self.server.ranges:
            start = int(asked[1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        for name, value in (told or {}).items():
            self.send_header(name, value)
        if start:
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(content) if self.server.cut is None else start + self.server.cut
        self.server.sent[path] += len(content[start:end])
        step, seconds = self.server.pace or (max(end - start, 1), 0)
        for first in range(start, end, step):
            self.wfile.write(content[first : min(end, first + step)])
            time.sleep(seconds)
        if end < len(content):
            self.close_connection = True

    def answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the test's output clean."""


def is_large(name: str) -> bool:
    return name.endswith((".h5", ".safetensors"))


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    Thread(target=hub.serve_forever, daemon=True).start()
    yield hub
    hub.shutdown()
    hub.server_close()
