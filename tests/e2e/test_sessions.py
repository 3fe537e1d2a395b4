# SPDX-License-Identifier: MIT
"""Who may be connected: one per client id, the three policies, the limit, heartbeats in both modes."""

import time

import pytest
from clients import PING, PONG, Client, Closed, RawClient
from process import wait_until


# Asked often; the time to answer is longer than a busy machine keeps a client from it.
LIVELY = {"HEARTBEAT_INTERVAL": "1", "HEARTBEAT_TIMEOUT": "6"}


@pytest.mark.parametrize("library", ["websocket", "websockets"])
@pytest.mark.short
def test_reject_refuses_the_newcomer(gateway, client_id, library):
    with Client(gateway.url(client_id)) as first:
        second = Client(gateway.url(client_id), library, greet=False)
        assert second.receive() == {"type": "error", "code": "already_connected", "error": "Already connected"}
        assert second.expect_close().code == 4009
        gateway.wait_log(event="client_refused", client=client_id, code="already_connected")
        first.store("undisturbed")
    # And the id is free as soon as the first has closed.
    wait_until(lambda: _enters(gateway, client_id), 20, "the id to be free again")


def _enters(gateway, client_id):
    client = Client(gateway.url(client_id), greet=False)
    kind = client.receive()["type"]
    client.close()
    return kind == "connected"


def test_takeover_closes_the_older(pipeline):
    gateway = pipeline.gateway(SESSION_POLICY="takeover")
    pipeline.processor()
    first = Client(gateway.url("dev-7"))
    with Client(gateway.url("dev-7")) as second:
        assert first.expect_close().code == 4010
        gateway.wait_log(event="client_taken_over", client="dev-7")
        second.store("mine now")
        # The late end of the old connection never removes the new session.
        first.close()
        third = Client(gateway.url("dev-7"))
        assert second.expect_close().code == 4010
        third.store("mine now")
        third.close()


def test_takeover_in_a_chain_leaves_one(pipeline):
    gateway = pipeline.gateway(SESSION_POLICY="takeover", MAX_CONNECTIONS="10")
    clients = [Client(gateway.url("dev-7")) for _ in range(40)]
    for client in clients[:-1]:
        assert client.expect_close().code == 4010
    clients[-1].send({"type": "ping"})
    assert clients[-1].receive() == {"type": "pong"}
    clients[-1].close()


def test_takeover_stale_spares_the_lively(pipeline):
    gateway = pipeline.gateway(SESSION_POLICY="takeover-stale", HEARTBEAT_INTERVAL="6", HEARTBEAT_TIMEOUT="60")
    # Alive: it has just sent something.
    first = Client(gateway.url("dev-7"))
    first.send({"type": "ping"})
    assert first.receive() == {"type": "pong"}
    second = Client(gateway.url("dev-7"), greet=False)
    assert second.receive()["code"] == "already_connected"
    assert second.expect_close().code == 4009
    first.close()
    # Stale: a connection that answers nothing at all, silent for the interval.
    raw = RawClient(gateway.url("dev-8")).open()
    raw.read_frame()
    wait_until(lambda: _enters(gateway, "dev-8"), 60, "the stale one to be taken over", 0.5)
    assert raw.read_close() == 4010
    raw.close()


def test_the_connection_limit_and_its_slot_for_refusals(pipeline):
    gateway = pipeline.gateway(MAX_CONNECTIONS="5")
    inside = [Client(gateway.url(f"dev-{number}")) for number in range(5)]
    for number in range(3):
        late = Client(gateway.url(f"late-{number}"), greet=False)
        assert late.receive() == {"type": "error", "code": "max_connections", "error": "Max connections reached"}
        assert late.expect_close().code == 1013
        gateway.wait_log(event="client_refused", client=f"late-{number}", code="max_connections")
    inside.pop().close()
    wait_until(lambda: _enters(gateway, "late"), 20, "the slot to be free again")
    for client in inside:
        client.send({"type": "ping"})
        assert client.receive() == {"type": "pong"}
        client.close()


def test_the_count_of_connections_cannot_drift(pipeline):
    """However connections end, all slots are free again."""
    gateway = pipeline.gateway(MAX_CONNECTIONS="8", SESSION_POLICY="takeover", HANDSHAKE_TIMEOUT_MS="5000")
    for turn in range(10):
        clients = [Client(gateway.url(f"dev-{number}")) for number in range(6)]
        clients[0].close()
        clients[1].drop()
        clients[2].send_binary(b"x")
        clients[3].send_text("x" * 20000)
        clients.append(Client(gateway.url("dev-4")))
        raw = RawClient(gateway.url("dev-9"))
        raw.send(b"GET /half")
        raw.close()
        for client in clients[4:]:
            client.drop()
    def all_enter():
        clients = []
        try:
            clients = [Client(gateway.url(f"new-{number}")) for number in range(8)]
            return True
        except (AssertionError, Closed):
            return False
        finally:
            for client in clients:
                client.close()
    wait_until(all_enter, 30, "all eight slots to be free", 0.5)


@pytest.mark.parametrize("name", ["a", "A-Z.a_z~0", "x" * 64])
def test_client_ids_that_are_taken(gateway, name, client_id):
    with Client(gateway.url(name)) as client:
        assert client.greeting["client_id"] == name


@pytest.mark.parametrize("path", ["/", "/" + "x" * 65, "/a/b", "/a%20b", "/a%41", "/ä".encode().decode("latin-1"), "/a$",
                                  "//a", "/a/"])
def test_client_ids_that_are_not(gateway, path):
    with RawClient(gateway.url("x")) as raw:
        raw.send(raw.request(path=path))
        assert raw.status()[0] == 400
        assert raw.ended()


def test_ping_mode_keeps_the_living_and_ends_the_silent(pipeline):
    gateway = pipeline.gateway(**LIVELY)
    start = time.monotonic()
    living = Client(gateway.url("living"), "websockets")  # answers pings by itself
    assert living.greeting["heartbeat"] == 1
    silent = RawClient(gateway.url("silent")).open()
    silent.read_frame()
    opcode, _ = silent.read_frame()
    assert opcode == PING
    assert silent.read_close() == 1001
    assert time.monotonic() - start >= 6.9, "interval and timeout have to pass first"
    silent.close()
    wait_until(lambda: _enters(gateway, "silent"), 20, "the slot to be free again")
    wait_until(lambda: time.monotonic() - start > 9, 30, "interval and timeout to pass for the living one too")
    living.send({"type": "ping"})
    assert living.receive() == {"type": "pong"}
    living.close()


def test_any_byte_counts_as_life(pipeline):
    gateway = pipeline.gateway(**LIVELY)
    raw = RawClient(gateway.url("dev-7")).open()
    raw.read_frame()
    raw.socket.settimeout(0.3)
    end = time.monotonic() + 9
    while time.monotonic() < end:
        raw.send(raw.frame(b"", PONG))  # unasked for, as RFC 6455 section 5.5.3 allows
        try:
            opcode, _ = raw.read_frame()
            assert opcode == PING
        except TimeoutError:
            pass
    raw.close()


def test_message_mode_asks_in_text(pipeline):
    gateway = pipeline.gateway(**LIVELY, HEARTBEAT_MODE="message")
    silent = Client(gateway.url("silent"))
    with Client(gateway.url("answers")) as client:
        for _ in range(3):
            assert client.receive() == {"type": "ping"}
            client.send({"type": "pong"})
    assert silent.receive() == {"type": "ping"}
    assert silent.expect_close().code == 1001
