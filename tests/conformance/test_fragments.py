# SPDX-License-Identifier: MIT
"""Messages in fragments, with control frames between them (RFC 6455 section 5.4)."""

import pytest
from wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, fragments

CHOPS = [None, 1]


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_fragmented_control_frame(client, opcode):
    client.send(frame(opcode, b"", fin=False) + frame(CONTINUATION, b"fragment2"))
    client.expect_close(1002)


@pytest.mark.parametrize("chop", CHOPS)
def test_two_fragments(client, chop):
    client.send(frame(TEXT, b"fragment1", fin=False) + frame(CONTINUATION, b"fragment2"), chop)
    client.expect(TEXT, b"fragment1fragment2")


@pytest.mark.parametrize("chop", CHOPS)
def test_ping_between(client, chop):
    client.send(frame(TEXT, b"fragment1", fin=False) + frame(PING, b"ping payload") + frame(CONTINUATION, b"fragment2"),
                chop)
    client.expect(PONG, b"ping payload")
    client.expect(TEXT, b"fragment1fragment2")


@pytest.mark.parametrize("chop", CHOPS)
def test_pings_and_pongs_between_many(client, chop):
    client.send(b"".join([
        frame(BINARY, b"fragment1", fin=False), frame(PING, b"p" * 125), frame(CONTINUATION, b"fragment2", fin=False),
        frame(PONG, b"pong"), frame(CONTINUATION, b"fragment3", fin=False), frame(PING, b"payload 2"),
        frame(CONTINUATION, b"fragment4")]), chop)
    client.expect(PONG, b"p" * 125)
    client.expect(PONG, b"payload 2")
    client.expect(BINARY, b"fragment1fragment2fragment3fragment4")


@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("chop", CHOPS)
def test_nothing_to_continue(client, fin, chop):
    client.send(frame(CONTINUATION, b"non-continuation payload", fin=fin) + frame(TEXT, b"Hello, world!"), chop)
    client.expect_close(1002)


@pytest.mark.parametrize("fin", [True, False])
def test_nothing_to_continue_after_a_message(client, fin):
    client.send(frame(TEXT, b"fragment1", fin=False) + frame(CONTINUATION, b"fragment2"))
    client.expect(TEXT, b"fragment1fragment2")
    client.send(frame(CONTINUATION, b"fragment3", fin=fin))
    client.expect_close(1002)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("chop", CHOPS)
def test_new_message_within_another(client, opcode, chop):
    client.send(frame(TEXT, b"fragment1", fin=False) + frame(opcode, b"fragment2"), chop)
    client.expect_close(1002)


def test_ping_is_answered_before_the_message_ends(client):
    client.send(frame(TEXT, b"fragment1", fin=False) + frame(CONTINUATION, b"fragment2", fin=False))
    for index in range(5):
        client.send(frame(PING, b"pongme %d" % index))
        client.expect(PONG, b"pongme %d" % index)
    client.send(frame(CONTINUATION, b"fragment5"))
    client.expect(TEXT, b"fragment1fragment2fragment5")


@pytest.mark.parametrize("parts", [[b"", b"", b""], [b"", b"middle", b""], [b"first", b"", b""], [b"", b"", b"last"]])
@pytest.mark.parametrize("chop", CHOPS)
def test_empty_fragments(client, parts, chop):
    client.send(b"".join([frame(TEXT, parts[0], fin=False), frame(CONTINUATION, parts[1], fin=False),
                          frame(CONTINUATION, parts[2])]), chop)
    client.expect(TEXT, b"".join(parts))


def test_a_close_may_come_between(client):
    client.send(frame(TEXT, b"fragment1", fin=False) + frame(CLOSE, b"\x03\xe8"))
    client.expect_close(1000)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1300])
def test_message_in_equal_fragments(client, size):
    payload = bytes(index * 31 & 255 for index in range(20000))
    client.send(fragments(BINARY, payload, size))
    client.expect(BINARY, payload)


def test_65536_fragments(client):
    payload = b"x" * 65536
    client.send(fragments(TEXT, payload, 1))
    client.expect(TEXT, payload)
    client.leave()


def test_65536_empty_fragments(client):
    client.send(frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 65534 + frame(CONTINUATION, b"end"))
    client.expect(TEXT, b"end")
