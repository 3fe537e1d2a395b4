# SPDX-License-Identifier: MIT
"""The closing handshake (RFC 6455 sections 5.5.1 and 7)."""

import socket
import struct

import pytest
from wire import BINARY, CLOSE, CONTINUATION, PING, TEXT, Client, close_payload, frame

VALID_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
INVALID_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


@pytest.mark.parametrize("chop", [None, 1])
@pytest.mark.parametrize("code", VALID_CODES)
def test_valid_code(client, code, chop):
    client.send(frame(CLOSE, close_payload(code)), chop)
    client.expect_close(code)


@pytest.mark.parametrize("reason", [b"", b"ok"])
@pytest.mark.parametrize("code", INVALID_CODES)
def test_invalid_code(client, code, reason):
    client.send(frame(CLOSE, close_payload(code, reason)))
    client.expect_close(1002)


def test_without_code(client):
    client.send(frame(CLOSE))
    got = client.frame()
    assert (got.opcode, got.payload) == (CLOSE, b"")
    client.expect_end()


def test_one_byte(client):
    client.send(frame(CLOSE, b"a"))
    client.expect_close(1002)


def test_longest_reason(client):
    client.send(frame(CLOSE, close_payload(1000, b"*" * 123)))
    client.expect_close(1000)


@pytest.mark.parametrize("chop", [None, 1])
def test_reason_that_is_not_utf8(client, chop):
    client.send(frame(CLOSE, close_payload(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80")), chop)
    client.expect_close(1007)


def test_echoes_come_before_the_close(client):
    client.send(frame(TEXT, b"Hello World!") + frame(CLOSE, close_payload(1000)))
    client.expect(TEXT, b"Hello World!")
    client.expect_close(1000)


@pytest.mark.parametrize("after", [frame(TEXT, b"late"), frame(PING), frame(CLOSE, close_payload(1001)), b"garbage",
                                   frame(BINARY, b"x" * 300000)], ids=["text", "ping", "close", "garbage", "long"])
def test_nothing_is_handled_after_the_close(client, after):
    client.send(frame(CLOSE, close_payload(1000)) + after)
    client.expect_close(1000)


def test_close_within_a_message(client):
    client.send(frame(TEXT, b"fragment", fin=False) + frame(CLOSE, close_payload(1000)) + frame(CONTINUATION, b"end"))
    client.expect_close(1000)


def test_end_of_stream_without_close(server):
    with Client(server.port) as client, Client(server.port) as other:
        client.send(frame(TEXT, b"fragment", fin=False))
        client.socket.shutdown(socket.SHUT_WR)
        client.expect_end()
        other.alive()


@pytest.mark.parametrize("before", [b"", frame(TEXT, b"fragment", fin=False), frame(BINARY, b"x" * 70000)[:-1], b"\x81"],
                         ids=["idle", "fragment", "cut", "header"])
def test_reset(server, before):
    """A peer that vanishes with a reset takes nothing with it."""
    with Client(server.port) as other:
        for _ in range(20):
            client = Client(server.port)
            client.send(before)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.socket.close()
        other.alive()
