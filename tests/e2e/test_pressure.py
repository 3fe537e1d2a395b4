# SPDX-License-Identifier: MIT
"""When the broker cannot take messages: clients are told once, not read, and lose nothing."""

import json
import random
import socket
from concurrent.futures import ThreadPoolExecutor

from clients import PING, PONG, TEXT, Client, RawClient, connects
from process import wait_until

COUNT = 400
OUTBOX = {"OUTBOX_MESSAGES": 100, "SPOOL_MAX_BYTES": 0}


def message(number):
    return b'{"type":"text","content":%d,"id":"m%d"}' % (number, number)


def flood(raw, count):
    """Sends messages up to a ping; the gateway may take as many of them as it has room for."""
    for number in range(1, count + 1):
        raw.send(raw.frame(message(number)))


def test_busy_is_said_once_and_nothing_is_lost(pipeline):
    gateway = pipeline.gateway(**OUTBOX)
    pipeline.processor()
    pipeline.wait_connected(gateway)
    pipeline.broker.stop()
    with RawClient(gateway.url("dev-7")).open() as raw:
        raw.read_frame()
        flood(raw, COUNT)
        assert raw.read_frame() == (TEXT, b'{"type":"busy","retry_after_ms":500}')
        pipeline.broker.cont()
        receipts = {"queued": [], "stored": []}
        while len(receipts["stored"]) < COUNT:
            opcode, payload = raw.read_frame()
            assert opcode == TEXT
            if b'"busy"' in payload:
                continue  # said again only when it was free in between
            receipt = json.loads(payload)
            receipts[receipt["status"]].append(receipt["seq"])
        assert len(receipts["queued"]) == len(set(receipts["queued"]))
        end = gateway.wait_log(event="busy_end")
        assert int(end["told"]) >= 1 and "duration_ms" in end
    assert pipeline.message_ids("dev-7") == [f"m{number}" for number in range(1, COUNT + 1)]


def test_who_ends_its_side_while_it_is_busy_loses_nothing(pipeline):
    gateway = pipeline.gateway(**OUTBOX)
    pipeline.processor()
    pipeline.wait_connected(gateway)
    pipeline.broker.stop()
    with RawClient(gateway.url("dev-7")).open() as raw:
        raw.read_frame()
        flood(raw, COUNT)
        assert b"busy" in raw.read_frame()[1]
        raw.socket.shutdown(socket.SHUT_WR)
        gateway.wait_log(event="busy_begin")
        with Client(gateway.url("other")) as other:  # the gateway had a turn in which it could notice
            other.send({"type": "ping"})
            other.receive()
        pipeline.broker.cont()
        wait_until(lambda: pipeline.row_count("dev-7") == COUNT, 60, "all rows", 0.2)
        assert raw.ended()
    gateway.wait_log(event="client_closed", client="dev-7")
    assert pipeline.message_ids("dev-7") == [f"m{number}" for number in range(1, COUNT + 1)]


def test_who_is_gone_while_it_is_busy_can_come_back(pipeline):
    """It is not read, so its end is not seen; but it is asked, and its machine knows nothing of it any more."""
    gateway = pipeline.gateway(**OUTBOX, HEARTBEAT_INTERVAL="1")
    pipeline.wait_connected_to_broker(gateway)
    pipeline.broker.stop()
    with RawClient(gateway.url("dev-7")).open() as raw:
        raw.read_frame()
        flood(raw, COUNT)
        assert b"busy" in raw.read_frame()[1]
    wait_until(lambda: connects(gateway.url("dev-7")), 30, "the id to be free while it is busy", 0.2)
    pipeline.broker.cont()


def test_control_frames_work_while_it_is_busy(pipeline):
    gateway = pipeline.gateway(**OUTBOX)
    pipeline.wait_connected_to_broker(gateway)
    pipeline.broker.stop()
    with RawClient(gateway.url("filler")).open() as filler, RawClient(gateway.url("other")).open() as other:
        filler.read_frame()
        other.read_frame()
        flood(filler, COUNT)
        assert b"busy" in filler.read_frame()[1]
        other.send(other.frame(b"alive?", PING))
        wait_until(lambda: other.read_frame() == (PONG, b"alive?"), 30, "the pong")
    pipeline.broker.cont()


def test_everyone_is_served_in_turn_when_there_is_room_again(pipeline):
    gateway = pipeline.gateway(**OUTBOX)
    pipeline.processor()
    pipeline.wait_connected(gateway)
    pipeline.broker.stop()
    raws = [RawClient(gateway.url(f"dev-{number}")).open() for number in range(10)]
    for raw in raws:
        raw.read_frame()
    for raw in raws:
        flood(raw, 60)
    pipeline.broker.cont()
    wait_until(lambda: pipeline.row_count() >= 600, 120, "all 600 rows", 0.2)
    for number, raw in enumerate(raws):
        assert pipeline.message_ids(f"dev-{number}") == [f"m{each}" for each in range(1, 61)]
        raw.close()


def test_it_starts_without_a_broker_and_takes_messages(pipeline):
    """They are kept, on the disk too, until the broker is there."""
    pipeline.broker.kill9()
    gateway = pipeline.gateway(HEARTBEAT_INTERVAL="600")  # the client answers only while it waits for something
    with Client(gateway.url("dev-7")) as client:
        client.send({"type": "text", "content": 1, "id": "early"})
        client.send({"type": "ping"})
        heard = [client.receive(), client.receive()]  # the pong is second where the ping was half a second late
        assert {"type": "pong"} in heard and "accepted" in [each.get("status") for each in heard], heard
        pipeline.broker.restart()
        pipeline.processor()
        assert client.receive()["status"] == "queued"
        assert client.receive()["status"] == "stored"


def test_long_messages_and_an_outbox_of_few(pipeline):
    """Over the disk, one read brings long messages and short ones: what the gateway reads it has room for."""
    gateway = pipeline.gateway(OUTBOX_MESSAGES=100, MAX_MESSAGE_BYTES=65536, RABBITMQ_URL="amqp://127.0.0.1:1")

    def talk(number):
        lengths = random.Random(number)
        with RawClient(gateway.url(f"dev-{number}") + "?receipts=none").open() as raw:
            raw.read_frame()
            for _ in range(60):
                long = b'{"type":"text","content":"%s"}' % (b"x" * lengths.choice((100, 40000, 60000, 65000)))
                raw.send(raw.frame(long) + raw.frame(message(1)) * lengths.randrange(1, 20))
            raw.send(raw.frame(b'{"type":"ping"}'))
            while b'"pong"' not in raw.read_frame()[1]:
                pass  # told to wait, perhaps more than once

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(talk, range(8)))
    assert gateway.alive()
