# SPDX-License-Identifier: MIT
"""A WebSocket client that can break every rule: raw sockets, frames written bit by bit."""

import base64
import hashlib
import os
import socket
import struct
import time
from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
TIMEOUT_S = 60


def masked(payload, mask):
    """The payload under the mask; long ones as one large number, because Python is slow byte by byte."""
    if not payload:
        return b""
    whole = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")).to_bytes(len(payload), "big")


def frame(opcode, payload=b"", fin=True, rsv=0, mask=None, length_form=None):
    """One client's frame. mask: 4 bytes, None: random ones, False: no mask at all. length_form: 7, 16 or 64 bits."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    size = len(payload)
    form = length_form or (7 if size < 126 else 16 if size < 65536 else 64)
    bit = 0 if mask is False else 0x80
    if form == 7:
        header = struct.pack("!BB", first, bit | size)
    elif form == 16:
        header = struct.pack("!BBH", first, bit | 126, size)
    else:
        header = struct.pack("!BBQ", first, bit | 127, size)
    if mask is False:
        return header + payload
    key = mask or os.urandom(4)
    return header + key + masked(payload, key)


def fragments(opcode, payload, size):
    """The payload as one message of fragments of `size` bytes."""
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    return b"".join(
        frame(opcode if index == 0 else CONTINUATION, piece, fin=index == len(pieces) - 1)
        for index, piece in enumerate(pieces)
    )


def close_payload(code, reason=b""):
    return struct.pack("!H", code) + reason


@dataclass
class Frame:
    fin: bool
    rsv: int
    opcode: int
    payload: bytes

    @property
    def code(self):
        return struct.unpack("!H", self.payload[:2])[0] if self.payload else None


class Stream:
    """A TCP connection with reads of an exact length."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ahead = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data, chop=None, pause_s=0.0):
        """Sends, cut into pieces of `chop` bytes if asked."""
        if chop is None:
            self.socket.sendall(data)
            return
        for at in range(0, len(data), chop):
            self.socket.sendall(data[at : at + chop])
            if pause_s:
                time.sleep(pause_s)

    def fill(self):
        """Reads once more; False at the end of the stream. A reset is an error: our bytes may be lost then."""
        data = self.socket.recv(1 << 20)
        self.ahead += data
        return bool(data)

    def read(self, count):
        while len(self.ahead) < count:
            assert self.fill(), f"the stream ended with {len(self.ahead)} of {count} bytes: {bytes(self.ahead)!r}"
        data = bytes(self.ahead[:count])
        del self.ahead[:count]
        return data

    def read_to_end(self):
        while self.fill():
            pass
        data = bytes(self.ahead)
        self.ahead.clear()
        return data

    def expect_end(self):
        rest = self.read_to_end()
        assert rest == b"", f"more came before the end: {rest[:100]!r}"


def request(path="/echo", drop=(), **fields):
    """A handshake's request. Fields by header name with _ for -; drop: names to leave out."""
    headers = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    headers.update({name.replace("_", "-"): value for name, value in fields.items()})
    lines = [f"{name}: {value}" for name, value in headers.items() if name not in drop]
    return ("\r\n".join([f"GET {path} HTTP/1.1", *lines]) + "\r\n\r\n").encode("latin-1")


class Client(Stream):
    """An open WebSocket."""

    def __init__(self, port, path="/echo"):
        super().__init__(port)
        self.send(request(path))
        self.expect_upgrade()

    def expect_upgrade(self):
        while b"\r\n\r\n" not in self.ahead:
            assert self.fill(), f"no upgrade: {bytes(self.ahead)!r}"
        head, _, rest = bytes(self.ahead).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert f"Sec-WebSocket-Accept: {ACCEPT}".encode() in head, head
        self.ahead = bytearray(rest)

    def frame(self):
        first, second = self.read(2)
        assert second & 0x80 == 0, "a server's frame must not be masked"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self.read(2))
            assert size >= 126
        elif size == 127:
            (size,) = struct.unpack("!Q", self.read(8))
            assert size >= 65536
        return Frame(bool(first & 0x80), first >> 4 & 7, first & 15, self.read(size))

    def expect(self, opcode, payload):
        got = self.frame()
        assert (got.fin, got.rsv, got.opcode) == (True, 0, opcode), f"{got.opcode}: {got.payload[:100]!r}"
        assert got.payload == payload, f"{len(got.payload)} bytes for {len(payload)}: {got.payload[:100]!r}"

    def expect_close(self, code):
        """The server's close frame and the end of its stream; nothing else before or between."""
        got = self.frame()
        assert got.opcode == CLOSE, f"opcode {got.opcode}: {got.payload[:100]!r}"
        assert got.code == code, f"closed with {got.code} {got.payload[2:]!r}"
        got.payload[2:].decode("utf-8")
        self.expect_end()

    def alive(self):
        """Still served: a ping comes back."""
        self.send(frame(PING, b"still there?"))
        self.expect(PONG, b"still there?")

    def leave(self, code=1000):
        self.send(frame(CLOSE, close_payload(code)))
        self.expect_close(code)


assert base64.b64encode(hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode() == ACCEPT
