"""An HTTP server on the loopback that serves files and redirects, and counts connections, requests and bytes. It can ask for a
password and a signature."""

import base64
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


class FileServer(ThreadingHTTPServer):
    """`files`: path -> content; `redirects`: path -> address; `folder`: where other paths are looked for. What is in none of
    them is not there."""

    daemon_threads = True

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.authorization = ""
        """Header that is asked for, and `signature` the parameter X-Amz-Signature; empty: none."""
        self.signature = ""
        self.connections = 0
        self.requests: list[tuple[str, str]] = []
        """Method and path, without the query."""
        self.bytes_sent = 0
        self.broken_after = -1
        """Bytes after which the next answers end; -1: they are whole."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def verify_request(self, request: Any, client_address: Any) -> bool:
        self.connections += 1
        return True


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def _answer(self, *, with_content: bool) -> None:
        server, parts = self.server, urlsplit(self.path)
        server.requests.append((self.command, parts.path))
        if parts.path in server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects[parts.path])
            self.end_headers()
            return
        signature = parse_qs(parts.query).get("X-Amz-Signature", [""])[0]
        if (self.headers.get("Authorization", ""), signature) != (server.authorization, server.signature):
            self.send_error(403, f"no access to {self.path}")
            return
        content = server.files.get(parts.path)
        path = server.folder / parts.path.lstrip("/") if server.folder else None
        if content is None and path is not None and path.is_file():
            content = path.read_bytes()
        if content is None:
            self.send_error(404, f"no file {self.path}")
            return
        self._send(content, with_content)

    def _send(self, content: bytes, with_content: bool) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(span[1]), int(span[2] or len(content) - 1)) if span else (0, len(content) - 1)
        chunk = content[first : last + 1]
        self.send_response(206 if span else 200)
        self.send_header("Accept-Ranges", "bytes")
        if span:
            self.send_header("Content-Range", f"bytes {first}-{first + len(chunk) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(chunk)))
        self.end_headers()
        if with_content:
            sent = chunk if self.server.broken_after < 0 else chunk[: self.server.broken_after]
            self.wfile.write(sent)
            self.server.bytes_sent += len(sent)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def file_server(folder: Path | None = None) -> Iterator[FileServer]:
    """The server, running until the block ends."""
    server = FileServer(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serving(folder: Path, *, user: str, password: str, signature: str) -> Iterator[FileServer]:
    """A server that asks for a password and a signature, running until the block ends."""
    with file_server(folder) as server:
        server.authorization = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        server.signature = signature
        yield server
