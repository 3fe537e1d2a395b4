# SPDX-License-Identifier: MIT
"""RabbitMQ is killed, restarted, stopped, out of memory, or not as expected: nothing is lost, stored twice, or out of
order, and the clients stay connected."""

import time

import pytest
from clients import Client
from load import Load
from process import wait_until

PATIENCE_S = 120


@pytest.fixture(params=["quorum", "classic"])
def queue_type(request):
    return request.param


def start(pipeline, **settings):
    gateway = pipeline.gateway(AMQP_HEARTBEAT="2", **settings)
    queue_type = {key: value for key, value in settings.items() if key == "QUEUE_TYPE"}
    pipeline.processor(AMQP_HEARTBEAT="5", **queue_type)
    pipeline.wait_connected(gateway)
    return gateway


def finish(load, pipeline):
    load.wait_stored(20, PATIENCE_S)
    load.end(PATIENCE_S)
    load.assert_all_rows(pipeline)


@pytest.mark.short
def test_broker_killed_and_restarted(pipeline, queue_type):
    gateway = start(pipeline, QUEUE_TYPE=queue_type)
    load = Load(gateway)
    load.wait_stored(50)
    pipeline.broker.kill9()
    load.wait_sent(20)
    pipeline.broker.restart()
    finish(load, pipeline)


def test_broker_restarted_in_good_order(pipeline):
    gateway = start(pipeline)
    load = Load(gateway)
    load.wait_stored(50)
    pipeline.broker.restart()
    finish(load, pipeline)


def test_broker_stopped_until_it_is_noticed(pipeline):
    """SIGSTOP: connections stay open and nothing comes. Both programs must notice by their heartbeats."""
    gateway = start(pipeline)
    load = Load(gateway)
    load.wait_stored(50)
    told = {program: len(program.log(level="warn")) for program in pipeline.programs}
    pipeline.broker.stop()
    for program, before in told.items():
        wait_until(lambda: len(program.log(level="warn")) > before, 60, f"{program.name} to notice")
    load.wait_sent(20)
    pipeline.broker.cont()
    finish(load, pipeline)


def test_broker_stopped_for_a_moment(pipeline):
    gateway = start(pipeline)
    load = Load(gateway)
    for _ in range(5):
        load.wait_stored(10)
        pipeline.broker.stop()
        time.sleep(0.5)
        pipeline.broker.cont()
    finish(load, pipeline)


def test_memory_alarm_without_a_spool(pipeline):
    """RabbitMQ says connection.blocked and reads nothing: messages wait in the outbox, clients hear busy."""
    gateway = start(pipeline, OUTBOX_MESSAGES="256", PUBLISH_WINDOW="128", SPOOL_MAX_BYTES="0")
    load = Load(gateway)
    load.wait_stored(50)
    pipeline.broker.memory_alarm(True)
    wait_until(lambda: all(sender.busy_count for sender in load.senders), 60, "every client to be told busy")
    assert pipeline.broker.channel(pipeline.vhost).connection.is_open
    pipeline.broker.memory_alarm(False)
    finish(load, pipeline)


def test_connections_are_cut_again_and_again(pipeline):
    gateway = start(pipeline)
    load = Load(gateway)
    for _ in range(6):
        load.wait_stored(20, PATIENCE_S)
        for connection in pipeline.broker.api("GET", f"/vhosts/{pipeline.vhost}/connections"):
            try:
                pipeline.broker.api("DELETE", f"/connections/{connection['name'].replace(' ', '%20')}")
            except Exception:  # pylint: disable=broad-except
                pass  # it has gone by itself
    finish(load, pipeline)


def test_the_next_broker_of_the_list_is_taken(pipeline):
    """The first one does not exist."""
    gateway = pipeline.gateway(RABBITMQ_URL=f"amqp://guest:guest@127.0.0.1:9/%2F,{pipeline.rabbitmq_url}")
    pipeline.processor(RABBITMQ_URL=f"amqp://guest:guest@127.0.0.1:9/%2F,{pipeline.rabbitmq_url}")
    with Client(gateway.url("dev-7")) as client:
        client.store()


def test_a_wrong_password_is_named_with_its_remedy(pipeline):
    url = pipeline.broker.url(pipeline.vhost, password="wrong-one")
    for program in (pipeline.gateway(RABBITMQ_URL=url), pipeline.processor(RABBITMQ_URL=url)):
        def said():
            return [line for line in program.log_text().splitlines() if "RABBITMQ_URL" in line]
        line = wait_until(said, 60, "a line that names RABBITMQ_URL")[0]
        assert "refused" in line.lower() and "wrong-one" not in line, line
        assert "wrong-one" not in program.log_text()
        program.check_alive()


def test_a_vhost_that_does_not_exist_is_named(pipeline):
    gateway = pipeline.gateway(RABBITMQ_URL=pipeline.broker.url("no-such-vhost"))
    wait_until(lambda: "no-such-vhost" in gateway.log_text(), 60, "a line that names the vhost")
    gateway.check_alive()


@pytest.mark.parametrize("arguments", [{}, {"x-max-length": 100000}, {"x-queue-type": "classic", "x-max-priority": 3}])
def test_an_existing_queue_is_used_as_it_is(pipeline, arguments):
    channel = pipeline.channel()
    channel.queue_declare("messages", durable=True, arguments=arguments)
    channel.connection.close()
    gateway = pipeline.gateway()
    pipeline.processor()
    with Client(gateway.url("dev-7")) as client:
        client.store()


def test_an_exchange_of_another_type_is_named_with_its_remedy(pipeline):
    channel = pipeline.channel()
    channel.exchange_declare("postern.downlink", "direct", durable=True)
    gateway = pipeline.gateway()
    wait_until(lambda: "postern.downlink" in gateway.log_text(), 60, "a line that names the exchange")
    with Client(gateway.url("dev-7")) as client:  # and messages still go up
        client.send({"type": "text", "content": 1})
        client.expect(status="queued")
    channel.exchange_delete("postern.downlink")
    channel.connection.close()
    gateway.wait_log(PATIENCE_S, event="downlink_up")
    pipeline.processor()
    with Client(gateway.url("dev-8")) as client:  # and receipts come down once it is gone
        client.store()


def test_a_deleted_queue_is_declared_anew(pipeline):
    gateway = pipeline.gateway()
    with Client(gateway.url("dev-7")) as client:
        client.send({"type": "text", "content": 1})
        client.expect(seq=1, status="queued")
        channel = pipeline.channel()
        channel.queue_delete("messages")
        channel.connection.close()
        client.send({"type": "text", "content": 2})
        client.expect(seq=2, status="queued")  # never for a message that went nowhere
    assert pipeline.queue_depth() == 1


def test_a_full_queue_that_refuses_is_retried_until_there_is_room(pipeline):
    """x-overflow=reject-publish: RabbitMQ answers with nacks."""
    channel = pipeline.channel()
    channel.queue_declare("messages", durable=True, arguments={"x-max-length": 10, "x-overflow": "reject-publish"})
    gateway = pipeline.gateway()
    with Client(gateway.url("dev-7")) as client:
        for number in range(30):
            client.send({"type": "text", "content": number, "id": f"m{number}"})
        client.expect(seq=1, status="queued")
        wait_until(lambda: pipeline.queue_depth() >= 10, 30, "the queue to be full")
        pipeline.processor()
        client.expect(PATIENCE_S, seq=30, status="stored")
    assert pipeline.message_ids("dev-7") == [f"m{number}" for number in range(30)]
    channel.connection.close()


def test_what_was_queued_survives_the_gateways_sudden_death(pipeline):
    gateway = start(pipeline)
    load = Load(gateway)
    load.wait_stored(50)
    gateway.kill9()
    told = {sender.name: set(sender.queued) | sender.stored for sender in load.senders}
    for name, ids in told.items():
        wait_until(lambda: ids <= set(pipeline.message_ids(name)), 60, f"every queued message of {name}")
    # A new one with the same name takes over its queue and its clients at once.
    again = pipeline.gateway(GATEWAY_ID=gateway.gateway_id)
    with Client(again.url("dev-0")) as client:
        client.store()
