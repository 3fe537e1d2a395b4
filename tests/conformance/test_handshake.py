# SPDX-License-Identifier: MIT
"""The opening handshake (RFC 6455 section 4.2), and what is said to those who do not speak it."""

import pytest
from wire import KEY, TEXT, Client, Stream, frame, request


def answer(port, data, chop=None):
    """The whole answer up to the end of the stream: (status, headers, body)."""
    with Stream(port) as stream:
        stream.send(data, chop)
        head, _, body = stream.read_to_end().partition(b"\r\n\r\n")
    lines = head.decode("ascii").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    assert lines[0].startswith("HTTP/1.1 "), lines
    assert int(headers["content-length"]) == len(body)
    return int(lines[0].split()[1]), headers, body.decode("ascii")


@pytest.mark.parametrize("chop", [None, 1, 7])
def test_upgrade(server, chop):
    with Stream(server.port) as stream:
        stream.send(request(), chop)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += stream.read(1)
        assert head == (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")


@pytest.mark.parametrize("fields", [
    {"Upgrade": "WebSocket"}, {"Upgrade": "h2c, websocket"}, {"Connection": "keep-alive, Upgrade"},
    {"Connection": "UPGRADE"}, {"Origin": "https://example.org"}, {"Host": "[::1]:8000"}, {"Content_Length": "0"},
    {"Sec_WebSocket_Protocol": "chat, superchat"}, {"Sec_WebSocket_Extensions": "permessage-deflate"},
    {"X_Any": "any thing\tat all, even \xe9"}, {"sec_websocket_version": "13"}], ids=str)
def test_accepted_forms(server, fields):
    drop = ("Sec-WebSocket-Version",) if "sec_websocket_version" in fields else ()
    with Stream(server.port) as stream:
        stream.send(request(drop=drop, **fields))
        assert stream.read(12) == b"HTTP/1.1 101"


@pytest.mark.parametrize("path", ["/", "/a/b%20c?x=1&y=?", "http://example.org/abs", "ws://example.org", "/?q"])
def test_accepted_targets(server, path):
    with Stream(server.port) as stream:
        stream.send(request(path))
        assert stream.read(12) == b"HTTP/1.1 101"


def test_frames_right_behind_the_request(server):
    with Stream(server.port) as stream:
        stream.send(request() + frame(TEXT, b"impatient") + frame(TEXT, b"half", fin=False))
        stream.__class__ = Client
        stream.expect_upgrade()
        stream.expect(TEXT, b"impatient")
        stream.send(frame(0, b" and half"))
        stream.expect(TEXT, b"half and half")


@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n", b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", request(Connection="close"),
    request(Upgrade="h2c"), request(Sec_WebSocket_Version="12"), request(drop=("Sec-WebSocket-Version",)),
    request(drop=("Upgrade",))], ids=repr)
def test_426(server, data):
    status, headers, _ = answer(server.port, data)
    assert status == 426
    assert headers["sec-websocket-version"] == "13"
    assert headers["upgrade"] == "websocket"
    assert "close" in headers["connection"]


LINE = "GET /echo HTTP/1.1"


@pytest.mark.parametrize("data", [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00" * 100, b"hello\n", b"\r\n\r\n", b"{}\r\n",
    b"GET\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET  / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1 \r\n\r\n", b"GET / http/1.1\r\n\r\n", b"G\xc3\xa9T / HTTP/1.1\r\n\r\n",
    request(drop=("Host",)), request(Host="a b"), request("echo"), request("/a#b"), request("/%zz"), request("*"),
    request(drop=("Sec-WebSocket-Key",)), request(Sec_WebSocket_Key="c2hvcnQ="), request(Sec_WebSocket_Key=KEY[:-1]),
    request(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZR=="), request(Content_Length="5"),
    request(Transfer_Encoding="chunked"), request().replace(b"GET", b"PUT"), request().replace(b"HTTP/1.1", b"HTTP/1.0"),
    request().replace(b"Host", b"Host "), request().replace(b"Host: ", b"Host: x\r\n "),
    request().replace(b"Host: ", b"no colon\r\nHost: "), request().replace(b"Host: ", b": no name\r\nHost: "),
    request().replace(b"Host: ", b"Host: twice\r\nHost: "), request().replace(b"Upgrade: w", b"Sec-WebSocket-Key: " +
                                                                              KEY.encode() + b"\r\nUpgrade: w"),
    request().replace(b"\r\nUpgrade", b"\nUpgrade"), request().replace(b"Host: ", b"X: a\rb\r\nHost: "),
    request().replace(b"Host: ", b"X: a\0b\r\nHost: "), request().replace(b"Host: ", b"X\xe9: a\r\nHost: ")],
    ids=lambda data: repr(data[:40]))
@pytest.mark.parametrize("chop", [None, 1])
def test_400(server, data, chop):
    status, headers, body = answer(server.port, data, chop)
    assert status == 400
    assert headers["connection"] == "close"
    assert len(body) > 5


def test_431(server):
    for chop in (None, 1000):
        status, _, _ = answer(server.port, request(X_Long="x" * 9000), chop)
        assert status == 431


def test_longest_header(server):
    padding = 8192 - len(request(X_Long=""))
    with Stream(server.port) as stream:
        stream.send(request(X_Long="x" * padding), 1000)
        assert stream.read(12) == b"HTTP/1.1 101"
    assert answer(server.port, request(X_Long="x" * (padding + 1)))[0] == 431


def test_endless_header_line(server):
    status, _, _ = answer(server.port, b"GET /" + b"a" * 100000)
    assert status == 431


def test_owner_refuses(server):
    status, _, body = answer(server.port, request("/refused"))
    assert (status, body) == (403, "This path is refused.\n")


def test_408(server):
    """Half a handshake is answered and closed in time; a neighbour is served meanwhile."""
    with Stream(server.port) as silent, Stream(server.port) as half, Client(server.port) as other:
        half.send(request()[:50])
        for stream in (silent, half):
            other.alive()
            assert stream.read_to_end().startswith(b"HTTP/1.1 408 ")


def test_half_handshakes_beyond_the_buffers(server):
    """More partial requests than there are buffers: the oldest are told 408 at once, a whole request needs none."""
    halves = [Stream(server.port) for _ in range(12)]
    try:
        for half in halves:
            half.send(request()[:60])
        with Client(server.port) as client:
            client.alive()
        assert halves[0].read_to_end().startswith(b"HTTP/1.1 408 ")
    finally:
        for half in halves:
            half.socket.close()


def test_storm(server):
    """Hundreds of connects at once, half of which never say a word; each of the others is served."""
    streams = [Stream(server.port) for _ in range(200)]
    try:
        for stream in streams[::2]:
            stream.send(request())
        for stream in streams[::2]:
            assert stream.read(12) == b"HTTP/1.1 101"
    finally:
        for stream in streams:
            stream.socket.close()
    with Client(server.port) as client:
        client.alive()


def test_more_silent_connects_than_the_table_holds(server):
    """They fill the table and the queue behind it; their time runs out, and the next one is served."""
    streams = [Stream(server.port) for _ in range(400)]
    try:
        with Client(server.port) as client:
            client.alive()
        assert streams[0].read_to_end().startswith(b"HTTP/1.1 408 ")
    finally:
        for stream in streams:
            stream.socket.close()
