# SPDX-License-Identifier: MIT
"""Greeting, receipts, rows, ids and errors, as two independent client libraries see them."""

import json
import re
import time

import pytest
from clients import Client, Silence
from process import wait_until

pytestmark = pytest.mark.short

both_libraries = pytest.mark.parametrize("library", ["websocket", "websockets"])


@both_libraries
def test_greeting(gateway, client_id, library):
    with Client(gateway.url(client_id), library) as client:
        assert client.greeting == {"type": "connected", "message": "Connected", "client_id": client_id,
                                   "heartbeat": 30, "max_message_bytes": 16384}


@both_libraries
def test_queued_then_stored_and_the_row_is_there(shared_pipeline, gateway, client_id, library):
    with Client(gateway.url(client_id), library) as client:
        content = {"t": 21.5, "list": [1, None, True], "text": "Grüße, 世界 🚪"}
        client.send({"type": "text", "content": content, "id": "m1"})
        assert client.receive() == {"type": "receipt", "seq": 1, "id": "m1", "status": "queued"}
        assert client.receive() == {"type": "receipt", "seq": 1, "id": "m1", "status": "stored"}
        # `stored` is true the moment it comes: nothing is waited for here.
        rows = shared_pipeline.query(
            "SELECT message_id, type, content, status, gateway, received_at <= stored_at FROM messages "
            "WHERE client_id = %s", (client_id,))
    assert rows == [("m1", "text", content, "stored", gateway.gateway_id, True)]


def test_a_message_without_id_is_counted_by_seq(shared_pipeline, gateway, client_id):
    with Client(gateway.url(client_id)) as client:
        for seq in (1, 2):
            client.send({"type": "voice", "content": seq})
            assert client.receive() == {"type": "receipt", "seq": seq, "status": "queued"}
            assert client.receive() == {"type": "receipt", "seq": seq, "status": "stored"}
    assert shared_pipeline.row_count(client_id) == 2


@both_libraries
def test_the_same_id_is_stored_once_and_both_get_receipts(shared_pipeline, gateway, client_id, library):
    with Client(gateway.url(client_id), library) as client:
        for seq in (1, 2, 3):
            client.send({"type": "text", "content": seq, "id": "same"})
            client.expect(seq=seq, id="same", status="stored")
    rows = shared_pipeline.query("SELECT content FROM messages WHERE client_id = %s", (client_id,))
    assert rows == [(1,)]


def test_ids_of_different_clients_do_not_meet(shared_pipeline, gateway, client_id):
    for name in (client_id, client_id + "-b"):
        with Client(gateway.url(name)) as client:
            client.store(name, "m1")
        assert shared_pipeline.row_count(name) == 1


def test_order_of_one_client_is_kept(shared_pipeline, gateway, client_id):
    count = 500
    with Client(gateway.url(client_id)) as client:
        for number in range(count):
            client.send({"type": "text", "content": number, "id": f"m{number}"})
        client.expect(seq=count, status="stored")
    assert shared_pipeline.message_ids(client_id) == [f"m{number}" for number in range(count)]


def test_receipts_never_go_backwards(gateway, client_id):
    count = 200
    order = {"queued": 1, "stored": 2}
    level = {}
    with Client(gateway.url(client_id)) as client:
        for _ in range(count):
            client.send({"type": "text", "content": "x"})
        while len(level) < count or min(level.values()) < 2:
            receipt = client.receive()
            assert order[receipt["status"]] == level.get(receipt["seq"], 0) + 1, receipt
            level[receipt["seq"]] = order[receipt["status"]]


def test_content_travels_byte_for_byte(shared_pipeline, gateway, client_id):
    """Into the queue as it was written; the row holds the same value."""
    content = '{"a" :  1.50, "b":[ 1e2 ,-0.0],"c":"\\u00e9\\/é"}'
    with Client(gateway.url(client_id)) as client:
        client.send_text('{"content":' + content + ',"type":"text","extra":{"ignored":true}}')
        client.expect(seq=1, status="stored")
    row = shared_pipeline.query("SELECT content->>'a', content->>'c' FROM messages WHERE client_id = %s", (client_id,))
    assert row == [("1.50", "é/é")]


@pytest.mark.parametrize("content", ["", "x" * 16000, 0, -1.25e10, True, False, None, [], {}, [[[[]]]], "\u001f\"\\"])
def test_any_json_value_is_content(shared_pipeline, gateway, client_id, content):
    with Client(gateway.url(client_id)) as client:
        client.store(content, "m")
    assert shared_pipeline.query("SELECT content FROM messages WHERE client_id = %s", (client_id,)) == [(content,)]


@pytest.mark.parametrize("query, statuses", [
    ("?receipts=queued", ["queued"]),
    ("?receipts=stored", ["stored"]),
    ("?receipts=queued,stored", ["queued", "stored"]),
    ("?receipts=accepted,queued,stored", ["queued", "stored"]),
    ("?receipts=accepted", []),
    ("?receipts=none", []),
    ("?other=1", ["queued", "stored"]),
])
def test_a_client_chooses_its_receipts(shared_pipeline, gateway, client_id, query, statuses):
    with Client(gateway.url(client_id, query)) as client:
        client.send({"type": "text", "content": 1, "id": "m"})
        for status in statuses:
            assert client.receive()["status"] == status
        wait_until(lambda: shared_pipeline.row_count(client_id) == 1, 60, "the row")
        client.send({"type": "ping"})
        assert client.receive() == {"type": "pong"}  # and no other receipt in between


def test_rejected_and_dead_come_whatever_was_chosen(gateway, client_id):
    with Client(gateway.url(client_id, "?receipts=none")) as client:
        client.send_text('{"type":"text","content":"\\u0000","id":"nul"}')
        receipt = client.receive()
        assert (receipt["status"], receipt["id"], receipt["seq"]) == ("dead", "nul", 1)


def test_a_wrong_choice_of_receipts_is_refused(gateway, client_id):
    from clients import RawClient
    with RawClient(gateway.url(client_id, "?receipts=all")) as raw:
        raw.send(raw.request())
        assert raw.status()[0] == 400


def test_ping_is_answered_and_pong_is_taken(gateway, client_id):
    with Client(gateway.url(client_id)) as client:
        client.send({"type": "pong"})
        client.send({"type": "ping"})
        assert client.receive() == {"type": "pong"}


ERRORS = [
    ("{", "bad_json"),
    ("", "bad_json"),
    ("nonsense", "bad_json"),
    ('{"type":"text","content":1,}', "bad_json"),
    ('{"type":"text","content":01}', "bad_json"),
    ('{"type":"text","content":"\\ud800"}', "bad_json"),
    ('{"type":"text","content":1} x', "bad_json"),
    ('{"type":"text","type":"text","content":1}', "bad_json"),
    ('{"type":"text","content":' + "[" * 40 + "]" * 40 + "}", "bad_json"),
    ("[1]", "bad_message"),
    ('"text"', "bad_message"),
    ('{"content":1}', "bad_type"),
    ('{"type":7,"content":1}', "bad_type"),
    ('{"type":"Text","content":1}', "bad_type"),
    ('{"type":"","content":1}', "bad_type"),
    ('{"type":"' + "t" * 33 + '","content":1}', "bad_type"),
    ('{"type":"text"}', "bad_content"),
    ('{"type":"text","content":1,"id":7}', "bad_id"),
    ('{"type":"text","content":1,"id":""}', "bad_id"),
    ('{"type":"text","content":1,"id":"a\\"b"}', "bad_id"),
    ('{"type":"text","content":1,"id":"' + "i" * 65 + '"}', "bad_id"),
    ('{"type":"smell","content":1,"id":"m1"}', "unknown_type"),
]


@pytest.mark.parametrize("text, code", ERRORS)
def test_errors_say_their_code_and_the_connection_stays(gateway, client_id, text, code):
    with Client(gateway.url(client_id)) as client:
        client.send_text(text)
        error = client.receive()
        assert (error["type"], error["seq"], error["code"]) == ("error", 1, code), error
        assert re.search(r"\w+ \w+", error["error"]), "a sentence for a person"
        assert gateway.wait_log(event="message_refused", client=client_id, code=code)["reason"] == error["error"]
        if code == "unknown_type":
            assert error["id"] == "m1"
        client.store("still here")


def test_ten_errors_in_a_minute_close(gateway, client_id):
    client = Client(gateway.url(client_id))
    for seq in range(1, 11):
        client.send_text("{")
    for seq in range(1, 11):
        assert client.receive()["seq"] == seq
    assert client.expect_close().code == 1008


def test_nine_errors_do_not_close(gateway, client_id):
    with Client(gateway.url(client_id)) as client:
        for _ in range(9):
            client.send_text("{")
        for _ in range(9):
            assert client.receive()["code"] == "bad_json"
        client.store("still here")


def test_the_largest_message_and_one_byte_more(gateway, client_id):
    start, end = '{"type":"text","content":"', '"}'
    content = "x" * (16384 - len(start) - len(end))
    with Client(gateway.url(client_id)) as client:
        client.send_text(start + content + end)
        client.expect(seq=1, status="stored")
    client = Client(gateway.url(client_id))
    client.send_text(start + content + "x" + end)
    assert client.expect_close().code == 1009


def test_what_the_queue_holds(pipeline):
    """Body and properties, as a consumer of its own sees them: no processor runs here."""
    gateway = pipeline.gateway(GATEWAY_ID="gw-q")
    before = time.time()
    with Client(gateway.url("dev-7")) as client:
        client.send_text('{"type":"text", "content": {"a": 1.0} ,"id":"m1"}')
        client.send_text('{"type":"video","content":"v"}')
        client.expect(seq=2, status="queued")
    channel = pipeline.channel()
    method, properties, body = channel.basic_get("messages", auto_ack=True)
    assert method.exchange == "" and method.routing_key == "messages"
    start = b'{"client_id":"dev-7","type":"text","content":{"a": 1.0},"id":"m1","gateway":"gw-q","received_at":"'
    assert body.startswith(start), body
    assert re.fullmatch(rb'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"}', body[len(start):]), body
    assert properties.message_id == "dev-7:m1"
    assert (properties.type, properties.content_type, properties.app_id) == ("text", "application/json", "postern")
    assert (properties.reply_to, properties.delivery_mode) == ("gateway.gw-q", 2)
    assert before - 2 <= properties.timestamp <= time.time() + 2
    assert properties.correlation_id

    _, properties, body = channel.basic_get("messages", auto_ack=True)
    assert "id" not in json.loads(body)
    assert properties.message_id.startswith("dev-7:gw-q-")
    channel.connection.close()


def test_routes_lead_types_to_queues(pipeline):
    gateway = pipeline.gateway(ROUTES="text -> messages; alarm,fire -> alarms; * -> rest")
    with Client(gateway.url("dev-7")) as client:
        for seq, kind in enumerate(["text", "alarm", "fire", "anything"], 1):
            client.send({"type": kind, "content": kind})
            client.expect(seq=seq, status="queued")
    assert pipeline.queue_depth("messages") == 1
    assert pipeline.queue_depth("alarms") == 2
    assert pipeline.queue_depth("rest") == 1


def test_a_receipt_follows_the_client_to_its_next_connection(pipeline):
    """A message stored after its client came back: the present connection hears of it, with id and without seq."""
    gateway = pipeline.gateway()
    client = Client(gateway.url("dev-7"))
    client.send({"type": "text", "content": 1, "id": "m1"})
    client.expect(status="queued")
    client.close()
    with Client(gateway.url("dev-7")) as client:
        pipeline.processor()
        assert client.receive() == {"type": "receipt", "id": "m1", "status": "stored"}
        try:
            raise AssertionError(f"more than was asked for: {client.receive(0.3)}")
        except Silence:
            pass


def test_outside_hours_is_rejected_and_kept(pipeline):
    pipeline.query("UPDATE message_types SET accepts_from = (now() AT TIME ZONE 'UTC' + interval '2 hours')::time, "
                   "accepts_until = (now() AT TIME ZONE 'UTC' + interval '3 hours')::time WHERE type = 'voice'")
    gateway = pipeline.gateway()
    pipeline.processor()
    with Client(gateway.url("dev-7")) as client:
        client.send({"type": "voice", "content": "late", "id": "m1"})
        client.expect(status="queued")
        receipt = client.receive()
        assert (receipt["status"], receipt["reason"], receipt["id"]) == ("rejected", "outside_hours", "m1")
        assert receipt["code"]
        client.send({"type": "text", "content": "in time", "id": "m2"})
        client.expect(seq=2, status="stored")
    assert pipeline.query("SELECT message_id, status FROM messages ORDER BY message_id") == [
        ("m1", "rejected"), ("m2", "stored")]
