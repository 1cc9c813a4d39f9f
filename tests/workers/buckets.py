"""As much of an S3 server as the workers meet: objects by path, and the answers that stand for what can go wrong."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Buckets:
    """Serves `objects`, by path, on a free port of this machine until it is closed; closing twice is fine."""

    KEY_ID = "key-id-of-the-test"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.refuses = False
        buckets = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                if buckets.refuses:
                    self._answer(
                        403, _error("SignatureDoesNotMatch", f"<AWSAccessKeyId>{Buckets.KEY_ID}</AWSAccessKeyId>")
                    )
                elif path in buckets.objects:
                    self._answer(200, buckets.objects[path])
                else:
                    self._answer(404, _error("NoSuchKey" if buckets.objects else "NoSuchBucket"))

            def do_PUT(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                buckets.objects[unquote(urlsplit(self.path).path)] = content
                self._answer(200, b"")

            def _answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", '"1"')
                self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _error(code: str, more: str = "") -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>{more}</Error>'.encode()
