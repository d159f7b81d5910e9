"""Only pages of the studio itself may use it, and other machines need its token."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext

import msgspec
import pytest

pytest.importorskip("viser")
from browserless import Browserless, opened, until

from gentraj.studio.guard import Guard, GuardedServer

EVERYWHERE = "0.0.0.0"  # noqa: S104


@contextmanager
def serving(port: int = 0, **settings) -> Iterator[GuardedServer]:
    server = GuardedServer(port=port, **settings)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def open_server() -> Iterator[GuardedServer]:
    """A server guarded as one that other machines can reach. Tests have no network, so it listens to this one only."""
    with serving() as server:
        server.guard.token = Guard(EVERYWHERE).token
        yield server


def refusal(server: GuardedServer, **headers: str | None) -> str:
    """The line that refuses a websocket with these headers; an empty one if it is taken."""
    try:
        with Browserless(server.get_port(), **headers):
            return ""
    except PermissionError as error:
        return str(error)


def page(server: GuardedServer, path: str = "/", **headers: str) -> tuple[int, str, http.client.HTTPMessage]:
    """Status, text and headers of the answer to a request for a page."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.get_port(), timeout=20)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers


def test_a_page_of_the_studio_is_served_and_its_websocket_is_taken(server):
    status, text, headers = page(server)
    assert status == 200 and "<html" in text
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]  # no other page may frame it
    assert refusal(server) == refusal(server, host="localhost:9000", origin="http://localhost:9000") == ""


@pytest.mark.parametrize("origin", ["http://127.0.0.1:1", "http://evil.example", "null", None])
def test_a_page_elsewhere_gets_no_websocket(server, origin):
    assert "Only pages of the studio itself" in refusal(server, origin=origin)


def test_a_name_that_was_rebound_to_this_machine_is_refused(server):
    evil = f"evil.example:{server.get_port()}"
    assert "answers to localhost only" in refusal(server, host=evil, origin=f"http://{evil}")
    assert page(server, Host=evil)[0] == 403
    assert page(server, Host="[::")[0] == 500  # which cannot be understood


def test_other_machines_need_the_token(open_server):
    token = open_server.guard.token
    assert f"?token={token}" in open_server.url
    for path in ("/", "/?token=", f"/?token={token}x", "/?token=%C3%A9"):
        assert "needs the token" in refusal(open_server, path=path)
    assert refusal(open_server, path=f"/?token={token}") == ""
    status, text, _ = page(open_server)
    assert status == 403 and "needs the token" in text


def test_the_page_stores_the_token_for_its_websocket(open_server):
    cookie, *rules = page(open_server, f"/?token={open_server.guard.token}")[2]["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict"} <= set(rules)
    assert refusal(open_server, cookie=f"a=b; {cookie}") == ""
    assert "needs the token" in refusal(open_server, cookie=cookie[:-1])
    evil = f"http://127.0.0.1:{open_server.get_port() + 1}"  # browsers send cookies to all ports of a host
    assert "Only pages of the studio" in refusal(open_server, cookie=cookie, origin=evil)


def test_each_server_that_other_machines_reach_has_a_token_of_its_own():
    tokens = {Guard(host).token for host in (EVERYWHERE, EVERYWHERE, "::", "10.0.0.1", "localhost.evil.example", "")}
    assert len(tokens) == 6 and None not in tokens
    assert {Guard(host).token for host in ("localhost", "127.0.0.1", "127.8.8.8", "::1")} == {None}


def test_browsers_beyond_the_limit_are_told_so_and_one_that_leaves_makes_place():
    with serving(most_clients=2) as server:
        first, second = (Browserless(server.get_port()) for _ in range(2))
        assert "at most 2 browsers" in page(server)[1] and "at most 2 browsers" in refusal(server)
        first.close()
        until(lambda: server.guard.clients == 1)
        assert refusal(server) == ""
        second.close()


def test_a_browser_cannot_publish_the_studio(server):
    with opened(server.get_port()) as browser:
        browser.send("ShareUrlRequest")
        until(lambda: server.get_clients())
    assert server._share_tunnel is None


def test_what_is_no_message_ends_the_websocket_alone(server):
    for data in (b"no message", msgspec.msgpack.encode({"type": "NoSuchMessage"})):
        with Browserless(server.get_port()) as browser:
            browser.socket.send(data)
            until(lambda: server.guard.clients == 0)
    assert refusal(server) == ""


def test_a_viser_that_listens_in_another_way_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Guard, "installed", lambda _: nullcontext())
    with pytest.raises(RuntimeError, match=r"install viser 1\.1"):
        GuardedServer(port=0)


@pytest.mark.parametrize(("settings", "message"), [
    ({"host": "192.0.2.1"}, "--host is 192.0.2.1, and nothing can listen there"),
    ({"host": 64 * "a"}, "--host is a{64}, and nothing can listen there"),
    ({"port": 65536}, "--port is 65536; a number from 0 to 65535 is expected")])
def test_an_address_that_cannot_be_listened_on_is_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message):
        GuardedServer(**settings)


def test_a_taken_port_is_stepped_over():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with serving(port=port) as server:
            assert server.get_port() > port

