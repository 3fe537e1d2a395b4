# SPDX-License-Identifier: MIT
"""From a backend to a client, over the exchange postern.downlink."""

import json

import pika
import pytest
from clients import Client, RawClient
from process import wait_until

EXCHANGE = "postern.downlink"


def publish(channel, client_id, body, mandatory=True):
    """True when the broker had a queue for it."""
    channel.confirm_delivery()
    try:
        channel.basic_publish(EXCHANGE, f"client.{client_id}", body, mandatory=mandatory)
        return True
    except pika.exceptions.UnroutableError:
        return False


@pytest.fixture
def backend(shared_pipeline):
    channel = shared_pipeline.channel()
    yield channel
    channel.connection.close()


@pytest.mark.short
@pytest.mark.parametrize("library", ["websocket", "websockets"])
def test_a_backend_reaches_a_connected_client(gateway, backend, client_id, library):
    body = '{"type": "command",  "do":["open", "Tür"]}'
    with Client(gateway.url(client_id), library) as client:
        wait_until(lambda: publish(backend, client_id, body.encode()), 60, "the client's binding")
        assert client.receive_text() == body  # as is, blanks and all


def test_mandatory_tells_when_no_gateway_has_the_client(gateway, backend, client_id):
    assert not publish(backend, client_id, b"{}")
    with Client(gateway.url(client_id)) as client:
        wait_until(lambda: publish(backend, client_id, b'{"n":1}'), 60, "the client's binding")
        assert client.receive() == {"n": 1}
    wait_until(lambda: not publish(backend, client_id, b'{"n":2}'), 60, "the binding to be gone")


def test_messages_come_in_order_and_once(gateway, backend, client_id):
    count = 1000
    with Client(gateway.url(client_id)) as client:
        wait_until(lambda: publish(backend, client_id, b'{"n":-1}'), 60, "the client's binding")
        assert client.receive() == {"n": -1}
        for number in range(count):
            backend.basic_publish(EXCHANGE, f"client.{client_id}", json.dumps({"n": number}).encode(), mandatory=True)
        assert [client.receive()["n"] for _ in range(count)] == list(range(count))


def test_only_the_named_client_hears_it(gateway, backend, client_id):
    with Client(gateway.url(client_id)) as client, Client(gateway.url(client_id + "-b")) as other:
        wait_until(lambda: publish(backend, client_id, b'{"n":1}'), 60, "the client's binding")
        assert client.receive() == {"n": 1}
        other.send({"type": "ping"})
        assert other.receive() == {"type": "pong"}


def test_a_client_that_comes_back_hears_again(gateway, backend, client_id):
    for number in range(5):
        with Client(gateway.url(client_id)) as client:
            wait_until(lambda: publish(backend, client_id, b'{"n":1}'), 60, "the client's binding")
            assert client.receive() == {"n": 1}


@pytest.mark.parametrize("body", [b"not json", b"", b"[1]", b'{"a":"\xff"}', b'{"x":"' + b"x" * 200000 + b'"}'])
def test_what_is_no_json_object_goes_to_nobody(gateway, backend, client_id, bystander, body):
    with Client(gateway.url(client_id)) as client:
        wait_until(lambda: publish(backend, client_id, b'{"n":1}'), 60, "the client's binding")
        assert client.receive() == {"n": 1}
        publish(backend, client_id, body)
        assert publish(backend, client_id, b'{"n":2}')
        assert client.receive() == {"n": 2}
    bystander.wait_rounds(3)


@pytest.mark.parametrize("body", [b"not json", b'{"receipts":7}', b'{"receipts":[{"client_id":"nobody"}]}',
                                  b'{"receipts":[{"client_id":"nobody","ref":"???","status":"stored"}]}'])
def test_receipts_that_are_none_harm_nobody(gateway, backend, bystander, body):
    backend.basic_publish(EXCHANGE, f"gateway.{gateway.gateway_id}", body,
                          pika.BasicProperties(type="receipts", content_type="application/json"))
    bystander.wait_rounds(5)


def test_a_client_that_does_not_read_is_closed_and_nobody_else_waits(gateway, backend, client_id, bystander):
    slow = RawClient(gateway.url(client_id), receive_buffer=4096).open()
    slow.read_frame()
    wait_until(lambda: publish(backend, client_id, b'{"n":1}'), 60, "the client's binding")
    body = json.dumps({"fill": "x" * 8000}).encode()
    backend.confirm_delivery()

    def slow_is_closed():
        for _ in range(50):
            backend.basic_publish(EXCHANGE, f"client.{client_id}", body)
        return gateway.log(event="client_closed", client=client_id)
    assert wait_until(slow_is_closed, 60, "the slow client to be closed", 0.1)[0]["code"] == "1008"
    assert gateway.log(event="client_slow", client=client_id)
    bystander.wait_rounds(5)
    slow.close()


def chunks_used(gateway):
    """How much of the memory for unread answers is lent now."""
    before = len(gateway.log(event="memory_used"))
    gateway.hang_up()
    return int(wait_until(lambda: gateway.log(event="memory_used")[before:], 30, "memory_used")[0]["chunks_used"])


def test_memory_lent_to_those_who_do_not_read_comes_back(pipeline):
    """Their queues together are more than there is: the one that holds the most pays, and nobody else."""
    gateway = pipeline.gateway(SEND_QUEUE_BYTES="4M", MAX_CONNECTIONS="10", HEARTBEAT_TIMEOUT="600")
    pipeline.processor()
    bystander = pipeline.bystander(gateway)
    channel = pipeline.channel()
    names = ["deaf-1", "deaf-2"]
    deaf = [RawClient(gateway.url(name), receive_buffer=4096).open() for name in names]
    for name in names:
        wait_until(lambda: publish(channel, name, b'{"n":1}'), 60, "the client's binding")
    body = json.dumps({"fill": "x" * 16000}).encode()

    def fill(name):
        for _ in range(10):
            channel.basic_publish(EXCHANGE, f"client.{name}", body)
        return True
    # More than half for the first; the rest, and what is not there any more, for the second.
    wait_until(lambda: fill("deaf-1") and chunks_used(gateway) > 2500, 120, "the first one's queue to be long", 0)
    full = wait_until(lambda: fill("deaf-2") and gateway.log(event="send_memory_full"), 120, "no memory to be left", 0)[0]
    assert full["client"] == "deaf-1" and full["cause"] and full["remedy"], full
    assert gateway.wait_log(event="client_closed", client="deaf-1")["cause"] == "slow"
    bystander.wait_rounds(5)
    assert not gateway.log(event="client_closed", client="deaf-2")
    for raw in deaf:
        raw.close()
    channel.connection.close()
