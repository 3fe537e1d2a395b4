# SPDX-License-Identifier: MIT
"""Large messages, many messages, slow and unwilling peers."""

import random
import socket
import time

import pytest
from wire import BINARY, CLOSE, PING, PONG, TEXT, Client, close_payload, frame, fragments

KIB, MIB = 1024, 1024 * 1024


def noise(size):
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [64 * KIB, 256 * KIB, 1 * MIB, 4 * MIB, 8 * MIB, 16 * MIB])
def test_large(client, opcode, size):
    payload = ("äöü€😀z" * (size // 14 + 1)).encode()[:size].decode("utf-8", "ignore").encode().ljust(size, b".")
    payload = noise(size) if opcode == BINARY else payload
    client.send(frame(opcode, payload))
    client.expect(opcode, payload)


@pytest.mark.parametrize("form", ["header", "fragments"])
def test_too_large_is_refused_from_its_header(client, form):
    """Before its payload comes, and by the sum of the fragments."""
    if form == "header":
        client.send(b"\x82\xff" + (16 * MIB + 1).to_bytes(8, "big") + b"abcd")
    else:
        client.send(frame(BINARY, bytes(16 * MIB), fin=False) + b"\x80\x81abcd")
    client.expect_close(1009)


def test_unbelievably_large(client):
    client.send(b"\x82\xff\x7f" + b"\xff" * 7 + b"abcd")
    client.expect_close(1009)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [64, 256, 1 * KIB, 4 * KIB, 64 * KIB, 1 * MIB, 4 * MIB])
def test_four_mib_in_fragments(client, opcode, size):
    payload = b"f" * (4 * MIB) if opcode == TEXT else noise(4 * MIB)
    client.send(fragments(opcode, payload, size))
    client.expect(opcode, payload)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("chop", [64, 128, 256, 512, 1024, 2048])
def test_one_mib_in_pieces(client, opcode, chop):
    payload = b"c" * MIB if opcode == TEXT else noise(MIB)
    client.send(frame(opcode, payload), chop)
    client.expect(opcode, payload)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 16, 64, 256, 1 * KIB, 4 * KIB, 16 * KIB])
def test_thousand_round_trips(client, opcode, size):
    payload = b"r" * size if opcode == TEXT else noise(size)
    for _ in range(1000):
        client.send(frame(opcode, payload, mask=b"mask"))
        client.expect(opcode, payload)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_message_in_fragments_of_1300(client, opcode):
    payload = b"*" * 65536
    client.send(fragments(opcode, payload, 1300))
    client.expect(opcode, payload)


def test_everything_in_octets(client):
    """A whole conversation, one byte a segment."""
    client.send(b"".join([frame(TEXT, "grüße".encode()), fragments(TEXT, "grüße".encode(), 3), frame(PING, b"p" * 125),
                          frame(BINARY, noise(200)), frame(PONG, b"x"), frame(CLOSE, close_payload(1001, b"bye"))]),
                chop=1)
    client.expect(TEXT, "grüße".encode())
    client.expect(TEXT, "grüße".encode())
    client.expect(PONG, b"p" * 125)
    client.expect(BINARY, noise(200))
    client.expect_close(1001)


def test_slow_octets_do_not_hold_up_others(server):
    with Client(server.port) as slow, Client(server.port) as quick:
        message = frame(TEXT, b"slowly")
        for byte in message:
            slow.send(bytes([byte]))
            quick.send(frame(TEXT, b"at once"))
            quick.expect(TEXT, b"at once")
        slow.expect(TEXT, b"slowly")


def test_peer_that_never_reads_is_closed(server):
    """It is cut off at the limit of its send queue; its neighbour notices nothing."""
    with Client(server.port) as deaf, Client(server.port) as other:
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        message = frame(BINARY, bytes(MIB))
        end_s = time.monotonic() + 120
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while time.monotonic() < end_s:
                deaf.send(message)
                other.alive()


def test_more_partial_messages_than_buffers(server):
    """The one that has been partial for longest gives way with 1013; complete messages need no buffer."""
    with Client(server.port) as other:
        clients = [Client(server.port) for _ in range(8)]
        try:
            for client in clients:
                client.send(frame(TEXT, b"half", fin=False) + frame(PING))
                client.expect(PONG, b"")
            clients[0].expect_close(1013)
            clients[1].expect_close(1013)
            for client in clients[2:]:
                client.send(frame(0, b" and half"))
                client.expect(TEXT, b"half and half")
            other.send(frame(TEXT, b"whole"))
            other.expect(TEXT, b"whole")
        finally:
            for client in clients:
                client.socket.close()
