# SPDX-License-Identifier: MIT
"""Memory is fixed at start, sealed, and what --plan said; through broken links, storms of clients and an outage.

POSTERN_MEMORY=full takes the full figures: 800 reconnects of the broker's links and 50,000 clients.
"""

import json
import os
import re
import subprocess

import pytest
from clients import Client
from cutting_proxy import CuttingProxy
from pipeline import BUILD
from process import free_port, wait_until
from programs import find_program

FULL = os.environ.get("POSTERN_MEMORY") == "full"
RECONNECTS = 800 if FULL else 40
CONNECTS = 50_000 if FULL else 4_000
STORM = 2_000  # clients of one storm
# What the kernel may count late: it adds up each core's pages now and then.
RSS_NOISE_BYTES = 256 * 1024


def run_gateway(folder, *arguments, prefix=(), **settings):
    """Runs a gateway that is meant to end by itself; returns (exit code, standard output, standard error)."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run([*prefix, find_program(BUILD, "postern-gateway"), *arguments], cwd=folder, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120,
                          check=False, env={"PATH": "/usr/bin:/bin", "LISTEN_ADDRESS": "127.0.0.1",
                                            "RABBITMQ_URL": "amqp://127.0.0.1:1", "ADMIN_PORT": "0", **settings})
    return done.returncode, done.stdout, done.stderr


def plan_rows(folder, **settings):
    """--plan as a dictionary: what -> bytes."""
    code, said, complaint = run_gateway(folder, "--plan", **settings)
    assert code == 0, complaint
    rows = {}
    for line in said.splitlines()[1:]:
        found = re.fullmatch(r"(\S.*?)((?: +\d+)+)", line)
        if found:
            rows[found[1]] = rows.get(found[1], 0) + int(found[2].split()[-1])
        if "total" in rows:
            return rows  # what follows is about the spool
    raise AssertionError(f"no total: {said}")


def status(pid, thread=None):
    path = f"/proc/{pid}/status" if thread is None else f"/proc/{pid}/task/{thread}/status"
    with open(path, encoding="utf-8") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def usage(gateway):
    """The counters that SIGHUP makes the gateway log."""
    before = len(gateway.log(event="memory_used"))
    gateway.hang_up()
    wait_until(lambda: len(gateway.log(event="memory_used")) > before, 30, "memory_used in the log")
    line = gateway.log(event="memory_used")[-1]
    return {key: int(value) for key, value in line.items() if value.isdigit()}


def assert_nothing_refused(used):
    assert all(value == 0 for key, value in used.items() if key.endswith("_refused") and key != "outbox_refused"), used


def assert_same_peaks(before, after, *pools):
    """What was done again took no more than the first time."""
    for pool in pools:
        assert after[f"{pool}_peak"] == before[f"{pool}_peak"], (pool, before, after)


def assert_within_capacity(used):
    """For what depends on how things fall together in one turn of the loop."""
    for pool in ("malloc", "buffers", "chunks", "sessions"):
        capacity = used["malloc_bytes" if pool == "malloc" else pool]
        assert 0 < capacity and used[f"{pool}_peak"] <= capacity, (pool, used)


def assert_at_rest(gateway):
    wait_until(lambda: not any(value for key, value in usage(gateway).items()
                               if key in ("buffers_used", "chunks_used", "sessions_used", "outbox_used",
                                          "spool_stage_used")),
               60, "all pools to be empty", 0.5)


def storm(gateway, name, count):
    """Clients that come and go in different manners, as the benchmark has them."""
    done = subprocess.run([find_program(BUILD, "bench_load"), "--port", str(gateway.port), "--run", name, "--storm",
                           str(count)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def proxied(pipeline):
    """A pipeline whose gateway reaches the broker, by a name, through a proxy that can cut it off; the processor is
    connected without it."""
    proxy = CuttingProxy(("127.0.0.1", pipeline.broker.port))
    pipeline.proxy = proxy
    pipeline.proxied_url = pipeline.rabbitmq_url.replace(f"127.0.0.1:{pipeline.broker.port}",
                                                         f"localhost:{proxy.port}")
    yield pipeline
    proxy.end()


@pytest.mark.short
@pytest.mark.unsanitized
def test_the_process_is_sealed(pipeline):
    gateway = pipeline.gateway()
    sealed = gateway.wait_log(event="memory_sealed")
    assert sealed["level"] == "info"
    threads = os.listdir(f"/proc/{gateway.pid}/task")
    assert len(threads) == 3, threads  # the loop, and a worker for the disk and one for names
    for thread in threads:
        of_thread = status(gateway.pid, thread)
        assert of_thread["Seccomp"].strip() == "2" and of_thread["NoNewPrivs"].strip() == "1", of_thread
    pipeline.wait_connected_to_broker(gateway)
    assert gateway.end() == 0


def test_a_build_with_sanitizers_says_that_it_is_not_sealed(tmp_path, pipeline):
    gateway = pipeline.gateway()
    if not gateway.sanitized():
        return  # the test above is for it
    assert "malloc" in gateway.wait_log(event="memory_not_sealed")["reason"]
    for argument in ("--plan", "--check"):
        code, said, _ = run_gateway(tmp_path / "x", argument)
        assert code == 0 and "not sealed" in said


@pytest.mark.short
@pytest.mark.unsanitized
@pytest.mark.parametrize("settings", [
    {},
    {"MAX_CONNECTIONS": "20", "OUTBOX_MESSAGES": "64", "OUTBOX_BYTES": "256K", "SEND_QUEUE_BYTES": "8K"},
    {"MAX_CONNECTIONS": "3000", "OUTBOX_BYTES": "64M", "POLLER": "poll"},
], ids=["defaults", "small", "large"])
def test_the_plan_is_what_the_process_has(pipeline, tmp_path, settings):
    settings = {"POLLER": pipeline.poller, "ADMIN_PORT": str(free_port()), **settings}
    rows = plan_rows(tmp_path / "plan", **settings)
    total = rows.pop("total")
    assert sum(rows.values()) == total
    assert rows["malloc, for libraries"] == 1 << 20 and "admin pages: requests and answers" in rows
    gateway = pipeline.gateway(**settings)
    gateway.wait_log(event="memory_sealed")
    at_start = gateway.rss_bytes()
    assert abs(at_start - total) < total * 0.02, (at_start, total)
    pipeline.wait_connected_to_broker(gateway)
    with Client(gateway.url("dev-7", "?receipts=queued")) as client:
        for _ in range(64):
            client.send({"type": "text", "content": "x" * 8000})
            client.expect(status="queued")
    assert abs(gateway.rss_bytes() - total) < total * 0.02, (gateway.rss_bytes(), total)
    assert gateway.log(event="memory_taken")[0]["bytes"] == str(total)
    print(f"plan {total}, at start {at_start}, at work {gateway.rss_bytes()}")


@pytest.mark.short
def test_memory_limit_refuses_and_says_by_how_much(pipeline, tmp_path):
    total = plan_rows(tmp_path / "plan", POLLER=pipeline.poller)["total"]
    code, _, complaint = run_gateway(tmp_path / "too-little", MEMORY_LIMIT=str(total - 12345), POLLER=pipeline.poller)
    assert code == 2
    assert len(complaint.splitlines()) == 1 and f"MEMORY_LIMIT={total - 12345}" in complaint, complaint
    assert f"{total} bytes" in complaint and "12345 more" in complaint, complaint
    assert not (tmp_path / "too-little" / "logs").exists()
    code, said, _ = run_gateway(tmp_path / "plan", "--plan", MEMORY_LIMIT="1M", POLLER=pipeline.poller)
    assert code == 0 and f"by {total - (1 << 20)} bytes" in said, said
    gateway = pipeline.gateway(MEMORY_LIMIT=str(total))
    pipeline.wait_connected_to_broker(gateway)


@pytest.mark.short
@pytest.mark.unsanitized
def test_too_little_memory_fails_at_once(tmp_path):
    """The machine gives half of what is needed: nothing is opened, nothing listens."""
    total = plan_rows(tmp_path / "plan")["total"]
    code, _, complaint = run_gateway(tmp_path / "run", prefix=["prlimit", f"--as={total // 2}", "--"])
    assert code == 1
    assert re.search(r"\d+ bytes of memory are needed and cannot be had", complaint), complaint


@pytest.mark.short
@pytest.mark.unsanitized
def test_memory_is_flat_through_broken_links(proxied):
    gateway = proxied.gateway(RABBITMQ_URL=proxied.proxied_url, LOG_LEVEL="info", ADMIN_PORT=free_port())
    proxied.processor(LOG_LEVEL="info")
    with Client(gateway.url("dev-7")) as client:
        def reconnect_until(count):
            while proxied.proxy.accepted_count < count:
                proxied.proxy.cut()
                client.store()  # a confirm and a delivery: both links are back, and proven
        client.store()
        reconnect_until(12)
        before, rss_before = usage(gateway), gateway.rss_bytes()
        reconnect_until(12 + RECONNECTS)
        after, rss_after = usage(gateway), gateway.rss_bytes()
    assert rss_after <= rss_before + RSS_NOISE_BYTES, (rss_before, rss_after)
    assert after["malloc_peak"] <= before["malloc_peak"] + 1024, (before, after)
    assert after["malloc_used"] == before["malloc_used"], (before, after)
    # One client, one message at a time.
    assert_same_peaks(before, after, "buffers", "chunks", "sessions", "outbox")
    # A reconnect that takes long brings the one message that waits for it to the disk.
    assert after["spool_stage_peak"] <= max(before["spool_stage_peak"], 1024), (before, after)
    assert_within_capacity(after)
    assert_nothing_refused(after)
    assert_at_rest(gateway)
    print(f"{RECONNECTS} reconnects: rss {rss_before} -> {rss_after}, {before} -> {after}")


@pytest.mark.short
@pytest.mark.unsanitized
def test_memory_is_flat_through_storms_of_clients(pipeline):
    gateway = pipeline.gateway(MAX_CONNECTIONS="600", LOG_LEVEL="info", LOG_MAX_BYTES="1M", LOG_FILES="2")
    pipeline.wait_connected_to_broker(gateway)
    before, rss = usage(gateway), [gateway.rss_bytes()]
    for number in range(CONNECTS // STORM):
        storm(gateway, f"storm{number}", STORM)
        rss.append(gateway.rss_bytes())
    assert_at_rest(gateway)
    after = usage(gateway)
    assert max(rss) <= rss[0] + RSS_NOISE_BYTES, rss
    # Clients that only come and go take nothing of the libraries' block and bring nothing to the outbox. How many of them
    # are there at once, with halves of handshakes and unread words, is another number in each storm.
    assert_same_peaks(before, after, "malloc", "outbox", "spool_stage")
    assert after["sessions_peak"] > 1, after
    assert_within_capacity(after)
    assert_nothing_refused(after)
    print(f"{CONNECTS} clients: rss {min(rss)} to {max(rss)}, {before} -> {after}")


@pytest.mark.short
@pytest.mark.unsanitized
@pytest.mark.parametrize("spool", ["0", "8M"])
def test_memory_is_flat_through_an_outage(proxied, tmp_path, spool):
    """The broker is away until the gateway can take no more, in memory or on the disk; then all of it goes out."""
    settings = {"OUTBOX_MESSAGES": "256", "OUTBOX_BYTES": "2M", "SPOOL_MAX_BYTES": spool}
    plan = plan_rows(tmp_path / "plan", **settings)
    gateway = proxied.gateway(RABBITMQ_URL=proxied.proxied_url, LOG_LEVEL="info", **settings)
    count = 400 if spool == "0" else 6000
    proxied.wait_connected_to_broker(gateway)
    rss, used = [gateway.rss_bytes()], [usage(gateway)]
    for _ in range(3):
        with Client(gateway.url("dev-7", "?receipts=queued")) as client:
            proxied.proxy.refuse(True)
            for number in range(count):
                client.send({"type": "text", "content": "x" * 1000, "id": f"m{number}"})
            client.expect(type="busy")
            proxied.proxy.refuse(False)
            client.expect(id=f"m{count - 1}", status="queued")
        assert_at_rest(gateway)
        rss.append(gateway.rss_bytes())
        used.append(usage(gateway))
    assert max(rss) <= rss[0] + RSS_NOISE_BYTES, rss
    before, first, last = used[0], used[1], used[-1]
    assert last["malloc_used"] == before["malloc_used"], (before, last)
    assert first["malloc_peak"] <= before["malloc_peak"] + 65536, (before, first)
    # The first outage shows what the others need.
    assert last["malloc_peak"] <= first["malloc_peak"] + 1024, (first, last)
    assert_same_peaks(first, last, "buffers", "sessions")
    # How much is taken before the client is told that it is too much, and how much of it is on its way to the disk or
    # answered at once, depends on how its bytes arrive.
    assert_within_capacity(last)
    assert last["outbox_peak"] <= (256 if spool == "0" else count), last
    assert last["spool_stage_peak"] <= plan.get("spool, records for the disk", 0), (plan, last)
    assert (last["spool_stage_peak"] > 0) == (spool != "0"), last
    assert (last["spool_written_bytes"] > 3 * 5_000_000) == (spool != "0"), last
    assert last["spool_segments_free"] >= last["spool_segments"] - 1, last
    assert_nothing_refused(last)
    print(f"three outages, SPOOL_MAX_BYTES={spool}: rss {rss}, {first} -> {last}")
