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
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

try:
    import viser
    import websockets.asyncio.server
    from websockets.asyncio.server import ServerConnection
    from websockets.datastructures import Headers, MultipleValuesError
    from websockets.http11 import Request, Response
except ImportError as error:
    raise ImportError("the studio needs viser, which is missing: pip install 'gentraj[studio]'") from error

from ..progress import one_line

COOKIE = "gentraj_studio_token"
PROTECTION = {"Content-Security-Policy": "frame-ancestors 'none'", "X-Frame-Options": "DENY",
              "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
_serving = threading.Lock()


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach the address `host`."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


class Guard:
    """Decides which requests are answered.

    A request must name this server in `Host`, which stops DNS rebinding, and a websocket must come from a page of this
    server, by `Origin`. If `host` is reachable from other machines, the `token` is required as well: in the address of
    the page, which then stores it in a cookie that the websocket brings along.
    """

    def __init__(self, host: str, most_clients: int = 16):
        self.token = None if is_loopback(host) else secrets.token_urlsafe(24)
        self.most_clients = most_clients
        self.clients = 0
        """Number of open websockets."""

    @property
    def full(self) -> str | None:
        """Why there is no place for another browser, or None."""
        if self.clients < self.most_clients:
            return None
        return f"The studio serves at most {self.most_clients} browsers at once; close one of them."

    def refusal(self, request: Request, websocket: bool) -> str | None:
        """Returns why a request is refused, in one line, or None."""
        try:
            host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
            cookies = request.headers.get_all("Cookie")
            place = urlsplit(f"//{host}")
            name, port = place.hostname or "", place.port
        except (MultipleValuesError, ValueError):
            return "The request names its host or origin twice, or in no known way."
        if self.token is None and not is_loopback(name):
            return f"The studio answers to localhost only, not to '{name}'; --host lets other machines in."
        if (websocket or origin is not None) and origin not in (f"http://{host}", f"https://{host}"):
            return f"Only pages of the studio itself may use it, and this request comes from {origin or 'no page'}."
        if self.token is not None and not self._knows_token(request.path, cookies, port):
            return "The studio needs the token of the address that it printed when it started (?token=...)."
        return None

    def cookie(self, request: Request) -> str | None:
        """Returns the cookie that a page stores so that its websocket knows the token, or None without a token."""
        if self.token is None:
            return None
        port = urlsplit(f"//{request.headers.get('Host', '')}").port
        return f"{_cookie_name(port)}={self.token}; HttpOnly; SameSite=Strict; Path=/"

    def _knows_token(self, path: str, cookies: list[str], port: int | None) -> bool:
        given = parse_qs(urlsplit(path).query).get("token", [])
        pairs = [pair.strip().partition("=") for text in cookies for pair in text.split(";")]
        given += [value for name, _, value in pairs if name == _cookie_name(port)]
        token = (self.token or "").encode()
        return any(hmac.compare_digest(each.encode(), token) for each in given)

    # -- the seam to websockets

    def answering(self, answer: Callable[..., Any]) -> Callable[[ServerConnection, Request], Response | None]:
        """Returns viser's `process_request` behind this guard."""

        def process_request(connection: ServerConnection, request: Request) -> Response | None:
            response = answer(connection, request)  # None where the connection becomes a websocket
            if (why := self.refusal(request, websocket=response is None)) is not None:
                return _plain(http.HTTPStatus.FORBIDDEN, why)
            if response is None:
                return None
            if self.full:
                return _plain(http.HTTPStatus.SERVICE_UNAVAILABLE, self.full)
            for key, value in PROTECTION.items():
                response.headers[key] = value
            if (cookie := self.cookie(request)) is not None:
                response.headers["Set-Cookie"] = cookie
            return response

        return process_request

    def counting(self, handler: Callable[..., Awaitable[None]]) -> Callable[[ServerConnection], Awaitable[None]]:
        """Returns viser's handler of a websocket, for as many at once as there is place for.

        A websocket that sends what is no message of viser is closed with the reason.
        """

        async def counted(connection: ServerConnection) -> None:
            if self.full:
                await connection.close(1013, self.full)
                return
            self.clients += 1
            try:
                await handler(connection)
            except (ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
                why = f"The studio got what is no message of its pages ({one_line(error)}); reload the page."
                await connection.close(1003, why[:120])  # a reason has room for 123 bytes
            finally:
                self.clients -= 1

        return counted


class GuardedServer(viser.ViserServer):
    """A viser server on `host` that obeys a `Guard`; `url` is the address to open, with the token if there is one.

    It listens on `port`, or on the next free one if that is taken; with 0 on any free one. Viser's public tunnels are
    switched off. Raises ValueError, in one line, for an address that cannot be listened on.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8080, label: str | None = None,
                 most_clients: int = 16):
        _check_address(host, port)
        self.guard = Guard(host, most_clients)
        # Viser prints an address without the token.
        with _guarded(self.guard) as guarded, contextlib.redirect_stdout(io.StringIO()):
            super().__init__(host, port, label, verbose=False)
        if not guarded.is_set():
            self.stop()
            raise RuntimeError("this version of viser does not listen through websockets.asyncio.server.serve, so its "
                               "requests cannot be checked; install viser 1.1")

    @property
    def url(self) -> str:
        """The address that a browser of this machine opens."""
        host = self.get_host()
        name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"http://{name}:{self.get_port()}/" + (f"?token={self.guard.token}" if self.guard.token else "")

    def stop(self) -> None:
        """Ends the server and its threads."""
        with contextlib.redirect_stdout(io.StringIO()):  # viser would say so, in a line of its own
            super().stop()

    def request_share_url(self, verbose: bool = True) -> str | None:
        """Returns None: a browser must not be able to publish the studio."""
        return None


@contextlib.contextmanager
def _guarded(guard: Guard) -> Iterator[threading.Event]:
    """While it is open, viser's next server is made with `guard`; the event says whether one was.

    Viser offers no way to pass a check of requests to the server that it makes, so the function that makes it is
    replaced for as long as viser's constructor runs.
    """
    made, serve = threading.Event(), websockets.asyncio.server.serve

    def guarded_serve(handler: Any, *args: Any, process_request: Any = None, **kwargs: Any) -> Any:
        if not handler.__module__.startswith("viser."):
            return serve(handler, *args, process_request=process_request, **kwargs)
        made.set()
        return serve(guard.counting(handler), *args, process_request=guard.answering(process_request), **kwargs)

    with _serving:
        websockets.asyncio.server.serve = guarded_serve  # type: ignore[assignment, misc]
        try:
            yield made
        finally:
            websockets.asyncio.server.serve = serve  # type: ignore[misc]


def _check_address(host: str, port: int) -> None:
    if not 0 <= port <= 65535:
        raise ValueError(f"--port is {port}; a number from 0 to 65535 is expected")
    try:
        family = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, 0), family=family).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: a part of the name is too long
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"--host is {host}, and nothing can listen there ({reason}); give an address of this machine, "
                         "such as 127.0.0.1 or 0.0.0.0") from error


def _cookie_name(port: int | None) -> str:
    return f"{COOKIE}_{port or 80}"  # cookies are shared by all ports of a host


def _plain(status: http.HTTPStatus, text: str) -> Response:
    body = f"{text}\n".encode()
    headers = Headers({"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body)), **PROTECTION})
    return Response(status.value, status.phrase, headers, body)
