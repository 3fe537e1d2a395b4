# SPDX-License-Identifier: MIT
"""Health, readiness and metrics: true, documented, and never in the clients' way."""

import json
import re
import signal
import socket
import threading
import time

import pytest
from admin import Metrics, fetch, readiness
from clients import Client, Closed
from process import free_port, wait_until
from programs import ROOT
from test_bindings import open_backend, routed
from test_operations import run_program


def gateway_with_pages(pipeline, **settings):
    return pipeline.gateway(ADMIN_PORT=free_port(), **settings)


def processor_with_pages(pipeline, **settings):
    processor = pipeline.processor(PROCESSOR_ADMIN_PORT=free_port(), **settings)
    processor.wait_log(event="admin_listening")
    return processor


def wait_codes(program, kind, *codes):
    """Waits until /readyz names these reasons (kind 1) or warnings (kind 2); returns the whole answer."""
    def look():
        answer = readiness(program)
        return answer if set(codes) <= set(answer[kind]) else None
    return wait_until(look, 60, f"{codes} from {program.name}")


def documented():
    """doc/metrics.md: {section: {name: (type, {label: set of values}, meaning)}}"""
    sections = {}
    for title, body in re.findall(r"^### (.+?)\n(.*?)(?=^### |\Z)", (ROOT / "doc/metrics.md").read_text("utf-8"),
                                  re.M | re.S):
        rows = sections.setdefault(title, {})
        for name, kind, labels, meaning in re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", body, re.M):
            words = (re.findall(r"`([^`]+)`", label) for label in labels.split(";"))
            rows[name] = kind, {label[0]: set(label[1:]) for label in words if label}, meaning
    return sections


def said(metrics):
    """The same out of what a program says; labels whose values are the user's or fixed by their kind have none."""
    rows = {}
    for name, family in metrics.families.items():
        labels = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label != "le":
                    labels.setdefault(label, set()).add(value)
        for label in {"program", "version", "route"} & set(labels):
            labels[label] = set()
        rows[name] = family.type, labels, family.documentation
    return rows


@pytest.mark.short
def test_metrics_are_valid_and_all_of_them_documented(pipeline):
    gateway = gateway_with_pages(pipeline)
    processor = processor_with_pages(pipeline)
    pipeline.wait_connected(gateway)
    sections = documented()
    for program, title in ((gateway, "The gateway"), (processor, "The processor")):
        metrics = Metrics(program)
        metrics.check()
        rows = said(metrics)
        assert rows == {**sections["Both programs"], **sections[title]}


@pytest.mark.short
def test_metrics_count_what_happens(pipeline):
    gateway = gateway_with_pages(pipeline, ROUTES="text -> messages; rare -> rare-messages", MAX_CONNECTIONS="2")
    processor = processor_with_pages(pipeline)
    wait_until(lambda: readiness(gateway) == (True, [], []), 60, "a gateway that lacks nothing")
    with Client(gateway.url("dev-7")) as client:
        for number in range(20):
            client.store(number, f"m{number}")
        client.store("again", "m3")
        client.send({"type": "text", "content": "\0", "id": "nul"})
        client.expect(id="nul", status="dead")
        client.send({"type": "rare", "content": 1})
        client.expect(status="queued", seq=23)
        for wrong in ("{", "[]", '{"type":"none","content":1}', '{"type":"text"}'):
            client.send_text(wrong)
            client.expect(type="error")
        refused = Client(gateway.url("dev-7"), greet=False)
        assert refused.expect_close().code == 4009
        with Client(gateway.url("dev-8")):
            assert Client(gateway.url("dev-9"), greet=False).expect_close().code == 1013
        backend = open_backend(pipeline)
        wait_until(lambda: routed(backend, "dev-7", b'{"hello":1}'), 60, "the client's binding")
        client.expect(hello=1)
        assert fetch(f"http://127.0.0.1:{gateway.port}/dev-1")[0] == 426
        seen = Metrics(gateway)
        assert seen["postern_connections"] == 1 and seen["postern_connections_max"] == 2
        assert seen["postern_connections_peak"] == 2
    assert seen["postern_messages_received_total"] == 27
    for stage, count in (("taken", 22), ("queued", 22), ("dropped", 0)):
        assert seen["postern_messages_total", {"route": "messages", "stage": stage}] == count
    assert seen["postern_messages_total", {"route": "rare-messages", "stage": "queued"}] == 1
    assert {code: seen["postern_bad_messages_total", {"code": code}]
            for code in ("bad_json", "bad_message", "unknown_type", "bad_content", "bad_id")} == {
                "bad_json": 1, "bad_message": 1, "unknown_type": 1, "bad_content": 1, "bad_id": 0}
    for reason in ("already_connected", "max_connections", "not_websocket"):
        assert seen["postern_refusals_total", {"reason": reason}] == 1
    assert {status: seen["postern_receipts_total", {"status": status}] for status in ("queued", "stored", "dead")} == {
        "queued": 23, "stored": 21, "dead": 1}
    assert seen["postern_downlink_messages_total", {"outcome": "delivered"}] == 1
    assert seen["postern_outbox_messages"] == 0 and seen["postern_outbox_oldest_seconds"] == 0
    assert seen["postern_loop_turn_seconds_count"] > 0 and seen["postern_ready"] == 1

    stored = Metrics(processor)
    assert {outcome: stored["postern_rows_total", {"outcome": outcome}]
            for outcome in ("stored", "repeated", "rejected")} == {"stored": 20, "repeated": 1, "rejected": 0}
    assert stored["postern_batch_rows_sum"] == 21 and stored["postern_insert_seconds_count"] >= 1
    assert stored["postern_lag_seconds_count"] == 21
    assert stored["postern_dead_letters_total", {"reason": "nul_content"}] == 1
    assert stored["postern_receipts_total", {"status": "stored"}] == 21
    assert stored["postern_database_up"] == 1 and stored["postern_intake_messages"] == 0


def test_rows_outside_their_hours_are_counted_apart(pipeline):
    pipeline.query("UPDATE message_types SET accepts_from = '00:00', accepts_until = '00:00' WHERE type = 'voice'")
    gateway = gateway_with_pages(pipeline)
    processor = processor_with_pages(pipeline)
    with Client(gateway.url("dev-7")) as client:
        client.store("x")
        client.send({"type": "voice", "content": "x", "id": "late"})
        client.expect(id="late", status="rejected")
    stored = Metrics(processor)
    assert stored["postern_rows_total", {"outcome": "rejected"}] == 1
    assert stored["postern_rows_total", {"outcome": "stored"}] == 1
    assert stored["postern_receipts_total", {"status": "rejected"}] == 1


def test_the_pages(pipeline):
    gateway = gateway_with_pages(pipeline)
    processor = processor_with_pages(pipeline)
    for program in (gateway, processor):
        assert fetch(program.admin_url("/healthz"))[::2] == (200, "ok\n")
        assert fetch(program.admin_url("/healthz"), "HEAD")[::2] == (200, "")
        assert fetch(program.admin_url("/metrics"), "POST")[0] == 405
        assert fetch(program.admin_url("/nothing"))[0] == 404
        assert fetch(program.admin_url("/"))[0] == 200
        assert program.log(event="admin_listening")
    status = json.loads(fetch(gateway.admin_url("/status.json"))[2])
    assert status["gateway"] == gateway.gateway_id and status["port"] == gateway.port and status["ready"] is True


def send_until_it_ends(client, count):
    for _ in range(count):
        client.send({"type": "text", "content": "x" * 4000})


def test_the_gateway_is_ready_while_there_is_room(pipeline):
    """RabbitMQ away is a warning; a spool and an outbox that are full are a reason."""
    gateway = gateway_with_pages(pipeline, OUTBOX_MESSAGES="64", OUTBOX_BYTES="256K", MAX_MESSAGE_BYTES="4K",
                                 SPOOL_MAX_BYTES="8M", AMQP_HEARTBEAT="1")
    pipeline.wait_connected_to_broker(gateway)
    wait_until(lambda: readiness(gateway) == (True, [], []), 60, "no warnings")
    pipeline.broker.stop()
    assert wait_codes(gateway, 2, "broker_away", "downlink_away")[0]
    with Client(gateway.url("dev-7", "?receipts=none")) as client:
        sender = threading.Thread(target=send_until_it_ends, args=(client, 4000), daemon=True)
        sender.start()

        def stands_still():
            looks = [Metrics(gateway) for _ in range(20)]
            return all(look["postern_busy"] == 1 and look["postern_spool_used_bytes"] > 6 << 20 for look in looks) and \
                len({look["postern_messages_received_total"] for look in looks}) == 1
        # Without room for a moment, while the disk is written, and then for good.
        wait_until(stands_still, 120, "a full spool")
        wait_until(lambda: readiness(gateway)[:2] == (False, ["full"]), 60, "it to say so")
        assert "broker_away" in readiness(gateway)[2]
        seen = Metrics(gateway)
        assert seen["postern_ready"] == 0 and seen["postern_busy"] == 1
        assert seen["postern_spool_used_bytes"] > 6 << 20 and seen["postern_spool_max_bytes"] == 8 << 20
        assert seen["postern_outbox_messages"] >= seen["postern_spool_messages"] - 64
        assert seen["postern_outbox_oldest_seconds"] > 0
        assert seen["postern_link_up", {"link": "publish"}] == 0
        pipeline.broker.cont()
        sender.join(120)
        wait_until(lambda: readiness(gateway) == (True, [], []), 120, "all to be well again")
    wait_until(lambda: Metrics(gateway)["postern_busy"] == 0, 60, "room again")
    after = Metrics(gateway)
    assert after["postern_busy_seconds_total"] > 0
    assert after["postern_link_losses_total", {"link": "publish"}] >= 1
    assert after["postern_link_connects_total", {"link": "publish"}] >= 2


def test_an_alarm_of_the_broker_shows(pipeline):
    gateway = gateway_with_pages(pipeline)
    pipeline.wait_connected_to_broker(gateway)
    pipeline.broker.memory_alarm(True)
    with Client(gateway.url("dev-7")) as client:
        client.send({"type": "text", "content": "x"})  # RabbitMQ tells of an alarm when something is published
        assert wait_codes(gateway, 2, "broker_blocked")[0]
        assert Metrics(gateway)["postern_link_blocked", {"link": "publish"}] == 1
        pipeline.broker.memory_alarm(False)
        client.expect(status="queued")
    wait_until(lambda: Metrics(gateway)["postern_link_blocked", {"link": "publish"}] == 0, 60, "the alarm's end")
    assert Metrics(gateway)["postern_link_blocked_seconds_total", {"link": "publish"}] > 0


def test_a_draining_gateway_says_so(pipeline):
    gateway = gateway_with_pages(pipeline, DRAIN_MS="60000")
    pipeline.wait_connected_to_broker(gateway)
    clients = [Client(gateway.url(f"dev-{number}")) for number in range(20)]  # one is told every three seconds
    gateway.send_signal(signal.SIGTERM)
    assert "draining" in wait_codes(gateway, 1, "draining")[1]
    assert fetch(gateway.admin_url("/healthz"))[0] == 200
    assert clients[0].expect_close().code == 1012
    for client in clients[1:]:
        client.drop()
    assert gateway.end() == 0


def test_the_processor_says_what_it_lacks(pipeline):
    without_database = processor_with_pages(pipeline, DATABASE_URL="postgresql://x:y@127.0.0.1:1/z")
    assert wait_codes(without_database, 1, "database_away")[:2] == (False, ["database_away"])
    assert Metrics(without_database)["postern_database_up"] == 0
    without_broker = processor_with_pages(pipeline, RABBITMQ_URL="amqp://127.0.0.1:1")
    assert wait_codes(without_broker, 1, "broker_away")[1] == ["broker_away"]
    assert "publish_away" in readiness(without_broker)[2]
    whole = processor_with_pages(pipeline)
    wait_until(lambda: readiness(whole) == (True, [], []), 60, "a processor that lacks nothing")
    pipeline.server.stop()
    pipeline.server.cont()


def test_a_taken_admin_port_is_one_clear_line(pipeline):
    gateway = gateway_with_pages(pipeline)
    port = gateway.settings["ADMIN_PORT"]
    for program, name in (("postern-gateway", "ADMIN_PORT"), ("postern-processor", "PROCESSOR_ADMIN_PORT")):
        code, output = run_program(program, pipeline.folder / name, RABBITMQ_URL=pipeline.rabbitmq_url,
                                   DATABASE_URL=pipeline.database_url, PORT=str(free_port()),
                                   LISTEN_ADDRESS="127.0.0.1", **{name: port})
        assert code == 1 and len(output.splitlines()) == 1, output
        assert f"{name}={port}" in output and "nothing else has the port" in output, output


def test_port_zero_serves_nothing(pipeline):
    gateway = pipeline.gateway(ADMIN_PORT="0")
    pipeline.wait_connected_to_broker(gateway)
    assert not gateway.log(event="admin_listening")
    _, planned = run_program("postern-gateway", pipeline.folder / "off", "--plan", ADMIN_PORT="0")
    _, with_pages = run_program("postern-gateway", pipeline.folder / "on", "--plan")
    assert "admin pages" not in planned and "admin pages" in with_pages


GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 20000,
    b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000,
    b"\r\n" * 1000,
    b"GET /" + b"a" * 20000,
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50000,
    b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50,
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
]


def test_broken_http_disturbs_nobody(pipeline):
    """Garbage, half requests that stay, and connections that are never read: clients notice nothing, and the pages
    still answer."""
    gateway = gateway_with_pages(pipeline)
    processor_with_pages(pipeline)
    bystander = pipeline.bystander(gateway)
    bystander.wait_rounds(1)
    held = []
    for number in range(200):
        connection = socket.create_connection(("127.0.0.1", int(gateway.settings["ADMIN_PORT"])), timeout=30)
        try:
            connection.sendall(GARBAGE[number % len(GARBAGE)] if number % 3 else b"GET /met")
        except OSError:
            pass  # it was answered and closed while we still wrote
        held.append(connection)
        if number % 20 == 0:
            Metrics(gateway)
    bystander.wait_rounds(3)
    for connection in held:
        connection.close()
    seen = Metrics(gateway)
    seen.check()
    assert seen["postern_admin_answers_total", {"status": "400"}] > 0
    assert seen["postern_admin_answers_total", {"status": "431"}] > 0
    assert seen["postern_admin_evictions_total"] > 0
    gateway.check_alive()


def test_an_answer_never_waits_for_a_slow_reader(pipeline):
    gateway = gateway_with_pages(pipeline)
    slow = []
    for _ in range(8):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.connect(("127.0.0.1", int(gateway.settings["ADMIN_PORT"])))
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        slow.append(connection)
    start = time.monotonic()
    Metrics(gateway).check()
    assert time.monotonic() - start < 30
    with Client(gateway.url("dev-7")) as client:
        client.send({"type": "ping"})
        assert client.receive() == {"type": "pong"}
    for connection in slow:
        connection.close()


def test_the_log_of_the_pages_is_escaped(pipeline):
    """What a client makes the gateway log comes back as text and nothing else."""
    gateway = gateway_with_pages(pipeline)
    pipeline.wait_connected_to_broker(gateway)
    with Client(gateway.url("dev-7")):
        backend = open_backend(pipeline)
        wait_until(lambda: routed(backend, "dev-7", b'<script>"\\'), 60, "the client's binding")
        gateway.wait_log(event="downlink_message_refused")
        pipeline.channel().basic_publish("postern.downlink", 'client.</script>"\x01\xff', b"{}")
    status = json.loads(fetch(gateway.admin_url("/status.json"))[2])
    assert any("event=downlink_message_refused" in line["line"] for line in status["log"])


def test_a_second_stop_ends_the_pages_too(pipeline):
    gateway = gateway_with_pages(pipeline, DRAIN_MS="60000")
    clients = [Client(gateway.url(f"dev-{number}")) for number in range(20)]  # one is told every three seconds
    gateway.send_signal(signal.SIGTERM)
    wait_codes(gateway, 1, "draining")
    gateway.send_signal(signal.SIGTERM)
    assert gateway.wait(60) == 1
    with pytest.raises((Closed, OSError)):
        clients[-1].receive()
