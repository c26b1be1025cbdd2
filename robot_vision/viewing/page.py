"""Rerun's page, handed on with a policy under which a browser asks nobody else for anything."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
import urllib.error
import urllib.request
from typing import Any

from robot_vision.errors import ConfigError

_KEPT = ("Content-Type", "Content-Encoding", "Cache-Control")
# A browser connects to them before it asks the policy.
_FROM_AFAR = re.compile(rb'<link\b[^>]*\bhref="https?://[^>]*>')
_TIMEOUT_S = 10.0


def policy(data_port: int) -> str:
    """Returns the Content-Security-Policy of a page whose data come over a port.

    Rerun's viewer reports what it is used for, looks for newer versions and loads a font; all of that is
    refused. The host of the data is open, since a page may be reached under any name or through a tunnel.
    """
    return (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' 'unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; worker-src 'self' blob:; "
        f"connect-src 'self' data: blob: http://*:{data_port}; form-action 'none'; base-uri 'self'"
    )


class Page:
    """Serves what another server on this machine does, under the policy, until it is closed.

    Args:
        host: address to listen on.
        port: of the page.
        source: URL of the other server, without a slash at its end.
        data_port: see `policy`.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    def __init__(self, host: str, port: int, source: str, data_port: int) -> None:
        rules = policy(data_port)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _hand_on(self, source, rules)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        try:
            self._server = http.server.ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise ConfigError(f"{host}:{port} cannot be listened on: {error.strerror}") from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="page", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _hand_on(handler: http.server.BaseHTTPRequestHandler, source: str, rules: str) -> None:
    # Never through a proxy of the environment: the other server is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(ConnectionError):  # a browser that leaves
        try:
            with opener.open(source + handler.path, timeout=_TIMEOUT_S) as answer:
                handler.send_response(answer.status)
                for name in _KEPT:
                    if value := answer.headers.get(name):
                        handler.send_header(name, value)
                body = answer.read()
                if answer.headers.get_content_type() == "text/html":
                    body = _FROM_AFAR.sub(b"", body)
                handler.send_header("Content-Length", str(len(body)))
                handler.send_header("Content-Security-Policy", rules)
                handler.send_header("Referrer-Policy", "no-referrer")
                handler.end_headers()
                handler.wfile.write(body)
        except urllib.error.HTTPError as error:
            handler.send_error(error.code)
        except (urllib.error.URLError, TimeoutError):
            handler.send_error(502)
