"""Stands between S3 clients and a server, and answers a share of the requests as an ailing store does.

Requests are passed on as they came, with the client's `Host`, which is part of what it signed. A server that does not
listen looks as it does behind a load balancer: the connection ends without an answer.
"""

from __future__ import annotations

import http.client
import random
import threading
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Answer = Literal["error_500", "error_503", "slow_down", "half_read", "lost_answer"]

CODES: dict[str, tuple[int, str, str]] = {
    "error_500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "error_503": (503, "ServiceUnavailable", "Reduce your request rate."),
    "slow_down": (503, "SlowDown", "Please reduce your request rate."),
}
"""Status, code and message of S3's own errors."""

_OF_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "expect"}


@dataclass(frozen=True)
class Ailment:
    """How a share of the requests is answered.

    Attributes:
        answer: An error of S3; `half_read`: what is read ends after half of the bytes that were announced;
            `lost_answer`: the store does as it was asked and the connection ends without a word.
        share: Of the requests, 0 to 1.
        seed: Decides which.
    """

    answer: Answer
    share: float
    seed: int = 0


class StoreProxy:
    """An HTTP server on a port of its own that passes requests on to `server_port`; use it in a `with` block.

    Attributes:
        port: Where it listens.
        answered: How many requests were answered wrongly since the beginning, by answer.
    """

    def __init__(self, server_port: int) -> None:
        self.answered: Counter[str] = Counter()
        self._server_port = server_port
        self._lock = threading.Lock()
        self._ailment: Ailment | None = None
        self._random = random.Random()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.port = int(self._http.server_address[1])
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    def __enter__(self) -> StoreProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def fall_ill(self, ailment: Ailment) -> None:
        """Answers a share of the requests wrongly from now on."""
        with self._lock:
            self._random.seed(ailment.seed)
            self._ailment = ailment

    def recover(self) -> None:
        """Passes everything on from now on."""
        with self._lock:
            self._ailment = None

    def _drawn(self, has_body: bool) -> Answer | None:
        """How the next request is answered; None as the server does. Only what has a body can be half read."""
        with self._lock:
            ailment = self._ailment
            if ailment is None or (ailment.answer == "half_read" and not has_body):
                return None
            if self._random.random() >= ailment.share:
                return None
            self.answered[ailment.answer] += 1
            return ailment.answer

    def _handler(proxy: StoreProxy) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answer = None if self.command == "GET" else proxy._drawn(has_body=False)
                if answer in CODES:
                    self._fail(answer)
                    return
                try:
                    status, headers, content = proxy._ask(self.command, self.path, self.headers.items(), body)
                except (OSError, http.client.HTTPException):
                    self.close_connection = True
                    return
                if self.command == "GET":
                    answer = proxy._drawn(has_body=len(content) > 1)
                if answer in CODES:
                    self._fail(answer)
                elif answer == "lost_answer":
                    self.close_connection = True
                else:
                    self._tell(status, headers, content, half=answer == "half_read")

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on

            def _tell(self, status: int, headers: list[tuple[str, str]], content: bytes, half: bool) -> None:
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                if self.command != "HEAD" and not any(name.lower() == "content-length" for name, _ in headers):
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if half else content)
                self.close_connection = self.close_connection or half

            def _fail(self, answer: str) -> None:
                status, code, message = CODES[answer]
                text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
                content = b"" if self.command == "HEAD" else text.encode()
                headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(content)))]
                self._tell(status, headers, content, half=False)

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:  # the client is gone
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler

    def _ask(
        self, method: str, path: str, headers: list[tuple[str, str]], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._server_port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                if name.lower() not in _OF_ONE_CONNECTION:
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        kept = [(name, value) for name, value in response.getheaders() if name.lower() not in _OF_ONE_CONNECTION]
        return response.status, kept, content
