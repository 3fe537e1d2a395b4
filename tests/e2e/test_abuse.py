# SPDX-License-Identifier: MIT
"""Bad manners: each gets what it deserves, and a bystander on the same gateway notices nothing."""

import os
import random
import time

import pytest
from clients import BINARY, CLOSE, PING, PONG, TEXT, Client, RawClient, connects
from process import wait_until

MESSAGE = b'{"type":"text","content":"x"}'


@pytest.mark.parametrize("garbage", [
    b"\x00" * 100, b"\xff" * 5000, b"\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET\r\n\r\n", b"GET / HTTP/1.1\nHost: x\n\n", b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    random.Random(7).randbytes(4096) + b"\r\n\r\n",
], ids=["zeros", "ones", "nothing", "ssh", "tls", "no target", "bare newlines", "post", "noise"])
def test_garbage_instead_of_a_handshake(gateway, bystander, garbage):
    with RawClient(gateway.url("x")) as raw:
        raw.send(garbage)
        raw.send(b"\r\n\r\n")
        status, _ = raw.status()
        assert status in (400, 426)
        assert raw.ended()
    bystander.wait_rounds(2)


def test_plain_http_is_told_to_upgrade(gateway):
    with RawClient(gateway.url("x")) as raw:
        raw.send(b"GET /x HTTP/1.1\r\nHost: x\r\nUser-Agent: browser\r\n\r\n")
        status, headers = raw.status()
        assert status == 426 and headers["sec-websocket-version"] == "13"
        assert raw.ended()


def test_another_version_is_told_the_right_one(gateway):
    with RawClient(gateway.url("x")) as raw:
        raw.send(raw.request("Sec-WebSocket-Version: 8"))
        status, headers = raw.status()
        assert status == 426 and headers["sec-websocket-version"] == "13"


@pytest.mark.parametrize("headers", [["Host"], ["Sec-WebSocket-Key"], ["Sec-WebSocket-Key: short"], ["Connection: close"],
                                     ["X: a\r\n folded"], ["Bad Name: x"], ["Sec-WebSocket-Key: " + "A" * 24]])
def test_requests_that_are_not_as_they_should(gateway, headers):
    with RawClient(gateway.url("x")) as raw:
        raw.send(raw.request(*headers))
        assert raw.status()[0] in (400, 426)


def test_oversized_headers(gateway, bystander):
    with RawClient(gateway.url("x")) as raw:
        try:
            raw.send(raw.request("X-Filler: " + "f" * 20000))
        except ConnectionError:
            pass  # it may be refused before all of it is sent
        assert raw.status()[0] == 431
    bystander.wait_rounds(2)


def test_half_a_handshake_times_out(pipeline):
    gateway = pipeline.gateway(HANDSHAKE_TIMEOUT_MS="1000")
    for part in (b"", b"GET /x HTTP/1.1\r\nHost: x\r\n"):
        with RawClient(gateway.url("x")) as raw:
            raw.send(part)
            if part:
                assert raw.status()[0] == 408
            assert raw.ended()


def test_a_handshake_byte_by_byte(gateway, client_id):
    with RawClient(gateway.url(client_id)) as raw:
        for byte in raw.request():
            raw.send(bytes([byte]))
        assert raw.status()[0] == 101
        assert raw.read_frame()[0] == TEXT


FRAMES = [
    ("unmasked", RawClient.frame(MESSAGE, mask=None), 1002),
    ("reserved bit", RawClient.frame(MESSAGE, reserved=4), 1002),
    ("reserved opcode", RawClient.frame(MESSAGE, opcode=3), 1002),
    ("reserved control opcode", RawClient.frame(b"", opcode=11), 1002),
    ("binary", RawClient.frame(b"\x00\x01", opcode=BINARY), 1003),
    ("continuation of nothing", RawClient.frame(MESSAGE, opcode=0), 1002),
    ("message within a message", RawClient.frame(b"{", fin=False) + RawClient.frame(MESSAGE), 1002),
    ("fragmented ping", RawClient.frame(b"", opcode=PING, fin=False), 1002),
    ("long ping", RawClient.frame(b"p" * 126, opcode=PING), 1002),
    ("close with one byte", RawClient.frame(b"\x03", opcode=CLOSE), 1002),
    ("close with a code nobody may send", RawClient.frame(b"\x03\xed", opcode=CLOSE), 1002),
    ("length longer than needed", b"\x81\xfe\x00\x05" + b"\0\0\0\0" + b"hello", 1002),
    ("length of 2^63", b"\x81\xff\x80" + b"\0" * 7 + b"\0\0\0\0", 1002),
    ("not UTF-8", RawClient.frame(b'{"type":"text","content":"\xff"}'), 1007),
    ("UTF-8 that ends too soon", RawClient.frame("é".encode()[:1]), 1007),
    ("surrogate in UTF-8", RawClient.frame(b"\xed\xa0\x80"), 1007),
    ("bad UTF-8 in a fragment that never ends", RawClient.frame(b"\xc0", fin=False), 1007),
    ("too large", RawClient.frame(b"x" * 16385), 1009),
    ("too large by its header alone", b"\x81\xff\x00\x00\x00\x00\x7f\xff\xff\xff" + b"\0\0\0\0", 1009),
    ("too large in fragments", RawClient.frame(b"x" * 9000, fin=False) + RawClient.frame(b"x" * 9000, opcode=0), 1009),
]


@pytest.mark.parametrize("what, frames, code", FRAMES, ids=[row[0] for row in FRAMES])
def test_broken_frames_close_with_their_code(gateway, bystander, client_id, what, frames, code):
    with RawClient(gateway.url(client_id)).open() as raw:
        raw.read_frame()
        raw.send(frames)
        assert raw.read_close() == code
        raw.send(raw.frame(code.to_bytes(2, "big"), CLOSE))
        assert raw.ended()
    bystander.wait_rounds(1)


def test_fragments_with_pings_between_and_every_chunking(gateway, client_id):
    whole = "".join(["héllo wörld 🚪 "] * 20)
    text = ('{"type":"text","content":"' + whole + '","id":"m1"}').encode()
    third = len(text) // 3
    frames = (RawClient.frame(text[:third], fin=False) + RawClient.frame(b"p1", PING)
              + RawClient.frame(text[third:2 * third], opcode=0, fin=False) + RawClient.frame(b"", opcode=0, fin=False)
              + RawClient.frame(b"p2", PING) + RawClient.frame(text[2 * third:], opcode=0))
    for chunk in (1, 2, 3, 7, 64, len(frames)):
        with RawClient(gateway.url(f"{client_id}-{chunk}")).open() as raw:
            raw.read_frame()
            for start in range(0, len(frames), chunk):
                raw.send(frames[start:start + chunk])
            assert raw.read_frame() == (PONG, b"p1")
            assert raw.read_frame() == (PONG, b"p2")
            assert b'"queued"' in raw.read_frame()[1]
            assert b'"stored"' in raw.read_frame()[1]


def test_garbage_after_the_handshake(gateway, bystander, client_id):
    generator = random.Random(11)
    for number in range(60):
        with RawClient(gateway.url(f"{client_id}-{number}")).open() as raw:
            try:
                raw.send(generator.randbytes(generator.randrange(1, 3000)))
            except ConnectionError:
                pass  # closed before all of it was sent
    bystander.wait_rounds(5)


@pytest.mark.parametrize("said", [b"", b"GET /half HTTP/1.1\r\nHost: x\r\n"], ids=["silent", "half a handshake"])
def test_handshakes_without_end_do_not_keep_a_full_gateway_shut(pipeline, said):
    """Nobody waits for them: those who are inside notice nothing, the others get their refusal at once."""
    gateway = pipeline.gateway(MAX_CONNECTIONS="5", HANDSHAKE_TIMEOUT_MS="600000")
    pipeline.processor()
    bystander = pipeline.bystander(gateway)
    inside = [Client(gateway.url(f"dev-{number}")) for number in range(4)]
    holding = [RawClient(gateway.url("x")) for _ in range(100)]
    for raw in holding:
        raw.send(said)
    for number in range(3):
        late = Client(gateway.url(f"late-{number}"), greet=False)
        assert late.receive() == {"type": "error", "code": "max_connections", "error": "Max connections reached"}
        assert late.expect_close().code == 1013
    assert holding[0].status()[0] == 408
    assert gateway.wait_log(event="handshake_refused", status=408)["reason"]
    inside.pop().close()
    wait_until(lambda: connects(gateway.url("late")), 20, "the slot to be free again")
    bystander.wait_rounds(3)
    for connection in inside + holding:
        connection.close()


def test_a_handshake_of_one_byte_a_second(gateway, bystander, client_id):
    with RawClient(gateway.url(client_id)) as raw:
        request = raw.request()
        for byte in request[:2]:
            raw.send(bytes([byte]))
            time.sleep(1)
            bystander.wait_rounds(1)
        raw.send(request[2:])
        assert raw.status()[0] == 101
        assert raw.read_frame()[0] == TEXT


def test_a_client_that_sends_one_byte_a_second(gateway, bystander, client_id):
    """Slow is allowed: the message is taken when it is whole, and nobody waits for it."""
    frame = RawClient.frame(MESSAGE)
    with RawClient(gateway.url(client_id)).open() as raw:
        raw.read_frame()
        for byte in frame[:6]:
            rounds = bystander.rounds
            raw.send(bytes([byte]))
            time.sleep(1)
            assert bystander.rounds > rounds or bystander.wait_rounds(1) is None
        raw.send(frame[6:])
        assert b'"queued"' in raw.read_frame()[1]


def test_many_slow_senders_do_not_starve_the_others(gateway, bystander, client_id):
    """Each holds a partial message and so a buffer; buffers are lent, not given away."""
    slow = []
    for number in range(300):
        raw = RawClient(gateway.url(f"{client_id}-{number}")).open()
        raw.read_frame()
        raw.send(RawClient.frame(MESSAGE)[:10])
        slow.append(raw)
    bystander.wait_rounds(5)
    with Client(gateway.url(client_id)) as client:
        client.store("x" * 16000)
    for raw in slow:
        raw.close()


@pytest.mark.parametrize("frame", [RawClient.frame(b'{"type":"ping"}'), RawClient.frame(b"p" * 125, PING)],
                         ids=["messages", "pings"])
def test_a_client_that_never_reads(pipeline, frame):
    """What it is answered fills its queue, or its socket stands still: it is closed, and costs nobody else anything."""
    gateway = pipeline.gateway(SEND_QUEUE_BYTES="16384", HEARTBEAT_TIMEOUT="2")
    pipeline.processor()
    bystander = pipeline.bystander(gateway)
    raw = RawClient(gateway.url("deaf"), receive_buffer=2048).open()

    def found_slow():
        try:
            raw.send(frame * 500)
        except (ConnectionError, TimeoutError):
            pass  # the connection may have ended; a frame may be cut, but then nothing more is sent behind it
        return gateway.log(event="client_slow", client="deaf")
    slow = wait_until(found_slow, 60, "the client that does not read to be found slow", 0.05)[0]
    assert slow["cause"] and slow["remedy"] and int(slow["queued_bytes"]) > 0, slow
    assert gateway.wait_log(event="client_closed", client="deaf")["code"] == "1008"
    bystander.wait_rounds(5)
    wait_until(lambda: not _inside(gateway, "deaf"), 30, "the id to be free")
    raw.close()


def _inside(gateway, client_id):
    client = Client(gateway.url(client_id), greet=False)
    refused = client.receive()["type"] == "error"
    client.close()
    return refused


def test_control_frame_floods(gateway, bystander, client_id):
    with RawClient(gateway.url(client_id)).open() as raw:
        raw.read_frame()
        for _ in range(20):
            raw.send(raw.frame(os.urandom(100), PING) * 100)
            for _ in range(100):
                assert raw.read_frame()[0] == PONG
    bystander.wait_rounds(2)


def test_closing_in_good_order(gateway, client_id):
    for payload, answer in ((b"", 1005), (b"\x03\xe8bye", 1000), (b"\x0f\xa0own", 4000)):
        with RawClient(gateway.url(client_id)).open() as raw:
            raw.read_frame()
            raw.send(raw.frame(payload, CLOSE))
            assert raw.read_close() == answer
            assert raw.ended()
        wait_until(lambda: not _inside(gateway, client_id), 20, "the id to be free")
