# SPDX-License-Identifier: MIT
"""Text is UTF-8, and is refused at the first byte that is not (RFC 6455 section 8.1, RFC 3629)."""

import pytest
from wire import CONTINUATION, TEXT, frame, fragments

GREEK = "κόσμε".encode()

VALID = [
    b"", b"Hello-\xc2\xb5@\xc3\x9f\xc3\xb6\xc3\xa4\xc3\xbc\xc3\xa0\xc3\xa1-UTF-8!!", GREEK,
    b"\x00", b"\x7f", b"\xc2\x80", b"\xdf\xbf", b"\xe0\xa0\x80", b"\xe0\xbf\xbf", b"\xe1\x80\x80", b"\xec\xbf\xbf",
    b"\xed\x80\x80", b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xef\xbf\xbe", b"\xef\xbf\xbf",
    b"\xf0\x90\x80\x80", b"\xf0\xbf\xbf\xbf", b"\xf1\x80\x80\x80", b"\xf3\xbf\xbf\xbf", b"\xf4\x80\x80\x80",
    b"\xf4\x8f\xbf\xbf", b"\xf4\x8f\xbf\xbe", b"\xf0\x9f\xbf\xbf", "😀 ascii ascii ascii 😀".encode(),
]

INVALID = [
    # continuation bytes where a character must begin
    b"\x80", b"\xbf", b"\x80\xbf", b"\x80\xbf\x80\xbf\x80\xbf", bytes(range(0x80, 0xC0)),
    # lone first bytes
    *[bytes([first, 0x20]) for first in (*range(0xC2, 0xE0, 7), *range(0xE0, 0xF5))],
    # bytes that never occur
    b"\xc0", b"\xc1", b"\xf5", b"\xf8", b"\xfb", b"\xfc", b"\xfe", b"\xff", b"\xfe\xfe\xff\xff",
    # overlong forms
    b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xc0\x80",
    b"\xe0\x80\x80", b"\xf0\x80\x80\x80",
    # surrogates
    b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf", b"\xed\xb0\x80", b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    # beyond U+10FFFF
    b"\xf4\x90\x80\x80", b"\xf7\xbf\xbf\xbf", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80",
    # good, bad, good
    b"Hello-\xc2\xb5\xff-UTF-8", GREEK + b"\xed\xa0\x80edited", b"plain text, long enough for words: \xc3\x28 and more",
]

CUT = [b"\xc2", b"\xe0\xa0", b"\xe1\x80", b"\xf0\x90", b"\xf0\x90\x80", b"\xf4\x8f\xbf", b"text, then \xe2\x82"]


@pytest.mark.parametrize("payload", VALID, ids=repr)
def test_valid(client, payload):
    client.send(frame(TEXT, payload))
    client.expect(TEXT, payload)
    client.send(fragments(TEXT, payload, 1))
    client.expect(TEXT, payload)
    client.send(frame(TEXT, payload), chop=1)
    client.expect(TEXT, payload)


@pytest.mark.parametrize("send", ["whole", "fragments", "octets"])
@pytest.mark.parametrize("payload", INVALID + CUT, ids=repr)
def test_invalid(client, payload, send):
    if send == "whole":
        client.send(frame(TEXT, payload))
    elif send == "fragments":
        client.send(fragments(TEXT, payload, 1))
    else:
        client.send(frame(TEXT, payload), chop=1)
    client.expect_close(1007)


def test_a_character_may_be_cut_between_fragments(client):
    payload = "aé😀z".encode()
    for at in range(len(payload) + 1):
        client.send(frame(TEXT, payload[:at], fin=False) + frame(CONTINUATION, payload[at:]))
        client.expect(TEXT, payload)


def test_fails_at_the_fragment_that_is_bad(client):
    """The message never ends: it is refused by its second fragment all the same."""
    client.send(frame(TEXT, GREEK, fin=False))
    client.alive()
    client.send(frame(CONTINUATION, b"\xf4\x90\x80\x80", fin=False))
    client.expect_close(1007)


@pytest.mark.parametrize("bad", [b"\xf4\x90", b"\xed\xa0", b"\xc0", b"\xff", b"\xe0\x80"], ids=repr)
def test_fails_at_the_first_bad_byte_within_a_frame(client, bad):
    """A long frame is announced; only its beginning comes, and the last byte of that is bad."""
    whole = frame(TEXT, GREEK + bad + b"x" * 1000)
    header_bytes = 8
    good = header_bytes + len(GREEK) + len(bad) - 1
    client.send(whole[:good])
    client.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.socket.recv(1)
    client.socket.settimeout(20)
    client.send(whole[good : good + 1])
    client.expect_close(1007)


def test_binary_may_hold_anything(client):
    for payload in INVALID:
        client.send(frame(2, payload))
        client.expect(2, payload)
