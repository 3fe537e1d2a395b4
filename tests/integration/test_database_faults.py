# SPDX-License-Identifier: MIT
"""PostgreSQL is killed, restarted, stopped or empty: messages stay in RabbitMQ, and are stored once when it is back."""

from datetime import datetime

import pytest
from admin import readiness
from clients import Client
from load import Load
from process import free_port, wait_until
from services import migrate

PATIENCE_S = 120


def start(pipeline, processors=1, **settings):
    gateway = pipeline.gateway()
    for _ in range(processors):
        pipeline.processor(**settings)
    pipeline.wait_connected(gateway)
    return gateway


def finish(load, pipeline, in_order=True):
    load.wait_stored(20, PATIENCE_S)
    load.end(PATIENCE_S)
    load.assert_all_rows(pipeline, in_order)


@pytest.mark.short
def test_database_killed_and_restarted(pipeline):
    gateway = start(pipeline)
    load = Load(gateway)
    for _ in range(3):
        load.wait_stored(30, PATIENCE_S)
        pipeline.server.kill9()
        load.wait_sent(20)
        pipeline.server.restart()
    finish(load, pipeline)


def test_database_restarted_in_good_order(pipeline):
    gateway = start(pipeline)
    load = Load(gateway)
    load.wait_stored(30)
    pipeline.server.restart()
    finish(load, pipeline)


def test_database_stopped(pipeline):
    gateway = start(pipeline)
    load = Load(gateway)
    load.wait_stored(30)
    pipeline.server.stop()
    load.wait_sent(200)
    pipeline.server.cont()
    finish(load, pipeline)


def test_sessions_are_ended_by_an_administrator(pipeline):
    gateway = start(pipeline)
    load = Load(gateway)
    for _ in range(5):
        load.wait_stored(20, PATIENCE_S)
        pipeline.server.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                              (pipeline.name,), database="postgres")
    finish(load, pipeline)


def test_database_and_broker_away_with_a_batch_on_its_way(pipeline):
    """The batch is given back after the link it came on is gone: nothing may be left that keeps new ones out."""
    gateway = start(pipeline)
    processor = pipeline.programs[-1]
    load = Load(gateway)
    load.wait_stored(30)
    lock = pipeline.lock_messages()
    load.wait_sent(20)
    pipeline.server.kill9()
    processor.wait_log(event="database_down")
    pipeline.broker.kill9()
    processor.wait_log(PATIENCE_S, event="messages_given_back")
    lock.close()
    pipeline.server.restart()
    pipeline.broker.restart()
    finish(load, pipeline)


def test_a_locked_table_is_waited_for(pipeline):
    gateway = start(pipeline)
    load = Load(gateway)
    load.wait_stored(30)
    lock = pipeline.lock_messages()
    load.wait_sent(100)
    lock.close()
    finish(load, pipeline)


def test_a_batch_that_is_too_slow_is_stored_in_parts(pipeline):
    """Here the trigger says at once what the statement's time limit says after 20 s."""
    pipeline.server.query("""
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF (SELECT count(*) FROM fresh) > 7 THEN
                RAISE EXCEPTION 'canceling statement due to statement timeout' USING ERRCODE = '57014';
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER slow AFTER INSERT ON messages REFERENCING NEW TABLE AS fresh
            FOR EACH STATEMENT EXECUTE FUNCTION slow()""", database=pipeline.name)
    gateway = pipeline.gateway()
    pipeline.wait_connected_to_broker(gateway)
    load = Load(gateway)
    load.wait_sent(100)
    processor = pipeline.processor()
    load.wait_stored(100, PATIENCE_S)
    finish(load, pipeline)
    assert processor.log(event="database_busy") and not processor.log(event="dead_letter")


def test_no_tables_is_named_with_its_remedy(pipeline):
    """And once they are there everything that waited is stored, without a restart."""
    empty = pipeline.name + "_empty"
    url = pipeline.server.create(empty)
    gateway = pipeline.gateway()
    processor = pipeline.processor(DATABASE_URL=url)
    try:
        with Client(gateway.url("dev-7")) as client:
            client.send({"type": "text", "content": 1, "id": "m1"})
            client.expect(status="queued")
            wait_until(lambda: "alembic upgrade head" in processor.log_text(), 60, "a line with the remedy")
            processor.check_alive()
            migrate(url)
            client.expect(PATIENCE_S, status="stored", id="m1")
    finally:
        processor.end()
        pipeline.server.drop(empty)


@pytest.mark.parametrize("what, url", [
    ("password", lambda server, name: server.url(name, password="wrong-one")),
    ("no-such-database", lambda server, name: server.url("no-such-database")),
])
def test_a_login_that_fails_is_named(pipeline, what, url):
    processor = pipeline.processor(DATABASE_URL=url(pipeline.server, pipeline.name))
    wait_until(lambda: what in processor.log_text(), 60, f"a line that names the {what}")
    processor.check_alive()
    assert "wrong-one" not in processor.log_text()


def test_several_processors_side_by_side(pipeline):
    """Stored once; the order between processors is open."""
    gateway = start(pipeline, processors=3)
    load = Load(gateway, clients=10)
    load.wait_stored(100)
    finish(load, pipeline, in_order=False)
    busy = [processor for processor in pipeline.programs[1:] if processor.cpu_s() > 0]
    assert len(busy) == 3


def test_a_processor_dies_in_the_middle(pipeline):
    gateway = start(pipeline, processors=2)
    load = Load(gateway, clients=10)
    for _ in range(3):
        load.wait_stored(30, PATIENCE_S)
        pipeline.programs[-1].kill9()
        pipeline.processor()
    finish(load, pipeline, in_order=False)


def test_a_backlog_is_worked_off(pipeline):
    """What came while no processor ran is stored, and its clients hear of it."""
    gateway = pipeline.gateway()
    with Client(gateway.url("dev-7")) as client:
        for number in range(3000):
            client.send({"type": "text", "content": number, "id": f"m{number}"})
        client.expect(seq=3000, status="queued")
        pipeline.processor()
        client.expect(seq=3000, status="stored")
    assert pipeline.message_ids("dev-7") == [f"m{number}" for number in range(3000)]
    assert wait_until(lambda: pipeline.queue_depth() == 0, 30, "the queue to be empty")


def test_one_poisoned_message_does_not_hold_up_the_rest(pipeline):
    gateway = start(pipeline)
    channel = pipeline.channel()
    with Client(gateway.url("dev-7")) as client:
        for number in range(100):
            client.send_text('{"type":"text","content":"%s","id":"m%d"}' % ("\\u0000" if number == 50 else "x", number))
        channel.basic_publish("", "messages", b"this is no JSON")
        statuses = {}
        while len(statuses) < 100:
            receipt = client.receive()
            if receipt["status"] != "queued":
                statuses[receipt["id"]] = receipt["status"]
    assert statuses.pop("m50") == "dead"
    assert set(statuses.values()) == {"stored"}
    assert pipeline.row_count("dev-7") == 99
    wait_until(lambda: pipeline.queue_depth("messages.dead") == 2, 30, "both in messages.dead")
    bodies = {}
    for _ in range(2):
        _, properties, body = channel.basic_get("messages.dead", auto_ack=True)
        bodies[body] = properties.headers
    assert b"this is no JSON" in bodies
    for headers in bodies.values():
        assert headers["x-postern-reason"] and headers["x-postern-first-failure"]
    channel.connection.close()


def test_each_absence_of_the_database_counts_for_itself(pipeline):
    """Messages go back after five seconds of it, the second time too, also when no message came between the two."""
    processor = pipeline.processor(PROCESSOR_ADMIN_PORT=free_port())
    processor.wait_log(event="consuming")
    for number in range(2):
        pipeline.server.kill9()
        wait_until(lambda many=number: len(processor.log(event="messages_given_back")) > many, 60, "the giving back")
        lost, given_back = (datetime.fromisoformat(processor.log(event=event)[-1]["ts"].replace("Z", "+00:00"))
                            for event in ("database_down", "messages_given_back"))
        assert (given_back - lost).total_seconds() > 4.5
        pipeline.server.start()
        wait_until(lambda: readiness(processor)[0], 60, "it to be ready again")
