"""A small HTTP server that speaks the OpenAI chat protocol, or misbehaves in the way that a test asks for."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = {
    "body": ["A person waves with the left hand."],
    "torso": ["The torso stays upright."],
    "left_arm": ["The left arm waves."],
    "right_arm": [],
    "left_leg": [],
    "right_leg": [],
}


class ChatServer(ThreadingHTTPServer):
    """Answers with what `answer` gives for the request number; keeps what it was asked."""

    daemon_threads = True
    answer: Callable[[int, dict[str, Any]], tuple[int, dict[str, str], bytes]]
    slow_s: float = 0.0
    """It waits so long before it answers."""
    dribble_s: float = 0.0
    """And so long after every hundredth of the answer."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


def completion(content: str, *, finish: str = "stop", prompt: int = 900, answered: int = 80) -> bytes:
    """A chat completion with this text."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}
    usage = {"prompt_tokens": prompt, "completion_tokens": answered, "total_tokens": prompt + answered}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def saying(value: Any) -> Callable[[int, dict[str, Any]], tuple[int, dict[str, str], bytes]]:
    """Always this, as JSON or as it is."""
    text = value if isinstance(value, str) else json.dumps(value)
    return lambda number, body: (200, {"Content-Type": "application/json"}, completion(text))


@contextmanager
def chat_server(answer: Any = None) -> Iterator[ChatServer]:
    """A server on a port of its own, for the length of the block."""
    server = ChatServer()
    server.answer = answer or saying(GOOD)  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        self.server.keys.append(self.headers.get("Authorization", ""))
        status, headers, content = self.server.answer(len(self.server.requests), body)
        time.sleep(self.server.slow_s)
        try:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if not self.server.dribble_s:
                self.wfile.write(content)
                return
            for start in range(0, len(content), max(1, len(content) // 100)):
                self.wfile.write(content[start : start + max(1, len(content) // 100)])
                self.wfile.flush()
                time.sleep(self.server.dribble_s)
        except (BrokenPipeError, ConnectionResetError):
            pass  # Whoever asked has gone away.

    def log_message(self, format: str, *args: Any) -> None:
        pass
