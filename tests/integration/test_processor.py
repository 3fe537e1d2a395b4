# SPDX-License-Identifier: MIT
"""The processor between a real RabbitMQ and a real PostgreSQL, without a gateway: the tests publish what a gateway or
another program would publish, and read what the gateway would be told."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pika
import pytest
from admin import Metrics
from clients import Client
from cutting_proxy import CuttingProxy
from process import free_port, wait_until
from programs import ROOT, find_program
from pipeline import BUILD, heal
from services import migrate

PATIENCE_S = 60
GATEWAY = "gw-test"
DOWNLINK = "postern.gateway." + GATEWAY


class Feed:
    """Publishes messages as the gateway GATEWAY would, and reads the receipts it would get."""

    def __init__(self, pipeline):
        self.channel = pipeline.channel()
        for queue in ("messages", "messages.dead"):
            self.channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        self.channel.exchange_declare("postern.downlink", "topic", durable=True)
        self.channel.queue_declare(DOWNLINK, durable=True)
        self.channel.queue_bind(DOWNLINK, "postern.downlink", "gateway." + GATEWAY)

    def publish(self, body, **properties):
        """A body as it is, or something to make JSON of; with a gateway's properties unless named."""
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        defaults = {"reply_to": "gateway." + GATEWAY, "content_type": "application/json", "delivery_mode": 2,
                    "app_id": "postern"}
        self.channel.basic_publish("", "messages", body, pika.BasicProperties(**{**defaults, **properties}))

    def send(self, message_id, content="x", client="dev-7", type_="text", received_at="2026-11-23T07:21:11.839Z",
             **properties):
        body = {"client_id": client, "type": type_, "content": content, "id": message_id, "gateway": GATEWAY}
        self.publish({**body, "received_at": received_at} if received_at else body,
                     **{"message_id": f"{client}:{message_id}", "correlation_id": f"ref-{message_id}", **properties})

    def wait_read(self):
        """Until RabbitMQ has read all that was published: it answers one channel's words in order."""
        self.channel.queue_declare(DOWNLINK, passive=True)

    def get(self, queue):
        """One message of a queue as (properties, body), or None."""
        method, properties, body = self.channel.basic_get(queue, auto_ack=True)
        return (properties, body) if method else None

    def receipts(self, count, timeout_s=PATIENCE_S):
        """Waits for so many receipts; returns them all."""
        found = []

        def enough():
            while len(found) < count and (message := self.get(DOWNLINK)):
                properties, body = message
                assert (properties.type, properties.content_type) == ("receipts", "application/json")
                found.extend(json.loads(body)["receipts"])
            return len(found) >= count
        wait_until(enough, timeout_s, f"{count} receipts")
        return found

    def dead_letter(self):
        return wait_until(lambda: self.get("messages.dead"), PATIENCE_S, "a dead letter")

    def close(self):
        self.channel.connection.close()


@pytest.fixture
def feed(pipeline):
    feed = Feed(pipeline)
    yield feed
    heal(pipeline.broker, pipeline.server)  # a broker that is stopped would be waited for
    try:
        feed.close()
    except pika.exceptions.AMQPError:
        pass  # the test ended the broker


def by_id(receipts):
    return {receipt["id"]: receipt["status"] for receipt in receipts}


# ---- What is stored ----

@pytest.mark.short
def test_a_row_and_a_receipt_for_a_message(pipeline, feed):
    pipeline.processor()
    feed.send("m1", {"t": 21.5, "text": "Grüße 🚪"})
    assert feed.receipts(1) == [{"client_id": "dev-7", "id": "m1", "ref": "ref-m1", "status": "stored"}]
    assert pipeline.query("SELECT client_id, message_id, type, content, status, gateway, received_at AT TIME ZONE 'UTC' "
                          "= '2026-11-23 07:21:11.839' FROM messages") == [
        ("dev-7", "m1", "text", {"t": 21.5, "text": "Grüße 🚪"}, "stored", GATEWAY, True)]
    assert wait_until(lambda: pipeline.queue_depth() == 0, 30, "the queue to be empty")


def test_bodies_of_other_publishers(pipeline, feed):
    """client_id, type and content are enough; the id comes from the AMQP message_id, or is made."""
    processor = pipeline.processor()
    body = {"client_id": "dev-7", "type": "text", "content": None}
    feed.publish(body, reply_to=None, message_id="dev-7:a")
    feed.publish(body, reply_to=None, message_id="b")
    feed.publish(body, reply_to=None)
    feed.publish(body, reply_to="client.dev-7")  # no gateway's: nobody is told
    feed.publish({**body, "unknown": [1]}, message_id="dev-7:a")
    assert feed.receipts(1) == [{"client_id": "dev-7", "status": "stored"}]
    rows = [row[0] for row in pipeline.query(
        "SELECT message_id FROM messages WHERE gateway IS NULL AND received_at IS NULL AND content = 'null' ORDER BY id")]
    assert rows[:2] == ["a", "b"] and len(rows) == 4
    assert all(row.startswith("made-") for row in rows[2:]) and rows[2] != rows[3]
    assert feed.get(DOWNLINK) is None
    assert not processor.log(level="error")


@pytest.mark.short
def test_order_and_repeats(pipeline, feed):
    """Each id once, in order, however often it comes; each copy gets its receipt."""
    for number in range(1500):
        feed.send(f"m{number}", number)
        feed.send(f"m{number}", "again")
    pipeline.processor()
    receipts = feed.receipts(3000)
    assert {receipt["status"] for receipt in receipts} == {"stored"}
    feed.send("m7", "and again")
    assert by_id(feed.receipts(1)) == {"m7": "stored"}
    assert pipeline.query("SELECT content FROM messages ORDER BY id") == [(number,) for number in range(1500)]


def test_many_gateways_each_hear_of_their_own(pipeline, feed):
    for number in range(40):
        queue = f"postern.gateway.g{number}"
        feed.channel.queue_declare(queue, durable=True)
        feed.channel.queue_bind(queue, "postern.downlink", f"gateway.g{number}")
    for number in range(400):
        feed.send(f"m{number}", reply_to=f"gateway.g{number % 40}")
    pipeline.processor()
    wait_until(lambda: pipeline.row_count() == 400, PATIENCE_S, "all rows")
    for number in range(40):
        ids = []

        def complete(queue=f"postern.gateway.g{number}", ids=ids):
            message = feed.get(queue)
            ids.extend(receipt["id"] for receipt in json.loads(message[1])["receipts"]) if message else None
            return len(ids) >= 10
        wait_until(complete, PATIENCE_S, "ten receipts")
        assert sorted(ids) == sorted(f"m{each}" for each in range(number, 400, 40))


def test_long_messages(pipeline, feed):
    """More than the intake holds of them at once, and one as long as a gateway can be set to take."""
    processor = pipeline.processor(PROCESSOR_BATCH="10", PROCESSOR_PREFETCH="100")
    for number in range(60):
        feed.send(f"m{number}", "x" * 300_000)
    feed.send("largest", "x" * (1024 * 1024 - 2))
    assert set(by_id(feed.receipts(61)).values()) == {"stored"}
    assert pipeline.query("SELECT count(*), max(length(content::text)) FROM messages") == [(61, 1024 * 1024)]
    assert wait_until(lambda: pipeline.queue_depth() == 0, 30, "the queue to be empty")
    assert not processor.log(level="warn") and not processor.log(level="error")


def is_full(metrics):
    return metrics["postern_intake_bytes"] + 1_000_000 > metrics["postern_intake_max_bytes"]


def test_a_backlog_of_long_messages_is_not_handed_out_again_and_again(pipeline, feed):
    processor = pipeline.processor(PROCESSOR_BATCH="10", PROCESSOR_PREFETCH="100",  # room for four of them
                                   PROCESSOR_ADMIN_PORT=free_port())
    processor.wait_log(event="consuming")
    lock = pipeline.lock_messages()
    for number in range(40):
        feed.send(f"m{number}", "x" * 1_000_000)
    wait_until(lambda: is_full(Metrics(processor)), PATIENCE_S, "four of them to be in hand")
    feed.wait_read()
    lock.close()
    assert len(by_id(feed.receipts(40))) == 40
    asked = [int(line["prefetch"]) for line in processor.log(event="consuming")]
    # Where they come more slowly than they are stored it asks for more again, step by step.
    assert asked[0] == 100 and max(asked[1:], default=0) <= 8 and len(asked) <= 6, asked


def test_a_body_beyond_all_bounds_leaves_its_beginning_with_the_dead_letters(pipeline, feed):
    """It blocks nothing, not even where only one message is in hand at a time."""
    processor = pipeline.processor(PROCESSOR_BATCH="1", PROCESSOR_PREFETCH="1")
    feed.send("before")
    feed.send("huge", "x" * 3_000_000)
    feed.send("after")
    assert by_id(feed.receipts(2)) == {"before": "stored", "after": "stored"}
    properties, body = feed.dead_letter()
    assert properties.message_id == "dev-7:huge" and properties.headers["x-postern-reason"] == "too_large"
    assert properties.headers["x-postern-body-bytes"] > 3_000_000
    assert len(body) == 1024 * 1024 + 1024 and body.startswith(b'{"client_id": "dev-7"') and body.endswith(b"xxx")
    line = processor.wait_log(event="dead_letter")
    assert (line["message_id"], line["code"]) == ("dev-7:huge", "too_large")
    wait_until(lambda: pipeline.queue_depth() == 0, 30, "the queue to be empty")
    processor.end()
    wait_until(lambda: pipeline.queue_depth() == 0, 30, "nothing to come back")


# ---- The acceptance rule ----

def window(pipeline, accepts_from, accepts_until, zone="UTC", around="now"):
    """Sets the window of `voice` around a moment, in a zone that becomes the database's."""
    pipeline.query(f'ALTER DATABASE "{pipeline.name}" SET TimeZone = %s', (zone,))
    pipeline.query("UPDATE message_types SET accepts_from = (%s::timestamptz AT TIME ZONE %s)::time + %s::interval, "
                   "accepts_until = (%s::timestamptz AT TIME ZONE %s)::time + %s::interval WHERE type = 'voice'",
                   (around, zone, accepts_from, around, zone, accepts_until))


@pytest.mark.parametrize("accepts_from, accepts_until, status", [
    ("-2 hours", "+2 hours", "stored"),   # one of these passes midnight at any time of the day
    ("+11 hours", "+13 hours", "rejected"),
    ("-12 hours", "-1 hours", "rejected"),
    ("+1 hours", "+12 hours", "rejected"),
    ("+1 hours", "-1 hours", "rejected"),
    ("-1 hours", "-2 hours", "stored"),
    ("0 hours", "0 hours", "rejected"),   # from = until: an empty window
])
def test_the_window_of_a_type(pipeline, feed, accepts_from, accepts_until, status):
    """Of a message that does not say when it was received: the time at which it is stored counts."""
    window(pipeline, accepts_from, accepts_until)
    pipeline.processor()
    feed.send("v1", type_="voice", received_at=None)
    feed.send("t1", type_="text", received_at=None)
    feed.send("u1", type_="unheard-of", received_at=None)
    feed.send("v2", type_="voice", received_at=None)
    receipts = feed.receipts(4)
    assert by_id(receipts) == {"v1": status, "t1": "stored", "u1": "stored", "v2": status}
    for receipt in receipts:
        assert (receipt.get("reason") == "outside_hours") == (receipt["status"] == "rejected")
    assert dict(pipeline.query("SELECT message_id, status FROM messages")) == by_id(receipts)


def test_the_window_is_in_the_databases_time_zone(pipeline, feed):
    window(pipeline, "-1 hours", "+1 hours", "Pacific/Kiritimati")  # UTC+14
    pipeline.processor()
    feed.send("v1", type_="voice", received_at=None)
    assert by_id(feed.receipts(1)) == {"v1": "stored"}


def test_a_message_is_not_late_because_it_was_delayed(pipeline, feed):
    """The time at which the gateway took it counts, in the database's zone, whenever it comes to be stored."""
    window(pipeline, "-1 hours", "+1 hours", "Pacific/Kiritimati", "2026-11-23T23:30:00Z")  # 13:30 there, the 24th
    pipeline.processor()
    for message_id, received_at in (("early", "2026-11-23T22:29:59.999Z"), ("first", "2026-11-23T22:30:00Z"),
                                    ("within", "2026-11-23T23:30:00Z"), ("other-day", "2026-11-20T23:30:00Z"),
                                    ("last", "2026-11-24T00:29:59.999Z"), ("late", "2026-11-24T00:30:00Z")):
        feed.send(message_id, type_="voice", received_at=received_at)
    assert by_id(feed.receipts(6)) == {"early": "rejected", "first": "stored", "within": "stored",
                                       "other-day": "stored", "last": "stored", "late": "rejected"}


def test_a_repeat_is_told_what_became_of_the_first(pipeline, feed):
    taken = "2026-11-23T07:21:11.839Z"  # by the gateway, all of them
    window(pipeline, "+11 hours", "+13 hours", around=taken)
    pipeline.processor()
    feed.send("v1", type_="voice")
    assert by_id(feed.receipts(1)) == {"v1": "rejected"}
    window(pipeline, "-1 hours", "+1 hours", around=taken)  # counts at once, without a restart
    feed.send("v1", type_="voice")
    feed.send("v2", type_="voice")
    assert by_id(feed.receipts(2)) == {"v1": "rejected", "v2": "stored"}
    window(pipeline, "+11 hours", "+13 hours", around=taken)
    feed.send("v2", type_="voice")
    assert by_id(feed.receipts(1)) == {"v2": "stored"}


# ---- Dead letters ----

@pytest.mark.short
def test_what_the_database_refuses_is_dead_lettered_alone(pipeline, feed):
    pipeline.query("ALTER TABLE messages ADD CONSTRAINT no_seven CHECK (content <> '7')")
    pipeline.query("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.content = '33' THEN "
                   "RAISE 'thirty-three is refused'; END IF; RETURN NEW; END $$")
    pipeline.query("CREATE TRIGGER refuse BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION refuse()")
    processor = pipeline.processor(PROCESSOR_BATCH_MS="500")
    for number in range(100):
        feed.send(f"m{number}", number, headers={"colour": "red"})
    receipts = feed.receipts(100)
    statuses = by_id(receipts)
    assert {statuses.pop("m7"), statuses.pop("m33")} == {"dead"}
    assert set(statuses.values()) == {"stored"} and len(statuses) == 98
    assert all(receipt["reason"] for receipt in receipts if receipt["status"] == "dead")
    assert pipeline.row_count() == 98
    letters = [feed.dead_letter(), feed.dead_letter()]
    for properties, body in letters:
        number = json.loads(body)["content"]
        assert properties.message_id == f"dev-7:m{number}" and properties.correlation_id == f"ref-m{number}"
        assert properties.headers["colour"] == "red"
        assert properties.headers["x-postern-reason"] == "violates_constraint"
        assert ("no_seven" if number == 7 else "thirty-three") in properties.headers["x-postern-detail"]
    assert {json.loads(body)["content"] for _, body in letters} == {7, 33}
    assert {line["id"] for line in processor.log(event="dead_letter")} == {"m7", "m33"}
    wait_until(lambda: pipeline.queue_depth() == 0, 30, "the queue to be empty")


def test_what_cannot_be_read_or_held(pipeline, feed):
    pipeline.processor()
    feed.publish(b"\xff\x00garbage")
    feed.send("nul", "a\0b")
    feed.publish(b'{"client_id":"dev-7","type":"text","content":[1e999999],"id":"big"}')
    feed.publish({"type": "text", "content": 1, "id": "nobody"})
    feed.send("good")
    assert by_id(feed.receipts(3)) == {"nul": "dead", "big": "dead", "good": "stored"}
    letters = dict((lambda letter: (letter[0].headers["x-postern-reason"], letter[1]))(feed.dead_letter())
                   for _ in range(4))
    assert set(letters) == {"bad_json", "nul_content", "number_out_of_range", "bad_client_id"}
    assert letters["bad_json"] == b"\xff\x00garbage"


def test_long_headers_of_what_cannot_be_read(pipeline, feed):
    """More than a frame of ours has room for: what does not fit is left out, and the letter says so."""
    processor = pipeline.processor()
    feed.publish(b"garbage", headers={"colour": "red", "trace": "t" * 9000, "count": 7})
    properties, body = feed.dead_letter()
    assert body == b"garbage"
    assert (properties.headers["colour"], properties.headers["count"]) == ("red", 7)
    assert "trace" not in properties.headers and properties.headers["x-postern-headers-lost"] == 1
    assert processor.alive()


def test_a_number_that_nobody_reads_is_harmless(pipeline, feed):
    pipeline.processor()
    feed.publish(b'{"client_id":"dev-7","type":"text","content":1,"id":"m1","trace":{"n":1e999999}}')
    assert by_id(feed.receipts(1)) == {"m1": "stored"}


def test_only_poison(pipeline, feed):
    """A thousand at once, more than are held at a time: all end as dead letters, and what follows is stored."""
    pipeline.query("ALTER TABLE messages ADD CONSTRAINT no_seven CHECK (content <> '7')")
    pipeline.processor(PROCESSOR_BATCH="100")
    for number in range(600):
        feed.send(f"c{number}", 7)
        feed.publish(b"garbage")
    feed.send("good")
    statuses = by_id(feed.receipts(601))
    assert statuses.pop("good") == "stored" and set(statuses.values()) == {"dead"}
    wait_until(lambda: pipeline.queue_depth("messages.dead") >= 1200, PATIENCE_S, "all dead letters")
    wait_until(lambda: pipeline.broker.queue_held("messages", pipeline.vhost) == 0, 30, "the queue to be empty")
    # Each once: the connection that a full intake ends takes no ack with it.
    letters = [feed.dead_letter() for _ in range(pipeline.queue_depth("messages.dead"))]
    assert len(letters) == 1200 and sum(body == b"garbage" for _, body in letters) == 600
    assert {properties.message_id for properties, body in letters if body != b"garbage"} == \
           {f"dev-7:c{number}" for number in range(600)}


def test_dead_letters_without_room_go_as_soon_as_there_is_some(pipeline, feed):
    """Three of 1 MB have room. No heartbeat is due that could help."""
    for _ in range(8):
        feed.publish(b"x" * 1_000_000)
    pipeline.processor(AMQP_HEARTBEAT="600", PROCESSOR_BATCH="1", PROCESSOR_PREFETCH="8")
    wait_until(lambda: pipeline.queue_depth("messages.dead") == 8, PATIENCE_S, "all dead letters")


def test_stopped_amid_poison(pipeline, feed):
    """What a stop has finished is finished: no dead letter is made once more after the next start."""
    count = amid = 0
    for _ in range(20):
        dead = pipeline.queue_depth("messages.dead")
        for _ in range(4000 - (count - dead)):
            feed.publish(b"garbage")
            count += 1
        processor = pipeline.processor(PROCESSOR_PREFETCH="500")
        wait_until(lambda dead=dead: pipeline.queue_depth("messages.dead") > dead + 300, PATIENCE_S, "dead letters", 0.01)
        assert processor.end(signal.SIGTERM) == 0
        wait_until(lambda: pipeline.queue_depth() + pipeline.queue_depth("messages.dead") == count,
                   PATIENCE_S,
                   "every message to be in one of the two queues, once")
        amid += pipeline.queue_depth() > 0  # else this machine was so slow that the stop came after the last one
        if amid == 4:
            return
    pytest.fail(f"only {amid} of 20 stops came amid the work")


def test_a_dead_letter_that_is_put_back(pipeline, feed):
    """Fails again: it keeps the time of its first failure. Once the cause is gone, it is stored."""
    pipeline.query("ALTER TABLE messages ADD CONSTRAINT no_seven CHECK (content <> '7')")
    pipeline.processor()
    feed.send("m7", 7)
    first, body = feed.dead_letter()
    time.sleep(1.1)
    feed.channel.basic_publish("", "messages", body, first)
    second, body = feed.dead_letter()
    assert second.headers["x-postern-first-failure"] == first.headers["x-postern-first-failure"]
    pipeline.query("ALTER TABLE messages DROP CONSTRAINT no_seven")
    feed.channel.basic_publish("", "messages", body, second)
    assert [receipt["status"] for receipt in feed.receipts(3)] == ["dead", "dead", "stored"]


def test_the_dead_letters_queue_is_deleted(pipeline, feed):
    """It is declared again, and nothing is acknowledged before a dead letter is safe."""
    processor = pipeline.processor()
    feed.publish(b"first")
    feed.dead_letter()
    feed.channel.queue_delete("messages.dead")
    feed.publish(b"second")
    assert processor.wait_log(PATIENCE_S, event="dead_letter_returned")

    def letter():
        channel = pipeline.channel()  # of its own: a queue that is just being made can cost it its connection
        try:
            return channel.basic_get("messages.dead", auto_ack=True)[2]
        except pika.exceptions.AMQPError:
            return None
        finally:
            if channel.connection.is_open:
                channel.connection.close()
    assert wait_until(letter, PATIENCE_S, "the dead letter", 0.2) == b"second"


def test_the_dead_letters_queue_is_full(pipeline, feed):
    """And long messages fill the intake: the letter that is refused again and again does not end consuming."""
    feed.channel.queue_delete("messages.dead")
    feed.channel.queue_declare("messages.dead", durable=True,
                               arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    feed.channel.basic_publish("", "messages.dead", b"full")
    processor = pipeline.processor(PROCESSOR_BATCH="10", PROCESSOR_PREFETCH="100",  # room for four of them
                                   PROCESSOR_ADMIN_PORT=free_port())
    processor.wait_log(event="consuming")
    lock = pipeline.lock_messages()
    feed.send("poison", "a\0b")
    for number in range(6):
        feed.send(f"m{number}", "x" * 1_000_000)
    wait_until(lambda: is_full(Metrics(processor)), PATIENCE_S, "the intake to be full")
    feed.wait_read()
    lock.close()
    assert len(by_id(feed.receipts(6))) == 6
    assert processor.wait_log(PATIENCE_S, event="dead_letters_stuck")
    feed.channel.queue_purge("messages.dead")
    assert by_id(feed.receipts(1)) == {"poison": "dead"}
    assert feed.dead_letter()[0].message_id == "dev-7:poison"
    assert processor.end() == 0
    wait_until(lambda: pipeline.queue_depth() == 0, 30, "nothing to come back")


# ---- Trouble with the database ----

def test_the_database_is_away_for_long(pipeline, feed):
    """Consuming stops, what was in hand goes back to the queue, and is stored once when the database is there."""
    processor = pipeline.processor()
    feed.send("first")
    feed.receipts(1)
    pipeline.server.kill9()
    for number in range(50):
        feed.send(f"m{number}")
    assert processor.wait_log(PATIENCE_S, event="database_down")
    # Whatever was handed out before the loss was noticed is ready again for others.
    wait_until(lambda: pipeline.queue_depth() == 50, PATIENCE_S, "all 50 to be ready in the queue")
    assert processor.cpu_s() < 5
    pipeline.server.start()
    assert len(by_id(feed.receipts(50))) == 50
    assert pipeline.row_count() == 51
    assert processor.log(event="database_up")


def test_consuming_begins_again_without_another_event(pipeline, feed):
    """The database comes back: that alone starts the new connection. No heartbeat is due that could help."""
    processor = pipeline.processor(AMQP_HEARTBEAT="600")
    feed.send("first")
    feed.receipts(1)
    for round_ in range(2):
        pipeline.server.kill9()
        wait_until(lambda count=round_ + 1: len(processor.log(event="messages_given_back")) >= count, PATIENCE_S,
                   "it to give its messages back")
        feed.send(f"again-{round_}")
        pipeline.server.start()
        wait_until(lambda count=round_ + 2: len(processor.log(event="database_up")) >= count, PATIENCE_S,
                   "it to see it")
        # Otherwise it would be noticed when a link has something to do, some 20 seconds later.
        assert by_id(feed.receipts(1, 15)) == {f"again-{round_}": "stored"}


def test_nothing_turns_while_nothing_answers(pipeline, feed):
    """The broker hangs and the database is gone for longer than messages are kept in hand: the processor waits, and
    works again once both are back."""
    processor = pipeline.processor()
    feed.send("first")
    feed.receipts(1)
    pipeline.broker.stop()
    pipeline.server.kill9()
    wait_until(lambda: processor.log(event="messages_given_back"), PATIENCE_S, "it to give its messages back")
    before = processor.cpu_s()
    time.sleep(12)  # past the end of the wait for the broker's goodbye, and past its second heartbeat
    assert processor.cpu_s() - before < 3
    pipeline.broker.cont()
    pipeline.server.start()
    again = Feed(pipeline)
    again.send("again")
    assert by_id(again.receipts(1)) == {"again": "stored"}
    again.close()


def test_a_processor_without_rights_leaves_the_work_to_others(pipeline, feed):
    """Its connection is good and each batch is refused: it holds no message for long, and says so once, not each time."""
    pipeline.query("DROP ROLE IF EXISTS reader")
    pipeline.query("CREATE ROLE reader LOGIN PASSWORD 'reader'")
    pipeline.query("GRANT SELECT ON messages, message_types TO reader")
    host = pipeline.database_url.split("@")[1]
    reader = pipeline.processor(DATABASE_URL=f"postgresql://reader:reader@{host}", LOG_LEVEL="info")
    for number in range(20):
        feed.send(f"m{number}")
    down = reader.wait_log(PATIENCE_S, event="database_down")
    assert "permission denied" in down["cause"] and "GRANT" in down["remedy"]
    pipeline.processor()
    assert by_id(feed.receipts(20)) == {f"m{number}": "stored" for number in range(20)}
    for number in range(20, 60):
        feed.send(f"m{number}")
    feed.receipts(40)
    assert len(reader.log(event="database_down")) <= 6
    assert len(reader.log(event="database_up")) <= 7
    reader.end()
    pipeline.query("DROP OWNED BY reader")
    pipeline.query("DROP ROLE reader")


def test_another_processor_takes_over(pipeline, feed, servers):
    """One processor's way to the database is cut; the other gets all messages."""
    _, server = servers
    other_url = server.create(pipeline.name + "_other")
    migrate(other_url)
    try:
        cut = pipeline.processor(DATABASE_URL=other_url, PROCESSOR_PREFETCH="500")
        wait_until(lambda: cut.log(event="consuming"), PATIENCE_S, "it to consume")
        server.query(f'ALTER DATABASE "{pipeline.name}_other" ALLOW_CONNECTIONS false', database="postgres")
        server.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                     (pipeline.name + "_other",), database="postgres")
        for number in range(100):
            feed.send(f"m{number}")
        pipeline.processor()
        assert len(by_id(feed.receipts(100))) == 100
        assert pipeline.row_count() == 100
    finally:
        cut.end()
        server.drop(pipeline.name + "_other")


def test_tables_vanish_and_come_back(pipeline, feed):
    processor = pipeline.processor()
    feed.send("before")
    feed.receipts(1)
    migrate(pipeline.database_url, "base", "downgrade")
    feed.send("between")
    assert processor.wait_log(PATIENCE_S, event="database_not_migrated")["remedy"] == "alembic upgrade head"
    migrate(pipeline.database_url)
    assert by_id(feed.receipts(1)) == {"between": "stored"}
    assert pipeline.queue_depth("messages.dead") == 0


def test_processors_meet_on_the_same_messages(pipeline, feed):
    """Copies in opposite orders in two transactions at once: deadlocks end in a retry, and each is stored once."""
    ids = [f"m{number}" for number in range(400)]
    for round_ in range(6):
        for message_id in ids if round_ % 2 == 0 else reversed(ids):
            feed.send(message_id)
    processors = [pipeline.processor(PROCESSOR_BATCH="400", PROCESSOR_PREFETCH="400") for _ in range(3)]
    receipts = feed.receipts(2400)
    assert {receipt["status"] for receipt in receipts} == {"stored"} and len(receipts) == 2400
    assert pipeline.row_count() == 400
    assert pipeline.queue_depth("messages.dead") == 0
    for processor in processors:
        assert not processor.log(level="error")


def test_a_unix_socket_and_several_hosts(pipeline, feed, servers):
    """The first host of the list does not answer, the second is no host at all."""
    _, server = servers
    port = server.port
    url = f"postgresql://postern:postern@127.0.0.1:1,no-such-host.invalid:{port},localhost:{port}/{pipeline.name}"
    processor = pipeline.processor(DATABASE_URL=url)
    feed.send("m1")
    assert by_id(feed.receipts(1)) == {"m1": "stored"}
    assert processor.log(event="database_up")[0]["host"] == "localhost"
    broken = pipeline.processor(DATABASE_URL="postgresql:///postern?host=/no/such/folder")
    assert "/no/such/folder" in broken.wait_log(PATIENCE_S, event="database_unreachable")["cause"]


def test_a_silent_address_of_several(pipeline, feed, servers):
    """The first address takes the connection and says nothing: the second one's turn comes."""
    _, server = servers
    url = f"postgresql://postern:postern@/{pipeline.name}?hostaddr=127.0.0.2,127.0.0.1&port={server.port}"
    with socket.create_server(("127.0.0.2", server.port)):
        processor = pipeline.processor(DATABASE_URL=url)
        feed.send("m1")
        assert by_id(feed.receipts(1)) == {"m1": "stored"}
    assert processor.log(event="database_unreachable")[0]["cause"] == "no answer to the connect"
    assert processor.log(event="database_up")[0]["host"] == "127.0.0.1"


# ---- Trouble with the broker ----

def test_stored_while_the_broker_takes_no_publishes(pipeline, feed):
    """In a memory alarm messages are stored and acknowledged, which relieves the broker; receipts follow."""
    pipeline.processor()
    feed.send("before")
    feed.receipts(1)
    for number in range(300):
        feed.send(f"m{number}")
    feed.wait_read()  # in an alarm it would read none of them
    pipeline.broker.memory_alarm(True)
    try:
        wait_until(lambda: pipeline.row_count() == 301, PATIENCE_S, "all rows")
        wait_until(lambda: pipeline.queue_depth() == 0, PATIENCE_S, "the queue to be empty")
    finally:
        pipeline.broker.memory_alarm(False)
    assert len(by_id(feed.receipts(300))) == 300


def test_what_is_stored_behind_dead_letters_without_room(pipeline, feed):
    """In an alarm dead letters cannot leave, and twelve of 1 MB have no room here; the others are acknowledged."""
    for _ in range(12):
        feed.publish(b"x" * 1_000_000)
    for number in range(300):
        feed.send(f"m{number}")
    feed.wait_read()  # in an alarm it would read none of them
    pipeline.broker.memory_alarm(True)
    try:
        pipeline.processor()
        wait_until(lambda: pipeline.row_count() == 300, PATIENCE_S, "all rows")
        wait_until(lambda: pipeline.broker.queue_held("messages", pipeline.vhost) == 12, PATIENCE_S,
                   "the stored ones to be acknowledged")
    finally:
        pipeline.broker.memory_alarm(False)
    assert len(by_id(feed.receipts(300))) == 300
    wait_until(lambda: pipeline.broker.queue_held("messages.dead", pipeline.vhost) == 12, PATIENCE_S, "the dead letters")
    wait_until(lambda: pipeline.broker.queue_held("messages", pipeline.vhost) == 0, PATIENCE_S, "the queue to be empty")


def test_a_queue_that_somebody_else_has_alone(pipeline, feed):
    """RabbitMQ closes the channel again and again: one line about it now and then, and not one for each."""
    feed.channel.queue_declare("alone", durable=True)
    feed.channel.basic_consume("alone", lambda *_: None, exclusive=True)
    processor = pipeline.processor(PROCESSOR_QUEUE="alone", QUEUE_TYPE="classic")
    processor.wait_log(PATIENCE_S, event="amqp_channel_closed")
    processor.wait_log(PATIENCE_S, event="amqp_lost")
    assert len(processor.log(level="warn")) < 12


def test_the_queue_is_deleted_under_it(pipeline, feed):
    processor = pipeline.processor()
    feed.send("before")
    feed.receipts(1)
    feed.channel.queue_delete("messages")
    wait_until(lambda: len(processor.log(event="consuming")) >= 2, PATIENCE_S, "it to consume again")
    feed.send("after")
    assert by_id(feed.receipts(1)) == {"after": "stored"}


def test_the_broker_dies_with_batches_on_their_way(pipeline):
    feed = Feed(pipeline)
    for number in range(3000):
        feed.send(f"m{number}")
    # What is only on its way to the broker is lost with it.
    wait_until(lambda: pipeline.queue_depth() == 3000, PATIENCE_S, "all of them to be in the queue")
    pipeline.processor(PROCESSOR_BATCH="50", LOG_LEVEL="info")
    wait_until(lambda: pipeline.row_count() > 200, PATIENCE_S, "some rows")
    pipeline.broker.kill9()
    pipeline.broker.start()
    wait_until(lambda: pipeline.row_count() == 3000, 2 * PATIENCE_S, "all rows")
    wait_until(lambda: pipeline.queue_depth() == 0, PATIENCE_S, "the queue to be empty")
    feed = Feed(pipeline)
    told = set()

    def all_told():
        message = feed.get(DOWNLINK)
        told.update(receipt["id"] for receipt in json.loads(message[1])["receipts"]) if message else None
        return len(told) == 3000
    wait_until(all_told, PATIENCE_S, "every message's receipt")
    feed.close()


# ---- Start and end ----

@pytest.mark.short
def test_a_stop_loses_nothing_and_answers_for_what_it_stored(pipeline, feed):
    """Stopped in the middle: each message is stored and has its receipt, or is in the queue."""
    for number in range(5000):
        feed.send(f"m{number}")
    processor = pipeline.processor(PROCESSOR_BATCH="100")
    wait_until(lambda: pipeline.row_count() > 300, PATIENCE_S, "some rows")
    assert processor.end(signal.SIGTERM) == 0
    rows = pipeline.row_count()
    assert len(by_id(feed.receipts(rows))) == rows
    wait_until(lambda: pipeline.queue_depth() == 5000 - rows, 30, "the rest to be in the queue, and not more")
    assert processor.log(event="stopped")


def test_a_stop_waits_for_a_link_that_is_just_made_again(pipeline, feed):
    """The links are lost while a batch is at the database, and made again only after the stop was asked for."""
    for _ in range(10):
        if stop_amid_reconnecting(pipeline, feed):
            return
    pytest.fail("this machine is too slow: the links' next try was never soon after the stop")


def stop_amid_reconnecting(pipeline, feed):
    """False: it took so long that the links' next try, each of which is later than the one before, may be too late."""
    proxy = CuttingProxy(("127.0.0.1", pipeline.broker.port))
    url = pipeline.rabbitmq_url.replace(f":{pipeline.broker.port}/", f":{proxy.port}/")
    processor = pipeline.processor(RABBITMQ_URL=url, PROCESSOR_BATCH="10", PROCESSOR_BATCH_MS="10000",
                                   PROCESSOR_PREFETCH="10")
    processor.wait_log(event="consuming")
    lock = pipeline.lock_messages()
    for number in range(10):
        feed.send(f"m{number}")
    wait_until(lambda: pipeline.query("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = "
                                      "'messages'::regclass")[0][0], PATIENCE_S, "the batch to wait for the lock")
    lost_at = time.monotonic()
    proxy.refuse(True)
    wait_until(lambda: {line["link"] for line in processor.log(event="amqp_lost")} == {"consume", "publish"},
               PATIENCE_S, "both links to be lost")
    lock.close()
    wait_until(lambda: processor.log(event="batch_stored"), PATIENCE_S, "the batch to be stored")
    processor.popen.send_signal(signal.SIGTERM)
    processor.wait_log(event="stopping")
    proxy.refuse(False)
    is_soon = time.monotonic() - lost_at < 1
    assert processor.popen.wait(30) == 0
    proxy.end()
    if processor.log(event="drain_cut_short") and not is_soon:
        return False
    assert not processor.log(event="drain_cut_short")
    assert set(by_id(feed.receipts(10)).values()) == {"stored"}
    return True


def test_small_batches_in_an_alarm_lose_no_receipt(pipeline, feed):
    """A row in a batch of its own makes a receipt in a message of its own; in an alarm they gather instead."""
    for number in range(2000):
        feed.send(f"m{number}")
    processor = pipeline.processor(PROCESSOR_BATCH="1", PROCESSOR_BATCH_MS="0", LOG_LEVEL="info")
    told = len(feed.receipts(100))  # more when many came in one message
    pipeline.broker.memory_alarm(True)
    try:
        wait_until(lambda: pipeline.row_count() == 2000, PATIENCE_S, "all rows")
    finally:
        pipeline.broker.memory_alarm(False)
    wait_until(lambda: not pipeline.queue_depth(), PATIENCE_S, "all to be acknowledged")
    feed.receipts(2000 - told, 2 * PATIENCE_S)
    assert not processor.log(event="receipts_dropped")


def test_small_batches_while_the_broker_hangs_lose_no_receipt(pipeline, feed):
    """The same without an alarm: what was in hand is stored, and nothing is confirmed."""
    processor = pipeline.processor(PROCESSOR_BATCH="1", PROCESSOR_BATCH_MS="0", PROCESSOR_PREFETCH="2000",
                                   LOG_LEVEL="info", AMQP_HEARTBEAT="60", PROCESSOR_ADMIN_PORT=free_port())
    processor.wait_log(event="consuming")
    lock = pipeline.lock_messages()
    for number in range(1500):
        feed.send(f"m{number}")
    feed.wait_read()
    wait_until(lambda: Metrics(processor)["postern_intake_messages"] == 1500, PATIENCE_S, "all to be in hand")
    pipeline.broker.stop()
    lock.close()
    wait_until(lambda: pipeline.row_count() == 1500, PATIENCE_S, "all rows")
    pipeline.broker.cont()
    assert len(by_id(feed.receipts(1500))) == 1500
    assert not processor.log(event="receipts_dropped")


def test_a_stop_while_nothing_answers(pipeline):
    """Neither the database nor the broker: it ends all the same, in good order."""
    processor = pipeline.processor(RABBITMQ_URL="amqp://127.0.0.1:1", DATABASE_URL="postgresql://127.0.0.1:1/none")
    processor.wait_log(PATIENCE_S, event="database_unreachable")
    assert processor.end(signal.SIGTERM, 60) == 0


def test_killed_at_any_moment(pipeline, feed):
    """kill -9 again and again: at worst a message is delivered twice, and stored once."""
    for number in range(4000):
        feed.send(f"m{number}")
    for _ in range(8):
        processor = pipeline.processor(PROCESSOR_BATCH="50", LOG_LEVEL="info")
        rows = pipeline.row_count()
        wait_until(lambda least=rows + 60: pipeline.row_count() >= min(4000, least), PATIENCE_S, "some more rows")
        processor.kill9()
    pipeline.processor()
    wait_until(lambda: pipeline.row_count() == 4000, PATIENCE_S, "all rows")
    wait_until(lambda: pipeline.queue_depth() == 0, PATIENCE_S, "the queue to be empty")
    assert len(by_id(feed.receipts(1))) >= 1


def test_hang_up_reopens_the_log(pipeline):
    processor = pipeline.processor()
    processor.wait_log(event="consuming")
    moved = processor.log_path.with_suffix(".moved")
    processor.log_path.rename(moved)
    processor.hang_up()
    wait_until(processor.log_path.exists, 30, "a new log file")


def test_messages_are_logged_on_demand(pipeline, feed):
    processor = pipeline.processor(LOG_MESSAGES="1")
    feed.send("m1")
    assert processor.wait_log(event="stored", id="m1")["client"] == "dev-7"


def test_a_made_id_is_the_same_in_both_logs(pipeline):
    gateway = pipeline.gateway(LOG_MESSAGES="1")
    processor = pipeline.processor(LOG_MESSAGES="1")
    with Client(gateway.url("dev-7")) as client:
        for content, status in (("x", "stored"), ("a\0b", "dead")):
            client.send({"type": "text", "content": content})
            client.expect(status=status)
    stored, dead = processor.wait_log(event="stored"), processor.wait_log(event="dead_letter")
    made = [line["id"] for line in gateway.log(event="message_taken")]
    assert [stored["id"], dead["id"]] == made and len(set(made)) == 2
    assert gateway.wait_log(event="message_stored")["id"] == stored["id"]
    assert gateway.wait_log(event="message_dead")["id"] == dead["id"]
    assert pipeline.query("SELECT message_id FROM messages") == [(stored["id"],)]


def run(*arguments, folder, **settings):
    return subprocess.run([find_program(BUILD, "postern-processor"), *arguments], cwd=folder, env=settings,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=60, check=False)


def test_the_settings_are_shown_without_secrets(tmp_path):
    (tmp_path / ".env").write_text("DATABASE_URL=postgresql://postern:hidden@db/postern\nPROCESSOR_BATCH=100\n")
    done = run("--check", folder=tmp_path, RABBITMQ_URL="amqp://u:secret@broker", PROCESSOR_BATCH="200")
    assert done.returncode == 0
    assert "PROCESSOR_BATCH=200" in done.stdout and "postgresql://postern:***@db/postern" in done.stdout
    assert "hidden" not in done.stdout and "secret" not in done.stdout


@pytest.mark.parametrize("settings, said", [
    ({}, "DATABASE_URL"),
    ({"DATABASE_URL": "mysql://u:hidden@db/x"}, "DATABASE_URL"),
    ({"DATABASE_URL": "postgresql://u:hid%zzden@db/x"}, "DATABASE_URL"),
    ({"DATABASE_URL": "postgresql://u:hidden@db:99999/x"}, "DATABASE_URL"),
    ({"DATABASE_URL": "postgresql://db/x", "RABBITMQ_URL": "http://u:hidden@broker"}, "RABBITMQ_URL"),
    ({"DATABASE_URL": "postgresql://db/x", "PROCESSOR_BATCH": "0"}, "PROCESSOR_BATCH"),
    ({"DATABASE_URL": "postgresql://db/x", "PROCESSOR_PREFETCH": "10"}, "PROCESSOR_PREFETCH"),
    ({"DATABASE_URL": "postgresql://db/x", "PROCESSOR_QUEUE": "q" * 251}, "PROCESSOR_QUEUE"),
])
def test_a_bad_setting_is_one_line(tmp_path, settings, said):
    done = run(folder=tmp_path, **{"RABBITMQ_URL": "amqp://127.0.0.1:1", **settings})
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and said in done.stderr
    assert "hidden" not in done.stderr and "zzden" not in done.stderr


def test_help_and_version(tmp_path):
    assert "alembic upgrade head" in run("--help", folder=tmp_path).stdout
    assert run("--version", folder=tmp_path).stdout.startswith("postern-processor ")
    assert run("--nonsense", folder=tmp_path).returncode == 2


# ---- Migrations ----

def alembic(*words, folder=ROOT, configuration=None, **settings):
    command = ["/usr/bin/alembic", *(["-c", str(configuration)] if configuration else []), *words]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", **settings}
    return subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=60, check=False)


def test_migrations_go_up_and_down_and_up(servers):
    _, server = servers
    name = f"migrations_{os.getpid()}"
    url = server.create(name)
    tables = "SELECT count(*) FROM pg_tables WHERE tablename IN ('messages', 'message_types')"
    try:
        for _ in range(2):
            migrate(url)
            assert server.query(tables, database=name) == [(2,)]
            assert server.query("SELECT type, accepts_from::text, accepts_until::text FROM message_types ORDER BY 1",
                                database=name) == [(type_, "00:00:00", "24:00:00")
                                                   for type_ in ("text", "video", "voice")]
            migrate(url, "base", "downgrade")
            assert server.query(tables, database=name) == [(0,)]
    finally:
        server.drop(name)


def test_migrations_started_twice_at_once(servers):
    _, server = servers
    name = f"migrations_twice_{os.getpid()}"
    url = server.create(name)
    try:
        threads = [threading.Thread(target=migrate, args=(url,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.query("SELECT version_num FROM alembic_version", database=name) == [("0001",)]
    finally:
        server.drop(name)


@pytest.mark.parametrize("statement, said", [
    ("CREATE TABLE alembic_version (version_num varchar(32)); INSERT INTO alembic_version VALUES ('9999')",
     "at revision 9999, which is not among these migrations: a newer release"),
    ("CREATE TABLE messages (body text)", 'relation "messages" already exists, and these migrations have not made it'),
])
def test_migrations_refuse_a_database_of_others_in_one_line(servers, statement, said):
    _, server = servers
    name = f"migrations_{os.getpid()}"
    url = server.create(name)
    try:
        server.query(statement, database=name)
        done = alembic("upgrade", "head", DATABASE_URL=url)
        assert done.returncode == 1 and said in done.stdout, done.stdout
        assert len([line for line in done.stdout.splitlines() if not line.startswith("INFO ")]) == 1, done.stdout
    finally:
        server.drop(name)


def test_migrations_take_the_url_from_env_file(servers, tmp_path):
    _, server = servers
    name = f"migrations_env_{os.getpid()}"
    url = server.create(name)
    (tmp_path / ".env").write_text(f'# the database\nexport DATABASE_URL="{url}" # here\n')
    try:
        done = alembic("upgrade", "head", folder=tmp_path, configuration=Path(ROOT) / "alembic.ini")
        assert done.returncode == 0, done.stdout
        assert server.query("SELECT count(*) FROM message_types", database=name) == [(3,)]
    finally:
        server.drop(name)


def test_programs_and_migrations_read_one_env_file_alike(servers, tmp_path):
    _, server = servers
    name = f"migrations_expanded_{os.getpid()}"
    server.create(name)
    (tmp_path / ".env").write_text(
        "POSTGRES_USER=postern # who\nexport POSTGRES_PASSWORD='postern'\n"
        f'DATABASE_URL="postgresql://${{POSTGRES_USER}}:$POSTGRES_PASSWORD@${{NO_HOST-127.0.0.1}}:'
        f'${{NO_PORT:-{server.port}}}/{name}?application_name=a$$b\\$"   # where\n')
    try:
        done = alembic("upgrade", "head", folder=tmp_path, configuration=Path(ROOT) / "alembic.ini")
        assert done.returncode == 0, done.stdout
        assert server.query("SELECT count(*) FROM message_types", database=name) == [(3,)]
        shown = run("--check", folder=tmp_path, RABBITMQ_URL="amqp://127.0.0.1")
        assert f'postgresql://postern:***@127.0.0.1:{server.port}/{name}?application_name=a$b$' in shown.stdout, shown
    finally:
        server.drop(name)


@pytest.mark.parametrize("value", [
    "postgresql://127.0.0.1:1/$", "postgresql://127.0.0.1:1/${NOT_SET}", "postgresql://127.0.0.1:1/${X:?no}",
    "postgresql://127.0.0.1:1/${X", '"postgresql://127.0.0.1:1/x', "'postgresql://127.0.0.1:1/x",
    '"postgresql://127.0.0.1:1/x"y', '"postgresql://127.0.0.1:1/\\x"',
])
def test_programs_and_migrations_refuse_the_same_lines(tmp_path, value):
    (tmp_path / ".env").write_text(f"# the database\nDATABASE_URL={value}\n")
    done = alembic("upgrade", "head", folder=tmp_path, configuration=Path(ROOT) / "alembic.ini")
    assert done.returncode == 1 and "alembic: .env:2: " in done.stdout, done.stdout
    done = run("--check", folder=tmp_path, RABBITMQ_URL="amqp://127.0.0.1")
    assert done.returncode == 2 and ".env" in done.stderr, done.stderr


@pytest.mark.parametrize("url, said", [
    ("", "DATABASE_URL is set neither in the environment nor in .env"),
    ("postgresql://127.0.0.1:1/x", "cannot be reached"),
    ("nonsense", "not a URL that libpq understands"),
])
def test_migrations_say_what_is_wrong_in_one_line(tmp_path, url, said):
    done = alembic("upgrade", "head", folder=tmp_path, configuration=Path(ROOT) / "alembic.ini", DATABASE_URL=url)
    assert done.returncode == 1
    line = [line for line in done.stdout.splitlines() if line.startswith("alembic: ")]
    assert len(line) == 1 and said in line[0]
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("url, said", [
    ("postgresql://u:SECRET%@h/d", 'invalid percent-encoded token: "***"'),
    ("postgresql://u:SECRET@[::1/d", 'matching "]" in IPv6 host address in URI: "***"'),
    ('postgresql://u:SECRET"SECRET@[::1/d', 'matching "]" in IPv6 host address in URI: "***"'),
    ("postgresql://u:SECRET@[::1/" + "d" * 500, 'matching "]" in IPv6 host address in URI: "***"'),
    ("postgresql://u:SECRET@SECRET@127.0.0.1:1/d", "in a password, @ is written %40"),
    ("postgresql://u:SECRET/SECRET@127.0.0.1:1/d", "in a password, @ is written %40"),
    ("host=127.0.0.1 password=a SECRET", None),
], ids=["percent", "bracket", "quote", "long", "at", "slash", "no-url"])
def test_neither_shows_the_password_of_a_wrong_url(tmp_path, url, said):
    """`said` is None where the processor and alembic say different things."""
    done = alembic("upgrade", "head", folder=tmp_path, configuration=Path(ROOT) / "alembic.ini", DATABASE_URL=url)
    assert done.returncode == 1 and "alembic: " in done.stdout and (said or "") in done.stdout, done.stdout
    checked = run("--check", folder=tmp_path, RABBITMQ_URL="amqp://127.0.0.1", DATABASE_URL=url)
    assert checked.returncode == 2 and (said or "") in checked.stderr, checked.stderr
    for shown in (done.stdout, checked.stdout, checked.stderr):
        assert "SECRET" not in shown, shown
