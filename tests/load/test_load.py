# SPDX-License-Identifier: MIT
"""Locust's users against a real pipeline: what they count is what is stored, and what fails has a name."""

import base64
import hashlib
import json
import os
import re
import signal
import socket
import socketserver
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from types import SimpleNamespace

import pytest
from process import Process, free_port, wait_until
from programs import ROOT

PYTHON = "/usr/bin/python3"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}
# For a run that the test ends once it has seen what it waits for.
UNTIL_ENDED = ("--run-time", "300s")


class Load:
    """`./dev load` in a folder of its own; its figures when it has ended."""

    def __init__(self, pipeline, gateway, *options):
        self.folder = pipeline.folder / f"load-{free_port()}"
        self.folder.mkdir()
        self.report = self.folder / "report.html"
        host = ["-H", gateway.url("").rstrip("/")] if gateway else []
        self.process = Process("Locust", [PYTHON, "-B", ROOT / "tests/load/load.py", *host, "--html", self.report,
                                          "--figures", self.folder / "figures.json", *map(str, options)],
                               ROOT, ENVIRONMENT, self.folder / "output.log")
        self.process.start()
        self.code = None

    def output(self):
        return self.process.output.read_text("utf-8", "replace")

    def finish(self, timeout_s=120):
        self.code = self.process.wait(timeout_s)
        return self

    def end(self, timeout_s=120):
        """Ends the run before its time; like any other it waits for its receipts."""
        self.code = self.process.end(signal.SIGTERM, timeout_s)
        return self

    def figures(self):
        return json.loads((self.folder / "figures.json").read_text("utf-8"))

    def series(self, name):
        """(successes, failures) of a series."""
        found = self.figures()["series"].get(name, {"succeeded": 0, "failed": 0})
        return found["succeeded"], found["failed"]

    def failures(self):
        """Failures of the gateway by (series, code); Locust's own lateness is another matter."""
        return {(each["series"], each["code"]): each["times"] for each in self.figures()["failures"]
                if each["series"] != "lag"}


class Stranger(socketserver.ThreadingTCPServer):
    """A WebSocket server that says these words to who comes, and is no gateway."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, *words):
        super().__init__(("127.0.0.1", free_port()), self.Talk)
        self.words = words
        self.come_count = 0  # load.py itself comes first, to see whether somebody is there
        threading.Thread(target=self.serve_forever, daemon=True).start()

    class Talk(socketserver.StreamRequestHandler):
        def handle(self):
            key = re.search(rb"Sec-WebSocket-Key: (\S+)", self.request.recv(65536))
            if not key:
                self.wfile.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                return
            accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
            for word in self.server.words:
                self.wfile.write(bytes([0x81, len(word)]) + word.encode())
            self.rfile.read()

    def get_request(self):
        self.come_count += 1
        return super().get_request()

    def url(self, client_id, scheme="ws"):
        return f"{scheme}://127.0.0.1:{self.server_address[1]}/{client_id}"

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


@pytest.fixture
def path(pipeline):
    """A gateway and a processor that are connected."""
    gateway = pipeline.gateway(LOG_LEVEL="info")
    pipeline.processor(LOG_LEVEL="info")
    pipeline.wait_connected(gateway)
    return gateway


def stored_rows(pipeline):
    return pipeline.query("SELECT count(*) FROM messages WHERE client_id LIKE 'load-%'")[0][0]


def rows_by_client(pipeline):
    return dict(pipeline.query("SELECT client_id, count(*) FROM messages WHERE client_id LIKE 'load-%' GROUP BY 1"))


def test_what_locust_counts_is_what_is_stored(pipeline, path):
    load = Load(pipeline, path, "--headless", "--users", 20, "--spawn-rate", 20, "--run-time", "6s", "--rate", 5,
                "--message-bytes", 500, "--roam-seconds", 1).finish()
    assert load.failures() == {}, load.output()
    stored, _ = load.series("stored")
    assert stored == stored_rows(pipeline) > 100, load.output()
    assert load.series("send")[0] >= stored  # what was sent again is counted again
    connected, _ = load.series("connect")
    assert connected > 20, "the roaming users have connected again"
    assert pipeline.query("SELECT min(length(content::text)), max(length(content::text)) FROM messages "
                          "WHERE client_id LIKE 'load-%'")[0][0] > 400
    assert f"stored {stored}" in load.output()
    report = load.report.read_text("utf-8")
    for name in ("connect", "send", "queued", "stored", "lag"):
        assert f"<td>{name}</td>" in report, f"{name} is not in the report"
    lag_failed = load.series("lag")[1] > 0
    assert ("Locust was the bottleneck" in load.output()) == lag_failed
    # It says `is` at each such failure, of which one may come after the figures were written.
    assert "Locust is the bottleneck" in load.output() or not lag_failed
    assert load.code == (1 if "Locust is the bottleneck" in load.output() else 0), load.output()


def test_a_broker_that_is_away_is_named(pipeline, path):
    pipeline.broker.stop()
    load = Load(pipeline, path, "--headless", "--users", 5, "--spawn-rate", 5, "--run-time", "3s", "--rate", 2,
                "--receipt-timeout", 10, "Steady").finish()
    pipeline.broker.cont()
    failed = load.failures()
    assert failed and set(failed) == {("stored", "only_accepted")}, (failed, load.output())
    assert load.series("stored") == (0, sum(failed.values()))
    assert load.series("accepted")[0] == sum(failed.values())
    assert load.code == 1
    wait_until(lambda: stored_rows(pipeline) == sum(failed.values()), 60, "what was accepted to be stored")


def test_a_processor_that_is_away_is_named(pipeline):
    gateway = pipeline.gateway(LOG_LEVEL="info")
    pipeline.wait_connected_to_broker(gateway)
    load = Load(pipeline, gateway, "--headless", "--users", 3, "--spawn-rate", 3, "--run-time", "2s",
                "--receipt-timeout", 8, "Steady").finish()
    assert set(load.failures()) == {("stored", "only_queued")}, load.output()


def test_refusals_are_named(pipeline, path):
    """Ten errors within a minute close the connection."""
    load = Load(pipeline, path, "--headless", "--users", 1, *UNTIL_ENDED, "--rate", 10, "--message-type", "smoke",
                "Steady")

    def connected():
        return [line for line in path.log(event="client_connected") if line["client"].startswith("load-")]
    wait_until(lambda: len(connected()) > 1, 60, "the user to come back")
    load.end()
    failed = load.failures()
    assert failed[("stored", "unknown_type")] >= 10 and failed[("connection", "closed_1008")] >= 1, failed
    assert set(failed) == {("stored", "unknown_type"), ("connection", "closed_1008")}, failed


def test_a_gateway_that_goes_away_is_named_and_nothing_is_lost(pipeline, path):
    """Stopped, killed and started again: the users come back, and what nobody read is sent again."""
    load = Load(pipeline, path, "--headless", "--users", 5, "--spawn-rate", 5, *UNTIL_ENDED, "--rate", 5,
                "--receipt-timeout", 60, "Steady")
    wait_until(lambda: len(rows_by_client(pipeline)) == 5 and stored_rows(pipeline) > 20, 60, "all to be on their way")
    path.stop()
    time.sleep(1)
    path.kill9()
    time.sleep(3)
    before = rows_by_client(pipeline)
    path.start()
    # More than can still have been on the way for one who is not back.
    wait_until(lambda: all(rows >= before[client] + 10 for client, rows in rows_by_client(pipeline).items()), 60,
               "all to be back")
    load.end()
    failed = load.failures()
    assert failed.pop(("connect", "econnrefused"), 0) >= 1, failed
    lost = {code for name, code in failed if name == "connection"}
    assert lost and lost <= {"ended_without_close", "econnreset"}, failed
    assert {name for name, _ in failed} == {"connection"}, failed
    assert load.series("stored")[0] == stored_rows(pipeline)


@pytest.mark.parametrize("series, words", [
    ("connect", ["hello"]),
    ("connect", ['"hello"']),
    ("connect", ["{}"]),
    ("connection", ['{"type":"connected"}', "hello"]),
    ("connection", ['{"type":"connected"}', '{"type":"receipt"}']),
])
def test_who_is_not_a_gateway_is_named(tmp_path, series, words):
    with Stranger(*words) as stranger:
        load = Load(SimpleNamespace(folder=tmp_path), stranger, "--headless", "--users", 1, *UNTIL_ENDED, "--rate", 0)
        wait_until(lambda: stranger.come_count > 2, 60, "the user to come again: by then it has judged what it was told")
        load.end()
    assert set(load.failures()) == {(series, "not_a_gateway")}, load.output()
    assert load.code == 1


def test_a_run_without_an_answer_has_failed(tmp_path):
    """Shorter than any time limit: no connection has failed yet, and none has come about."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        gateway = SimpleNamespace(url=lambda client_id: f"ws://127.0.0.1:{silent.getsockname()[1]}/{client_id}")
        load = Load(SimpleNamespace(folder=tmp_path), gateway, "--headless", "--users", 2, "--spawn-rate", 2,
                    "--run-time", "2s").finish()
    assert load.failures() == {("connect", "no_answer"): 1}, load.output()
    assert load.code == 1


def test_a_port_without_tls_is_named_and_users_that_never_connect_can_be_stopped(tmp_path):
    with Stranger() as stranger:
        secure = SimpleNamespace(url=lambda client_id: stranger.url(client_id, "wss"))
        load = Load(SimpleNamespace(folder=tmp_path), secure, "--headless", "--users", 4, "--spawn-rate", 4,
                    *UNTIL_ENDED, "--receipt-timeout", 110)
        wait_until(lambda: stranger.come_count > 9, 60, "each to have come about twice")
        load.end(60)  # less than --stop-timeout, which is 120 s: nobody is waited for
    assert set(load.failures()) == {("connect", "tls")}, load.output()
    assert "Not all users finished" not in load.output() and "Traceback" not in load.output()


def test_users_can_be_stopped_while_the_gateway_is_gone(pipeline, path):
    load = Load(pipeline, path, "--headless", "--users", 5, "--spawn-rate", 5, *UNTIL_ENDED, "--rate", 5,
                "--receipts", "none", "--receipt-timeout", 110)
    wait_until(lambda: stored_rows(pipeline) > 20, 60, "the load to be on its way")
    path.kill9()
    time.sleep(2)  # for them to notice
    load.end(60)  # less than --stop-timeout, which is 120 s: nobody is waited for
    assert "Not all users finished" not in load.output() and "Traceback" not in load.output()


def test_what_the_network_says_has_a_name():
    script = """
import locustfile, socket, ssl, websocket
for error in (websocket.WebSocketAddressException(socket.gaierror(-2, "Name or service not known")),
              socket.gaierror(-2, "Name or service not known"), ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"),
              PermissionError(1, "Operation not permitted"), TimeoutError("timed out")):
    print(locustfile.network_code(error))
"""
    done = subprocess.run([PYTHON, "-B", "-c", script], cwd=ROOT / "tests/load", env=ENVIRONMENT, capture_output=True,
                          text=True, timeout=60, check=True)
    assert done.stdout.split() == ["unknown_host", "unknown_host", "tls", "eperm", "timeout"], done


def test_without_receipts_it_only_sends(pipeline, path):
    load = Load(pipeline, path, "--headless", "--users", 4, "--spawn-rate", 4, "--run-time", "3s", "--rate", 5,
                "--receipts", "none", "Steady").finish()
    assert load.series("stored") == (0, 0) and load.series("queued") == (0, 0)
    sent, _ = load.series("send")
    assert sent > 0
    wait_until(lambda: stored_rows(pipeline) == sent, 60, "all that was sent to be stored")


def test_a_storm_on_a_small_gateway(pipeline):
    gateway = pipeline.gateway(LOG_LEVEL="info", MAX_CONNECTIONS="20")
    pipeline.processor(LOG_LEVEL="info")
    load = Load(pipeline, gateway, "--headless", "--storm", "--storm-users", 60, "--storm-seconds", 6,
                "--storm-rounds", 2).finish()
    connected, refused = load.series("connect")
    assert connected >= 40 and refused >= 80, load.output()  # twice 20 that fit
    assert set(load.failures()) == {("connect", "max_connections")}, load.failures()
    assert load.series("stored")[0] == stored_rows(pipeline)


def test_it_says_when_locust_is_the_bottleneck(pipeline, path):
    load = Load(pipeline, path, "--headless", "--users", 1, *UNTIL_ENDED, "Steady")
    wait_until(lambda: stored_rows(pipeline) > 0, 60, "the load to be on its way")
    load.process.stop()
    time.sleep(1.5)
    load.process.cont()
    wait_until(lambda: "Locust is the bottleneck" in load.output(), 60, "it to say so")
    load.end()
    assert load.series("lag")[1] >= 1
    assert "Locust was the bottleneck" in load.output()
    assert load.code == 1


def get(port, path, **form):
    data = urllib.parse.urlencode(form).encode() if form else None
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=30) as answer:
        return answer.read().decode("utf-8")


def test_the_page(pipeline, path):
    """Its settings are those of the users, and what is set there is what they do."""
    port = free_port()
    load = Load(pipeline, path, "--web-port", port)
    try:
        def answers():
            load.process.check_alive()
            try:
                return get(port, "/")
            except OSError:
                return None
        page = wait_until(answers, 60, "Locust's page")
        assert f"http://localhost:{port}" in load.output()
        for name in ("rate", "message_bytes", "message_type", "receipts", "receipt_timeout", "roam_seconds", "token",
                     "query"):
            assert f'name="{name}"' in page, f"{name} cannot be set on the page"
        started = json.loads(get(port, "/swarm", user_count=3, spawn_rate=3, host=path.url("").rstrip("/"), rate=10,
                                 message_bytes=900, receipts="queued", token="a b", query="note=1"))
        assert started["success"], started

        def series():
            return {entry["name"]: entry for entry in json.loads(get(port, "/stats/requests"))["stats"]}
        wait_until(lambda: series().get("queued", {}).get("num_requests", 0) > 30, 60, "receipts on the page")
        json.loads(get(port, "/stop"))
        assert "stored" not in series(), "only `queued` was asked for"
        wait_until(lambda: stored_rows(pipeline) == series()["queued"]["num_requests"], 60, "the rows")
        assert pipeline.query("SELECT min(length(content::text)) FROM messages WHERE client_id LIKE 'load-%'")[0][0] > 800
        assert "<td>queued</td>" in get(port, "/stats/report")
    finally:
        load.process.end(signal.SIGTERM)


def test_no_gateway_is_one_clear_word(tmp_path):
    done = subprocess.run([PYTHON, "-B", ROOT / "tests/load/load.py", "--host", f"ws://127.0.0.1:{free_port()}"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
                          env={**os.environ, **ENVIRONMENT})
    assert done.returncode == 1
    assert "No gateway answers" in done.stdout and "./dev run" in done.stdout, done.stdout
