"""The server of `unrain demo`: on this machine, for this machine.

It listens on 127.0.0.1. A request must name it so (a rebound DNS name does not), and what changes something must come
from its own page (another site's form or script does not). No word of a client becomes part of a path: its files are
found by a table, its uploads by a random name that only its page knows.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import tempfile
import threading
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .jobs import Job, Jobs
from .wiping import Wiper, rainy_sample

HERE = Path(__file__).parent
PAGES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
TYPES = {".png": "image/png", ".mp4": "video/mp4"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
CHOICES = ("model", "backend", "precision", "longest", "deadline")
BLOCK = 1 << 20
DRAINED = 256 * BLOCK  # of a refused upload: a browser shows the answer only when its upload was taken off it


class Refused(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Server(ThreadingHTTPServer):
    """`serve_forever()`, then `close()`, which removes every upload and result."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, wiper: Wiper, port: int, max_upload: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.wiper, self.max_upload = wiper, max_upload
        self.folder = Path(tempfile.mkdtemp(prefix="unrain-demo-"))
        self.jobs = Jobs(wiper)
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}
        self._slow = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def close(self, seconds: float = 2.0) -> None:
        self.server_close()
        self.jobs.close(seconds)
        shutil.rmtree(self.folder, ignore_errors=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle is no news."""

    @property
    def choices(self) -> dict[str, Any]:
        """What is known at once."""
        limits = {"max_upload": self.max_upload, "max_frames": self.wiper.max_frames}
        return {"models": list(self.wiper.models), **limits}

    @property
    def backends(self) -> dict[str, Any]:
        """What every backend has to be asked for, which takes seconds the first time."""
        with self._slow:
            return self._backends

    @property
    def sample(self) -> bytes:
        with self._slow:
            return self._sample

    @cached_property
    def _backends(self) -> dict[str, Any]:
        from ..engine.info import info
        from ..engine.runtime.backends import BACKENDS, PRECISIONS

        facts = info()
        backends = [{"name": name, "reason": facts["backends"][name]["reason"]} for name in BACKENDS]
        return {"backends": backends, "precisions": list(PRECISIONS), "gpu": bool(facts["gpus"])}

    @cached_property
    def _sample(self) -> bytes:
        return rainy_sample()


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "unrain", ""
    timeout = 60  # seconds a client may be silent in the middle of a request

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def _answer(self, method: Any) -> None:
        try:
            self._check_sender()
            method(urlsplit(self.path).path)
        except Refused as refusal:
            self.close_connection = True
            self._json(refusal.code, {"error": str(refusal)})
            self._drain()

    def _check_sender(self) -> None:
        if self.headers.get("Host", "").lower() not in self.server.hosts:
            raise Refused(421, f"this server answers only as {self.server.url}")
        origin = self.headers.get("Origin")
        foreign = origin is not None and origin.lower() not in {f"http://{host}" for host in self.server.hosts}
        if foreign or self.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            raise Refused(403, "only this server's own page may ask this")

    def _get(self, path: str) -> None:
        if path in PAGES:
            name, kind = PAGES[path]
            self._send(200, kind, (HERE / name).read_bytes())
        elif path == "/choices":
            self._json(200, self.server.choices)
        elif path == "/backends":
            self._json(200, self.server.backends)
        elif path == "/sample":
            self._send(200, "image/png", self.server.sample)
        else:
            job, part = self._job(path)
            if not part:
                self._json(200, self.server.jobs.describe(job))
                return
            file = job.files.get(part) if job.state == "done" else None
            if file is None:
                raise Refused(404, "that is not ready")
            self._send_file(file)

    def _post(self, path: str) -> None:
        if path != "/jobs":
            raise Refused(404, "there is nothing here")
        asked = dict(parse_qsl(urlsplit(self.path).query))
        choices = {key: asked.get(key, "") for key in CHOICES}
        if choices["model"] not in self.server.wiper.models:
            raise Refused(400, f"no model here is called {choices['model'][:40]!r}")
        choices.update({key: choices[key] or "auto" for key in ("backend", "precision")})
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or "Transfer-Encoding" in self.headers:
            raise Refused(411, "an upload must say how long it is")
        if int(length) > self.server.max_upload:
            raise Refused(413, f"the file is larger than {self.server.max_upload // 10**6} MB, the limit of this page")
        job = Job(self.server.folder / secrets.token_urlsafe(16), choices)
        if not self.server.jobs.take(job):
            raise Refused(503, "too many files are waiting; try again in a moment")
        try:
            job.folder.mkdir(0o700)
            self._receive(job.upload, int(length))
        except BaseException:
            self.server.jobs.drop(job)
            raise
        self.server.jobs.arrived(job)
        self._json(202, {"id": job.id})

    def _delete(self, path: str) -> None:
        job, _ = self._job(path)
        self.server.jobs.drop(job)
        self._json(200, {})

    def _job(self, path: str) -> tuple[Job, str]:
        found = re.fullmatch(r"/jobs/([\w-]{22})(?:/(before|after))?", path)
        job = self.server.jobs.find(found[1]) if found else None
        if found is None or job is None:
            raise Refused(404, "there is nothing here")
        return job, found[2] or ""

    def _receive(self, path: Path, length: int) -> None:
        with path.open("xb") as file:
            while length:
                block = self.rfile.read(min(length, BLOCK))
                if not block:
                    raise Refused(400, "the upload broke off")
                file.write(block)
                length -= len(block)

    def _drain(self) -> None:
        length = self.headers.get("Content-Length", "")
        left = min(int(length), DRAINED) if length.isdecimal() and self.command == "POST" else 0
        while left > 0 and (block := self.rfile.read(min(left, BLOCK))):
            left -= len(block)

    def _json(self, code: int, answer: dict[str, Any]) -> None:
        self._send(code, "application/json", json.dumps(answer).encode())

    def _send(self, code: int, kind: str, body: bytes) -> None:
        self._head(code, kind, len(body))
        self.wfile.write(body)

    def _send_file(self, path: Path) -> None:
        try:
            file = path.open("rb")
        except OSError:  # dropped a moment ago
            raise Refused(404, "that is gone") from None
        with file:
            self._head(200, TYPES[path.suffix], path.stat().st_size)
            shutil.copyfileobj(file, self.wfile, BLOCK)

    def _head(self, code: int, kind: str, length: int) -> None:
        self.send_response(code)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The base class's own refusals (a method we do not have, a broken request) in our form."""
        self.close_connection = True
        self._json(int(code), {"error": (message or "this cannot be answered").lower()})

    def log_message(self, *_: object) -> None:
        """The terminal is for the address and for errors."""
