# SPDX-License-Identifier: MIT
"""Which clients the broker believes to be at a gateway, whatever happened in between."""

import json

import pika
from admin import readiness
from clients import Client
from process import free_port, wait_until


def routed(channel, client_id, body=b'{"n":1}'):
    """Publishes to a client; False when no gateway is bound for it."""
    try:
        channel.basic_publish("postern.downlink", f"client.{client_id}", body, mandatory=True)
        return True
    except pika.exceptions.UnroutableError:
        return False


def wait_settled(pipeline, gateway_id):
    """Until the gateway has acknowledged all it was handed: what it had not would come again after its death."""
    wait_until(lambda: pipeline.broker.queue_held(f"postern.gateway.{gateway_id}", pipeline.vhost) == 0, 30,
               "the gateway's acknowledgements")


def open_backend(pipeline):
    channel = pipeline.channel()
    channel.exchange_declare("postern.downlink", "topic", durable=True)
    channel.confirm_delivery()
    return channel


def test_a_binding_left_over_goes_with_its_first_message(pipeline):
    gateway = pipeline.gateway(GATEWAY_ID="box")
    backend = open_backend(pipeline)
    client = Client(gateway.url("dev-7"))
    wait_until(lambda: routed(backend, "dev-7"), 60, "the client's binding")
    assert client.receive() == {"n": 1}
    wait_settled(pipeline, "box")
    gateway.kill9()
    pipeline.programs.remove(gateway)
    again = pipeline.gateway(GATEWAY_ID="box")
    again.wait_log(event="downlink_up")
    assert routed(backend, "dev-7"), "the queue and its binding outlive the gateway"
    again.wait_log(event="downlink_client_absent", client="dev-7")
    wait_until(lambda: not routed(backend, "dev-7"), 60, "the binding to go")
    with Client(again.url("dev-7")) as back:
        wait_until(lambda: routed(backend, "dev-7", b'{"n":2}'), 60, "the binding to come back")
        assert back.receive() == {"n": 2}
    backend.connection.close()


def test_what_waited_for_a_gateway_finds_the_clients_that_come_back(pipeline):
    gateway = pipeline.gateway(GATEWAY_ID="box")
    backend = open_backend(pipeline)
    client = Client(gateway.url("dev-7"))
    wait_until(lambda: routed(backend, "dev-7"), 60, "the client's binding")
    assert client.receive() == {"n": 1}
    wait_settled(pipeline, "box")
    gateway.kill9()
    pipeline.programs.remove(gateway)
    assert routed(backend, "dev-7", b'{"n":2}'), "the queue and its binding outlive the gateway"
    again = pipeline.gateway(GATEWAY_ID="box")
    with Client(again.url("somebody-else")), Client(again.url("dev-7")) as back:
        assert back.receive() == {"n": 2}
    assert not again.log(event="downlink_client_absent")
    backend.connection.close()


def test_the_queue_is_what_the_protocol_says(pipeline):
    gateway = pipeline.gateway(GATEWAY_ID="box")
    gateway.wait_log(event="downlink_up")
    names = ("name", "type", "durable", "exclusive", "auto_delete", "arguments")
    queues = json.loads(pipeline.broker.ctl("list_queues", "-p", pipeline.vhost, "--formatter", "json", *names))
    queue = next(queue for queue in queues if queue["name"] == "postern.gateway.box")
    assert queue["type"] == "classic" and queue["durable"] and not queue["exclusive"] and not queue["auto_delete"]
    arguments = {name: value for name, _, value in queue["arguments"]}
    assert arguments == {"x-queue-type": "classic", "x-expires": 3600000, "x-message-ttl": 3600000,
                         "x-max-length": 100000, "x-overflow": "drop-head"}
    consumers = json.loads(pipeline.broker.ctl("list_consumers", "-p", pipeline.vhost, "--formatter", "json",
                                               "queue_name", "consumer_tag", "ack_required", "prefetch_count"))
    assert consumers == [{"queue_name": "postern.gateway.box", "consumer_tag": "downlink", "ack_required": True,
                          "prefetch_count": 100}]


def test_all_are_bound_again_after_the_broker_was_away(pipeline):
    gateway = pipeline.gateway(HEARTBEAT_INTERVAL="600")  # these clients answer only while they wait for something
    clients = {f"dev-{number}": Client(gateway.url(f"dev-{number}")) for number in range(100)}
    pipeline.wait_connected_to_broker(gateway)
    pipeline.broker.kill9()
    gone = clients.pop("dev-0")
    gone.close()
    pipeline.broker.restart()
    # A RabbitMQ that was killed needs a while for what it has on the disk, and may let go of a link meanwhile.
    wait_until(lambda: len(gateway.log(event="downlink_up")) >= 2, 150, "the downlink to be up again")
    backend = open_backend(pipeline)
    for name, client in clients.items():
        wait_until(lambda: routed(backend, name), 60, f"the binding of {name}")
        assert client.receive() == {"n": 1}
        client.close()
    wait_until(lambda: not routed(backend, "dev-0"), 60, "the binding of the one who left to go")
    backend.connection.close()


def test_takeover_keeps_the_binding(pipeline):
    gateway = pipeline.gateway(SESSION_POLICY="takeover")
    backend = open_backend(pipeline)
    first = Client(gateway.url("dev-7"))
    wait_until(lambda: routed(backend, "dev-7"), 60, "the client's binding")
    assert first.receive() == {"n": 1}
    for _ in range(5):
        second = Client(gateway.url("dev-7"))
        assert routed(backend, "dev-7", b'{"n":2}'), "there was a moment without a binding"
        assert second.receive() == {"n": 2}
        first.drop()
        first = second
    first.close()
    wait_until(lambda: not routed(backend, "dev-7"), 60, "the binding to go")
    backend.connection.close()


def test_many_come_and_go_and_the_last_word_counts(pipeline):
    gateway = pipeline.gateway(HEARTBEAT_INTERVAL="600")  # these clients answer only while they wait for something
    gateway.wait_log(event="downlink_up")
    backend = open_backend(pipeline)
    for _ in range(3):
        clients = [Client(gateway.url(f"dev-{number}")) for number in range(80)]
        for client in clients:
            client.close()
    stay = [Client(gateway.url(f"dev-{number}")) for number in range(40)]
    for number, client in enumerate(stay):
        wait_until(lambda: routed(backend, f"dev-{number}"), 60, f"the binding of dev-{number}")
        assert client.receive() == {"n": 1}
    for number in range(40, 80):
        wait_until(lambda: not routed(backend, f"dev-{number}"), 60, f"the binding of dev-{number} to go")
    for client in stay:
        client.close()
    backend.connection.close()


def test_two_gateways_with_one_id_are_told(pipeline):
    first = pipeline.gateway(GATEWAY_ID="box", AMQP_HEARTBEAT="1", ADMIN_PORT=free_port())
    first.wait_log(event="downlink_up")
    second = pipeline.gateway(GATEWAY_ID="box", AMQP_HEARTBEAT="1", ADMIN_PORT=free_port())
    for gateway in (first, second):
        told = gateway.wait_log(60, event="gateway_id_shared")
        assert told["level"] == "warn" and told["consumers"] == "2" and "GATEWAY_ID" in told["remedy"]
        wait_until(lambda: "gateway_id_shared" in readiness(gateway)[2], 60, "the page to say so")
    second.end()
    wait_until(lambda: "gateway_id_shared" not in readiness(first)[2], 60, "the first to be alone again")
    # Said once; a gateway that lost its link, because the machine stood still, was alone meanwhile for the other one.
    losses = sum(len(gateway.log(event="amqp_lost")) for gateway in (first, second))
    assert 1 <= len(first.log(event="gateway_id_shared")) <= 1 + losses
