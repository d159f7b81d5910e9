"""Who may talk to the studio: a viser server that answers its own pages only, with a token if other machines reach it.

Viser's server takes a websocket from any web page that the browser shows. `GuardedServer` looks at each request before
viser does, and refuses it in one line.
"""

from __future__ import annotations

import contextlib
import hmac
import http
import io
import ipaddress
import secrets
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

try:
    import viser
    import websockets.asyncio.server
    from websockets.asyncio.server import ServerConnection
    from websockets.datastructures import Headers
    from websockets.http11 import Request, Response
except ImportError as error:
    raise ImportError("the studio needs viser, which is missing: pip install 'gentraj[studio]'") from error

PROTECTION = {"Content-Security-Policy": "frame-ancestors 'none'", "Referrer-Policy": "no-referrer",
              "Cache-Control": "no-store"}
_serving = threading.Lock()


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach the address `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Decides which requests are answered.

    A request must name this server in `Host`, which stops DNS rebinding, and a websocket must come from a page of this
    server, by `Origin`. If `host` is reachable from other machines, the `token` is required as well: in the address of
    the page, which then stores it in a cookie that the websocket brings along.
    """

    def __init__(self, host: str, most_clients: int = 16):
        self.token: str | None = None
        if not is_loopback(host):
            self.token = secrets.token_urlsafe(24)
        self.cookie = f"gentraj_studio_{secrets.token_hex(4)}"
        """Name of the cookie; a browser sends the cookies of a host to all its ports."""
        self.most_clients = most_clients
        self.clients = 0
        """Number of open websockets."""
        self.active = False
        """Whether a server obeys this guard."""

    def refusal(self, request: Request, websocket: bool) -> str | None:
        """Returns why a request is refused, in one line, or None.

        Raises ValueError or LookupError for headers that cannot be understood, for which websockets refuses a request.
        """
        host = request.headers.get("Host", "")
        origin = request.headers.get("Origin")
        name = urlsplit(f"//{host}").hostname or ""
        if self.token is None and not is_loopback(name):
            return f"The studio answers to localhost only, not to '{name}'; --host lets other machines in."
        if (websocket or origin is not None) and origin not in (f"http://{host}", f"https://{host}"):
            return f"Only pages of the studio itself may use it, and this request comes from {origin or 'no page'}."
        if self.token is not None and not self._knows(self.token, request):
            return "The studio needs the token of the address that it printed when it started (?token=...)."
        if self.clients >= self.most_clients:
            return f"The studio serves at most {self.most_clients} browsers at once; close one of them."
        return None

    def _knows(self, token: str, request: Request) -> bool:
        given = parse_qs(urlsplit(request.path).query).get("token", [])
        for cookies in request.headers.get_all("Cookie"):
            for pair in cookies.split(";"):
                name, _, value = pair.strip().partition("=")
                if name == self.cookie:
                    given.append(value)
        return any(hmac.compare_digest(each.encode(), token.encode()) for each in given)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """While it is open, the servers that viser makes obey this guard.

        Viser offers no way to pass a check of requests to the server that it makes, so the function that makes it is
        replaced for as long as viser's constructor runs.
        """
        def guarded(handler: Any, *args: Any, process_request: Any, **options: Any) -> Any:
            self.active = True

            def checked(connection: ServerConnection, request: Request) -> Response | None:
                response = process_request(connection, request)  # None where the connection becomes a websocket
                reason = self.refusal(request, websocket=response is None)
                if reason is not None:
                    body = f"{reason}\n".encode()
                    headers = Headers({"Content-Type": "text/plain", "Content-Length": str(len(body))})
                    response = Response(http.HTTPStatus.FORBIDDEN, "Forbidden", headers, body)
                if response is not None:
                    response.headers.update(PROTECTION)
                    if reason is None and self.token is not None:
                        cookie = f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
                        response.headers["Set-Cookie"] = cookie
                return response

            async def counted(connection: ServerConnection) -> None:
                self.clients += 1
                try:
                    await handler(connection)
                finally:
                    self.clients -= 1

            return serve(counted, *args, process_request=checked, **options)

        with _serving:
            serve = websockets.asyncio.server.serve
            websockets.asyncio.server.serve = guarded  # type: ignore[assignment, misc]
            try:
                yield
            finally:
                websockets.asyncio.server.serve = serve  # type: ignore[misc]


class GuardedServer(viser.ViserServer):
    """A viser server on `host` that obeys a `Guard`; `url` is the address to open, with the token if there is one.

    It listens on `port`, or on the next free one if that is taken; with 0 on any free one. Viser's public tunnels are
    switched off. Raises ValueError, in one line, for an address that cannot be listened on.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8080, label: str | None = None, most_clients: int = 16):
        check_address(host, port)
        self.guard = Guard(host, most_clients)
        # Viser prints an address without the token.
        with self.guard.installed(), contextlib.redirect_stdout(io.StringIO()):
            super().__init__(host, port, label, verbose=False)
        if not self.guard.active:
            self.stop()
            raise RuntimeError("this version of viser does not listen through websockets.asyncio.server.serve, so its "
                               "requests cannot be checked; install viser 1.1")

    @property
    def url(self) -> str:
        """The address that a browser of this machine opens."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.get_host(), self.get_host())  # noqa: S104
        if ":" in host:
            host = f"[{host}]"
        address = f"http://{host}:{self.get_port()}/"
        return address if self.guard.token is None else f"{address}?token={self.guard.token}"

    def stop(self) -> None:
        """Ends the server and its threads."""
        with contextlib.redirect_stdout(io.StringIO()):  # viser would say so, in a line of its own
            super().stop()

    def request_share_url(self, verbose: bool = True) -> str | None:
        """Returns None: a browser must not be able to publish the studio."""
        return None


def check_address(host: str, port: int) -> None:
    """Raises ValueError for an address that nothing can listen on, for which viser would wait without end."""
    if not 0 <= port <= 65535:
        raise ValueError(f"--port is {port}; a number from 0 to 65535 is expected")
    try:
        family = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, 0), family=family).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: a part of the name is too long
        raise ValueError(f"--host is {host}, and nothing can listen there ({error}); give an address of this machine, "
                         "such as 127.0.0.1 or 0.0.0.0") from error
