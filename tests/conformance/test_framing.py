# SPDX-License-Identifier: MIT
"""Frames of all lengths, pings and pongs, reserved bits, opcodes, masks (RFC 6455 sections 5.1 to 5.5)."""

import pytest
from wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame

SIZES = [0, 1, 125, 126, 127, 128, 65535, 65536, 65537]
CHOPS = [None, 997, 1]


def chops_for(size):
    return [chop for chop in CHOPS if chop != 1 or size < 1000]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size,chop", [(size, chop) for size in SIZES for chop in chops_for(size)])
def test_message(client, opcode, size, chop):
    payload = b"*" * size if opcode == TEXT else bytes(index * 7 & 255 for index in range(size))
    client.send(frame(opcode, payload), chop)
    client.expect(opcode, payload)
    client.leave()


def test_many_messages_in_one_segment(client):
    payloads = [f"message {index}".encode() for index in range(500)]
    client.send(b"".join(frame(TEXT, payload) for payload in payloads))
    for payload in payloads:
        client.expect(TEXT, payload)


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\1", b"\x12\x34\x56\x78"])
def test_mask(client, mask):
    payload = bytes(range(256)) * 3
    client.send(frame(BINARY, payload, mask=mask))
    client.expect(BINARY, payload)


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, CLOSE])
@pytest.mark.parametrize("chop", [None, 1])
def test_unmasked_is_refused(client, opcode, chop):
    client.send(frame(opcode, b"\x03\xe8", mask=False), chop)
    client.expect_close(1002)


@pytest.mark.parametrize("size,form", [(0, 16), (125, 16), (0, 64), (125, 64), (126, 64), (65535, 64)])
def test_length_must_be_in_its_shortest_form(client, size, form):
    client.send(frame(BINARY, b"x" * size, length_form=form))
    client.expect_close(1002)


def test_length_with_its_highest_bit(client):
    client.send(b"\x82\xff\x80\0\0\0\0\0\0\1abcd")
    client.expect_close(1002)


@pytest.mark.parametrize("payload", [b"", b"Hello, world!", b"\0\xff\xfe\xfd\xfc\xfb\0\xff", b"\xfe" * 125])
@pytest.mark.parametrize("chop", [None, 1])
def test_ping(client, payload, chop):
    client.send(frame(PING, payload), chop)
    client.expect(PONG, payload)


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
@pytest.mark.parametrize("size", [126, 1000, 65536])
def test_long_control_frame_is_refused(client, opcode, size):
    client.send(frame(opcode, b"\x03\xe8" + b"x" * (size - 2)))
    client.expect_close(1002)


@pytest.mark.parametrize("payload", [b"", b"unsolicited pong payload"])
def test_unsolicited_pong(client, payload):
    client.send(frame(PONG, payload) + frame(PING, b"ping"))
    client.expect(PONG, b"ping")


@pytest.mark.parametrize("chop", [None, 1])
def test_ten_pings(client, chop):
    client.send(b"".join(frame(PING, f"payload-{index}".encode()) for index in range(10)), chop)
    for index in range(10):
        client.expect(PONG, f"payload-{index}".encode())
    client.leave()


@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
def test_reserved_bits(client, rsv, opcode):
    client.send(frame(TEXT, b"good") + frame(opcode, b"", rsv=rsv) + frame(PING))
    client.expect(TEXT, b"good")
    client.expect_close(1002)


def test_reserved_bits_in_octets(client):
    client.send(frame(TEXT, b"good") + frame(TEXT, b"bad", rsv=4) + frame(PING), chop=1)
    client.expect(TEXT, b"good")
    client.expect_close(1002)


def test_reserved_bits_of_a_continuation(client):
    client.send(frame(TEXT, b"good", fin=False) + frame(CONTINUATION, b"bad", rsv=2))
    client.expect_close(1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("payload", [b"", b"reserved opcode"])
@pytest.mark.parametrize("chop", [None, 1])
def test_reserved_opcode(client, opcode, payload, chop):
    client.send(frame(TEXT, b"good") + frame(opcode, payload) + frame(PING), chop)
    client.expect(TEXT, b"good")
    client.expect_close(1002)


def test_refused_by_the_first_byte(client):
    """The rest of the header need not come."""
    client.send(b"\xc1")
    client.expect_close(1002)


def test_refused_by_the_second_byte(client):
    client.send(b"\x89\xfe")
    client.expect_close(1002)


def test_nothing_is_handled_after_a_failure(client):
    client.send(frame(3) + frame(TEXT, b"too late") + frame(CLOSE, close_payload(1000)))
    client.expect_close(1002)
