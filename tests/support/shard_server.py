"""A web server for a folder: it counts what it is asked for, and misbehaves when it is told to."""

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = Callable[["Handler", bytes], None]
"""Sends a file's bytes, or not."""


class Server:
    """`faults[name]` are the next answers to requests for files of that name; then it is well."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: Counter[str] = Counter()
        """Path beneath the folder -> how many times."""
        self.faults: defaultdict[str, deque[Answer]] = defaultdict(deque)
        self.always: Answer | None = None
        self.half_sent, self.go_on = threading.Event(), threading.Event()
        self._http = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Own", (Handler,), {"server_": self})
        )
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self.go_on.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_: Server

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        self.server_.asked[path] += 1
        file = self.server_.folder / path
        if not file.is_file():
            return status(404)(self, b"")
        faults = self.server_.faults[file.name]
        answer = faults.popleft() if faults else self.server_.always or whole
        with suppress(ConnectionError):  # who asked was killed
            answer(self, file.read_bytes())

    def begin(self, code: int, length: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def whole(handler: Handler, data: bytes) -> None:
    handler.begin(200, len(data))
    handler.wfile.write(data)


def status(code: int) -> Answer:
    return lambda handler, data: handler.begin(code, 0)


def flipped(handler: Handler, data: bytes) -> None:
    """One bit of it."""
    middle = len(data) // 2
    whole(handler, data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :])


def shorter(handler: Handler, data: bytes) -> None:
    """And says so: a file that was not copied to its end."""
    whole(handler, data[: len(data) // 2])


def longer(handler: Handler, data: bytes) -> None:
    whole(handler, data + data)


def torn(handler: Handler, data: bytes) -> None:
    """The connection ends before the file does."""
    handler.begin(200, len(data))
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True


def held_up(handler: Handler, data: bytes) -> None:
    """The second half comes when the test lets it."""
    handler.begin(200, len(data))
    handler.wfile.write(data[: len(data) // 2])
    handler.server_.half_sent.set()
    handler.server_.go_on.wait(60)
    handler.wfile.write(data[len(data) // 2 :])


@contextmanager
def serve(folder: Path) -> Generator[Server]:
    server = Server(folder)
    try:
        yield server
    finally:
        server.close()
