"""A file server on 127.0.0.1 that counts requests and asks for a password and a signature."""

import base64
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class FileServer(ThreadingHTTPServer):
    """Serves a folder; `requests` are the paths asked for."""

    daemon_threads = True

    def __init__(self, folder: Path, user: str, password: str, signature: str) -> None:
        self.folder, self.signature = folder, signature
        self.authorization = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self.requests: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        parts = urlsplit(self.path)
        self.server.requests.append(parts.path)
        path = self.server.folder / parts.path.lstrip("/")
        signed = parse_qs(parts.query).get("X-Amz-Signature") == [self.server.signature]
        if not signed or self.headers.get("Authorization") != self.server.authorization:
            self.send_error(403, f"no access to {self.path}")
        elif not path.is_file():
            self.send_error(404, f"no file {self.path}")
        else:
            self._send(path.read_bytes(), with_body)

    def _send(self, content: bytes, with_body: bool) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(span[1]), int(span[2] or len(content) - 1)) if span else (0, len(content) - 1)
        chunk = content[first : last + 1]
        self.send_response(206 if span else 200)
        self.send_header("Accept-Ranges", "bytes")
        if span:
            self.send_header("Content-Range", f"bytes {first}-{first + len(chunk) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(chunk)))
        self.end_headers()
        if with_body:
            self.wfile.write(chunk)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path, *, user: str, password: str, signature: str) -> Iterator[FileServer]:
    """The server, running until the block ends."""
    server = FileServer(folder, user, password, signature)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.05), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
