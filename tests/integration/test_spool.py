# SPDX-License-Identifier: MIT
"""RabbitMQ is away for longer than memory lasts, and the gateway is killed meanwhile: what was accepted or queued is
stored, once, in order."""

import json
import time

import pytest
from clients import Client
from load import Load
from process import wait_until

SMALL = {"OUTBOX_MESSAGES": "256", "PUBLISH_WINDOW": "128", "AMQP_HEARTBEAT": "5"}


def start(pipeline, **settings):
    gateway = pipeline.gateway(**{**SMALL, **settings})
    pipeline.processor(AMQP_HEARTBEAT="5")
    pipeline.wait_connected(gateway)
    return gateway


def written_bytes(gateway):
    """What the process has given to the disk so far."""
    with open(f"/proc/{gateway.popen.pid}/io", encoding="ascii") as text:
        return int(dict(line.split(": ") for line in text.read().splitlines())["write_bytes"])


@pytest.mark.short
def test_an_outage_longer_than_memory(pipeline):
    gateway = start(pipeline)
    load = Load(gateway, pause_s=0.002)
    load.wait_stored(50)
    pipeline.broker.kill9()
    load.wait_sent(400)
    wait_until(lambda: all(sender.accepted for sender in load.senders), 60, "every client to hear accepted")
    load.wait_sent(100)
    pipeline.broker.restart()
    load.wait_stored(50, 120)
    load.end(120)
    load.assert_all_rows(pipeline)
    gateway.wait_log(event="spool_drained")
    assert gateway.log(event="spool_draining"), "the drain did not say how much was left"


def test_a_memory_alarm(pipeline):
    gateway = start(pipeline)
    load = Load(gateway)
    load.wait_stored(50)
    pipeline.broker.memory_alarm(True)
    wait_until(lambda: all(len(sender.accepted) > 100 for sender in load.senders), 60, "accepted receipts")
    pipeline.broker.memory_alarm(False)
    load.wait_stored(50, 120)
    load.end(120)
    load.assert_all_rows(pipeline)


@pytest.mark.short
def test_killed_in_the_outage_and_while_it_drains(pipeline):
    gateway = start(pipeline)
    pipeline.broker.stop()
    known = {}
    with Client(gateway.url("dev-7", "?receipts=accepted,queued")) as client:
        for number in range(1500):
            client.send({"type": "text", "content": number, "id": f"m{number}"})
        while sum(status == "accepted" for status in known.values()) < 1000:
            receipt = json.loads(client.receive_text(60))
            if receipt["type"] != "busy":  # the disk may be slower than we are
                known[receipt["id"]] = receipt["status"]
        gateway.kill9()
    pipeline.broker.cont()
    for pause_s in (0.05, 0.2, 0.5, 1.0):
        gateway.start()
        time.sleep(pause_s)
        gateway.kill9()
    gateway.start()
    gateway.wait_log(event="spool_opened")
    wait_until(lambda: set(known) <= set(pipeline.message_ids("dev-7")), 120, "what was accepted to be stored")
    with Client(gateway.url("dev-7")) as client:  # and what comes now is stored behind it
        client.store()
    ids = [each for each in pipeline.message_ids("dev-7") if each.startswith("m")]
    assert ids == sorted(ids, key=lambda each: int(each[1:]))
    assert len(ids) == len(set(ids))


def test_the_next_starts_receipts_find_the_client_that_came_back(pipeline):
    """What an earlier start accepted is queued and stored by the next one: the client's present connection hears of it,
    with id and without seq."""
    gateway = start(pipeline)
    pipeline.broker.stop()
    with Client(gateway.url("dev-7", "?receipts=accepted")) as client:
        for number in range(400):
            client.send({"type": "text", "content": number, "id": f"m{number}"})
        client.expect(id="m399", status="accepted")
    gateway.kill9()
    gateway.start()
    with Client(gateway.url("dev-7")) as client:
        client.send({"type": "text", "content": 400, "id": "m400"})
        assert client.receive() == {"type": "receipt", "seq": 1, "id": "m400", "status": "accepted"}
        pipeline.broker.cont()
        told = {}
        while told.get("m400") != ["queued", "stored"]:
            receipt = client.receive()
            assert receipt.pop("type") == "receipt" and receipt.pop("seq", 0) == (receipt["id"] == "m400"), receipt
            told.setdefault(receipt["id"], []).append(receipt["status"])
    # What the killed gateway had sent to the broker is there twice, and is told as stored twice.
    assert all(statuses in (["queued", "stored"], ["queued", "stored", "stored"]) for statuses in told.values()), told
    assert list(told) == [f"m{number}" for number in range(401)]
    assert pipeline.message_ids("dev-7") == [f"m{number}" for number in range(401)]


def test_ended_in_good_order_in_an_outage(pipeline):
    gateway = start(pipeline)
    pipeline.broker.stop()
    with Client(gateway.url("dev-7", "?receipts=accepted")) as client:
        for number in range(600):
            client.send({"type": "text", "content": number, "id": f"m{number}"})
        client.expect(id="m599", status="accepted")
        assert gateway.end() == 0
    assert gateway.log(event="drain_kept", messages=600)
    pipeline.broker.cont()
    gateway.start()
    wait_until(lambda: len(pipeline.message_ids("dev-7")) == 600, 120, "all of them to be stored")


def test_a_second_gateway_cannot_have_the_folder(pipeline):
    gateway = start(pipeline)
    with pytest.raises(Exception, match="ended while starting"):
        pipeline.gateway(SPOOL_DIR=gateway.folder / "spool")
    output = pipeline.programs.pop().output.read_text("utf-8")
    assert "SPOOL_DIR=" in output and "another gateway is using this folder" in output


def test_drop_oldest_tells_of_each(pipeline):
    """A spool that is full lets the oldest go: each is counted, logged and told, all others are stored in order."""
    gateway = start(pipeline, SPOOL_FULL="drop-oldest", SPOOL_MAX_BYTES="8M", OUTBOX_BYTES="2M",
                    HEARTBEAT_INTERVAL="600")  # the client answers only while it waits for something
    drained = len(gateway.log(event="spool_drained"))  # while it started, on a slow machine
    pipeline.broker.stop()
    ids = [f"m{number}" for number in range(9000)]
    with Client(gateway.url("dev-7", "?receipts=none")) as client:
        for each in ids:
            client.send({"type": "text", "content": "x" * 1000, "id": each})
        client.send({"type": "ping"})
        told = []
        for receipt in iter(client.receive, {"type": "pong"}):
            if receipt["type"] != "busy":  # the disk may be slower than we are
                assert receipt.pop("reason"), receipt
                assert receipt == {"type": "receipt", "seq": len(told) + 1, "id": ids[len(told)], "status": "rejected",
                                   "code": "dropped"}
                told.append(receipt["id"])
        pipeline.broker.cont()
        wait_until(lambda: len(gateway.log(event="spool_drained")) > drained, 120, "the spool to be drained")
        # What is dropped for those that come is dropped a little ahead, so there may be more of them than were told.
        lines = gateway.log(event="message_dropped", client="dev-7")
        dropped = [line["id"] for line in lines]
        told += [client.receive()["id"] for _ in range(len(dropped) - len(told))]
        assert told == dropped == ids[:len(dropped)] and 1000 < len(dropped) < 6000
        assert gateway.log(event="spool_drained")[drained]["dropped"] == str(len(dropped))
    kept, sent = set(ids[len(dropped):]), {line["id"] for line in lines if line["sent"] == "perhaps"}
    assert len(sent) <= int(SMALL["PUBLISH_WINDOW"])  # on their way to the broker when it was stopped
    wait_until(lambda: kept <= set(pipeline.message_ids("dev-7")), 60, "the others to be stored", 0.2)
    stored = pipeline.message_ids("dev-7")
    assert stored == [each for each in ids if each in stored] and set(stored) <= kept | sent


@pytest.mark.unsanitized
def test_while_the_broker_is_well_the_disk_is_not_touched(pipeline):
    """Not a byte, while the broker confirms: where it stood still for seconds, because the machine is busy, the gateway
    said so, and another thousand messages are looked at."""
    gateway = start(pipeline, LOG_LEVEL="warn", LOG_STDOUT="1", GATEWAY_LOG_FILE="/dev/null", OUTBOX_MESSAGES="8192")
    load = Load(gateway)

    def is_untouched():
        before, said = written_bytes(gateway), gateway.output.stat().st_size
        load.wait_stored(200, 120)
        written = written_bytes(gateway) - before
        assert written == 0 or gateway.output.stat().st_size > said, f"{written} bytes, and not a word of it"
        return written == 0
    load.wait_stored(100, 120)
    wait_until(is_untouched, 300, "a broker that is well for a thousand messages")
    load.end(120)
