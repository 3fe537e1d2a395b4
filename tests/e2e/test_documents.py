# SPDX-License-Identifier: MIT
"""What the documents show works as printed: programs, pages, and what is printed about them."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from clients import Client
from process import Process, free_port, wait_until
from programs import parse_log_line

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"


def shown(document, start, end):
    """The one fenced block between two marks."""
    text = (ROOT / document).read_text("utf-8")
    return re.search(rf"<!-- {start} -->\n```\w*\n(.*?)```\n<!-- {end} -->", text, re.S).group(1)


def example(name):
    return shown("doc/protocol.md", f"example: {name}", "/example")


def put(script, old, new):
    assert script.count(old) == 1, f"{old} is not in the example"
    return script.replace(old, new)


def test_the_client_in_the_readme(gateway, client_id):
    script = put(shown("README.md", "client", "/client"), "127.0.0.1:8000/dev-7", f"127.0.0.1:{gateway.port}/{client_id}")
    done = subprocess.run([PYTHON, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    greeting, queued, stored = map(json.loads, done.stdout.splitlines())
    assert greeting["type"] == "connected" and greeting["client_id"] == client_id
    assert queued == {"type": "receipt", "seq": 1, "id": "m1", "status": "queued"}
    assert stored == {"type": "receipt", "seq": 1, "id": "m1", "status": "stored"}


def test_the_client_that_loses_nothing(pipeline):
    """It is started before the gateway, and the gateway is killed before the processor is there to store anything."""
    port = free_port()
    script = put(example("client in python"), "127.0.0.1:8000", f"127.0.0.1:{port}")
    client = Process("the example", [PYTHON, "-u", "-c", script], pipeline.folder, {"PATH": "/usr/bin:/bin"},
                     pipeline.folder / "client.log")
    client.start()
    try:
        wait_until(lambda: "Connect call failed" in client.output.read_text(), 60, "a first attempt in vain")
        gateway = pipeline.gateway(port=port)
        wait_until(lambda: client.output.read_text().count("'queued'") >= 3, 60, "all messages to be queued")
        gateway.kill9()
        pipeline.processor()
        gateway.start()
        assert client.wait(60) == 0, client.output.read_text()
    finally:
        client.kill9()
    assert pipeline.query("SELECT message_id, content->>'temperature' FROM messages WHERE client_id = 'dev-7' "
                          "ORDER BY message_id") == [("m0", "20"), ("m1", "21"), ("m2", "22")]


def test_the_page_in_a_browser(pipeline):
    """Pressed while the gateway is away, too."""
    if not Path(CHROMIUM).exists():
        pytest.skip("no chromium here: the example for browsers is NOT checked")
    gateway = pipeline.gateway()
    pipeline.processor()
    page = pipeline.folder / "kiosk.html"
    page.write_text(put(example("client in a browser"), "127.0.0.1:8000", f"127.0.0.1:{gateway.port}"))
    with Browser(pipeline.folder / "browser") as browser:
        browser.open(page.as_uri())

        def said(status):
            return browser.run("return document.getElementById('said').textContent").count(status)
        wait_until(lambda: said('"connected"') == 1, 60, "the greeting on the page")
        browser.run("document.querySelector('button').click()")
        wait_until(lambda: said('"stored"') == 1, 60, "`stored` on the page")
        gateway.kill9()
        browser.wait("gate.readyState !== WebSocket.OPEN")
        browser.run("document.querySelector('button').click()")
        assert browser.run("return waiting.size") == 1
        gateway.start()
        wait_until(lambda: said('"stored"') == 2, 60, "`stored` for what was pressed while the gateway was away")
        assert browser.run("return waiting.size") == 0
    assert pipeline.query("SELECT count(*) FROM messages WHERE client_id = 'kiosk-1' AND content ? 'pressed'") == [(2,)]


def test_the_backend(pipeline):
    gateway = pipeline.gateway()
    script = put(example("backend in python"), "amqp://guest:guest@127.0.0.1:5672/%2F", pipeline.rabbitmq_url)

    def publish():
        return subprocess.run([PYTHON, "-c", script], capture_output=True, text=True, timeout=60, check=True).stdout
    pipeline.wait_connected_to_broker(gateway)
    assert publish() == "dev-7 is not connected anywhere\n"
    with Client(gateway.url("dev-7")) as client:
        wait_until(lambda: publish() == "on its way\n", 60, "the client's binding")
        assert client.receive() == {"type": "text", "content": "hello"}


def test_a_messages_life_in_one_grep(pipeline):
    """The README's lines are those that the programs write: the same events in the same order, the same fields."""
    printed = shown("README.md", "life", "/life").splitlines()
    assert printed[0] == "$ grep -hE 'id=m1( |$)' logs/*.log* | sort -s -k1,1"
    settings = {"LOG_MESSAGES": "1", "LOG_LEVEL": "info"}
    # What waits long has one stage more with a spool.
    programs = [pipeline.gateway(SPOOL_MAX_BYTES="0", **settings), pipeline.processor(**settings)]
    pipeline.wait_connected(programs[0])
    with Client(programs[0].url("dev-7")) as client:
        client.store({"t": 21.5}, "m1")
        client.store({"t": 21.5}, "m10")
    wait_until(lambda: programs[0].log(event="message_stored", id="m1"), 30, "the last line")
    wait_until(lambda: programs[1].log(event="stored", id="m1"), 30, "the processor's line")
    files = " ".join(f"{shlex.quote(str(program.log_path))}*" for program in programs)
    command = printed[0].removeprefix("$ ").replace("logs/*.log*", files)
    found = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60,
                           check=True).stdout.splitlines()
    expected = [parse_log_line(line) for line in printed[1:]]
    assert sorted(each["event"] for each in expected) == sorted(parse_log_line(line)["event"] for line in found)
    assert [each["ts"] for each in expected] == sorted(each["ts"] for each in expected)
    for each in expected:
        real = next(fields for fields in map(parse_log_line, found) if fields["event"] == each["event"])
        assert {**real, "ts": ""} == {**each, "ts": ""}
