"""A local S3 server: moto's, one write at a time as S3 evaluates conditions, or without conditions as some stores are."""

import io
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from schemas.storage import Storage

_NUMBERS = itertools.count()
_CONDITIONS = ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH")


class _Application:
    """moto, which checks a condition and then writes, behind a lock that makes the two one step."""

    def __init__(self, conditional: bool) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self.application = DomainDispatcherApplication(create_backend_app)
        self.conditional, self.lock = conditional, threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not self.conditional and environ["REQUEST_METHOD"] in ("PUT", "POST", "DELETE"):
            for name in _CONDITIONS:
                environ.pop(name, None)
        if environ.get(
            "CONTENT_LENGTH"
        ):  # read before: a client that is stopped in the middle must not hold the others up
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        with self.lock:
            return list(self.application(environ, start_response))


@contextmanager
def s3_bucket(name: str = "humo", *, conditional: bool = True) -> Iterator[str]:
    """Address of an empty bucket of a server on this machine, which the environment names meanwhile. What moto holds belongs to the
    process, so every bucket has a name of its own, which begins with `name`."""
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from werkzeug.serving import make_server

    name = f"{name}-{next(_NUMBERS)}"
    server = make_server("127.0.0.1", 0, _Application(conditional), threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    environment = dict(os.environ)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    try:
        Storage(f"s3://{name}").fs.mkdir(name)
        yield f"s3://{name}"
    finally:
        os.environ.clear()
        os.environ.update(environment)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.shutdown()
        thread.join()
        server.server_close()
