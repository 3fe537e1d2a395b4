# SPDX-License-Identifier: MIT
"""The scenarios. Each returns figures: what was measured, the limit measured beside it, and the target.

The machine is shared and noisy, and everything runs on the same cores. So what is compared is measured in turns within
one run (limit, gateway, limit, gateway, ...), each pair gives one ratio, and the median of the ratios counts.
"""

import datetime
import shutil
import time

from stage import DepthSampler, Failure, median, memory_kib, wait_until, written_bytes


# In the open loops at 10,000 msg/s messages are due in bursts of ten: a load generator that wakes for each of them
# takes half a core away from what it measures. Publisher and gateway get the same bursts.
GRID_US = 1000


class Figure:
    """One line of the table. `target` is ("<=" or ">=", number), tested against the ratio if there is one."""

    def __init__(self, name, value, unit, limit=None, limit_name="", ratio=None, target=None, of_ratio=True, note=""):
        self.name, self.value, self.unit = name, value, unit
        self.limit, self.limit_name, self.ratio = limit, limit_name, ratio
        self.target, self.of_ratio, self.note = target, of_ratio, note
        if limit and ratio is None:
            self.ratio = value / limit

    @property
    def verdict(self):
        if self.target is None:
            return ""
        sign, wanted = self.target
        tested = self.ratio if self.of_ratio and self.ratio is not None else self.value
        return "PASS" if (tested <= wanted if sign == "<=" else tested >= wanted) else "MISS"

    def target_text(self):
        if self.target is None:
            return ""
        sign, wanted = self.target
        return f"{sign} {wanted:g}" + ("x" if self.of_ratio and self.ratio is not None else "")

    def record(self):
        return {"name": self.name, "value": self.value, "unit": self.unit, "limit": self.limit,
                "limit_name": self.limit_name, "ratio": self.ratio, "target": self.target_text(),
                "verdict": self.verdict, "note": self.note}


def spread(values):
    return f"{min(values):.3g} to {max(values):.3g}"


def percentiles(latency_us):
    """p50/p90/p99/p99.9 of one run, in milliseconds."""
    return "p50/p90/p99/p99.9 " + "/".join(f"{latency_us[point] / 1000:.1f}" for point in ("p50", "p90", "p99", "p999")) + " ms"


def echo(stage, quick):
    """A raw poll() echo of the same bytes: what receiving and sending alone costs here."""
    stage.start_echo()
    seconds = 1.5 if quick else 3
    found = []
    for window in (1, 16):
        answer = stage.load_echo(window=window, seconds=seconds, warmup=0.5)
        stage.limits[f"echo_w{window}_us"] = stage.cpu_us(answer, stage.echo)
        found.append(Figure(f"raw TCP echo, 100 x {window}: CPU a message", stage.limits[f"echo_w{window}_us"], "us",
                            note=f"{answer['queued_rate']:.0f} msg/s"))
    answer = stage.load_echo(rate=1000, seconds=seconds, warmup=0.5)
    stage.limits["echo_alone_us"] = stage.cpu_us(answer, stage.echo)
    found.append(Figure("raw TCP echo, 100 at 1,000 msg/s: CPU a message", stage.limits["echo_alone_us"], "us"))
    answer = stage.load_echo(rate=1000, idle=10000, seconds=seconds, warmup=0.5)
    found.append(Figure("raw TCP echo, 10,000 idle + 100 at 1,000 msg/s: CPU a message",
                        stage.cpu_us(answer, stage.echo), "us", stage.limits["echo_alone_us"], "100 alone"))
    return found


def closed(stage, quick):
    """100 connections, each with 16 messages in flight, against the bare publisher with as many in flight in all."""
    rounds = 2 if quick else 5
    seconds = 2.5 if quick else 4
    gateway = stage.gateway()
    found = []
    for kind, wanted in (("classic", 0.9), ("quorum", 0.8)):
        bare, ours, cpu, broker_bare, broker_ours = [], [], [], [], []
        for _ in range(rounds):
            stage.purge(kind)
            answer = stage.publish(kind, in_flight=1600, seconds=seconds)
            bare.append(answer["queued_rate"])
            broker_bare.append(stage.cpu_us(answer, stage.broker.process))
            stage.purge(kind)
            answer = stage.load(gateway, window=16, seconds=seconds, type=kind)
            ours.append(answer["queued_rate"])
            cpu.append(stage.cpu_us(answer, gateway))
            broker_ours.append(stage.cpu_us(answer, stage.broker.process))
        stage.purge(kind)
        ratios = [a / b for a, b in zip(ours, bare)]
        found.append(Figure(f"{kind}, 100 x 16: queued", median(ours), "msg/s", median(bare), "bare publisher",
                            median(ratios), (">=", wanted),
                            note=f"ratios {spread(ratios)}; {percentiles(answer['latency_us']['queued'])}"))
        found.append(Figure(f"{kind}, 100 x 16: gateway CPU a message", median(cpu), "us",
                            stage.limits.get("echo_w16_us"), "raw echo", None, ("<=", 4), False,
                            note=f"{spread(cpu)}; the broker's own {median(broker_ours):.0f}, "
                                 f"behind the bare publisher {median(broker_bare):.0f}"))
        cpu = []
        rates = []
        for _ in range(1 if quick else 2):
            answer = stage.load(gateway, window=1, seconds=seconds, type=kind)
            cpu.append(stage.cpu_us(answer, gateway))
            rates.append(answer["queued_rate"])
            latency = percentiles(answer["latency_us"]["queued"])
            stage.purge(kind)
        stage.start_echo()
        answer = stage.load_echo(rate=median(rates), seconds=1.5, warmup=0.5)
        found.append(Figure(f"{kind}, 100 x 1: gateway CPU a message", median(cpu), "us",
                            stage.limits.get("echo_w1_us"), "raw echo", None, ("<=", 8), False,
                            note=f"{median(rates):.0f} msg/s, {latency}; a raw echo at that rate "
                                 f"{stage.cpu_us(answer, stage.echo):.1f}"))
    stage.end(gateway)
    return found


def open_loop(stage, quick):
    """500 connections together at 10,000 msg/s, against the bare publisher at that rate; quorum queue."""
    rounds = 2 if quick else 5
    seconds = 4 if quick else 6
    kind = "quorum"
    gateway = stage.gateway()
    bare, ours, ratios, cpu = [], [], [], []
    for _ in range(rounds):
        stage.purge(kind)
        limit = stage.publish(kind, rate=10000, grid_us=GRID_US, seconds=seconds)["latency_us"]["queued"]
        stage.purge(kind)
        answer = stage.load(gateway, connections=500, rate=10000, grid_us=GRID_US, seconds=seconds, type=kind)
        mine = answer["latency_us"]["queued"]
        bare.append(limit)
        ours.append(mine)
        ratios.append(mine["p99"] / limit["p99"])
        cpu.append(stage.cpu_us(answer, gateway))
    stage.purge(kind)
    stage.end(gateway)

    def line(point, ratio, target=None, note=""):
        return Figure(f"500 at 10,000 msg/s: {point} of queued", median([one[point] for one in ours]) / 1000, "ms",
                      median([one[point] for one in bare]) / 1000, "bare publisher", ratio, target, note=note)
    def ratio(point):
        return median([mine[point] / limit[point] for mine, limit in zip(ours, bare)])
    return [line("p50", ratio("p50")), line("p90", ratio("p90")),
            line("p99", median(ratios), ("<=", 1.5), f"ratios {spread(ratios)}"), line("p999", ratio("p999")),
            Figure("500 at 10,000 msg/s: gateway CPU a message", median(cpu), "us")]


def idle(stage, quick):
    """100 active clients at 1,000 msg/s, alone and beside 10,000 that are connected and say nothing."""
    seconds = 4 if quick else 8
    # Heartbeats are a cost of idle clients of their own, measured below.
    gateway = stage.gateway(MAX_CONNECTIONS=10200, HEARTBEAT_INTERVAL=300)
    before = memory_kib(gateway.pid)

    def run():
        answer = stage.load(gateway, rate=1000, seconds=seconds, type="quorum")
        return stage.cpu_us(answer, gateway), answer["latency_us"]["queued"]["p99"] / 1000
    alone = [run()]
    with stage.idle_clients(gateway, 10000):
        beside = [run() for _ in range(1 if quick else 2)]
    if not quick:
        stage.wait_bindings(gateway, lambda bound: bound < 1000)
        alone.append(run())
    after = memory_kib(gateway.pid)
    stage.purge("quorum")
    stage.end(gateway)
    ratios = [a[0] / b[0] for a, b in zip(beside, alone)]
    alone_us, beside_us = (median([one[0] for one in runs]) for runs in (alone, beside))
    found = [
        Figure("100 at 1,000 msg/s alone: gateway CPU a message", alone_us, "us", stage.limits.get("echo_alone_us"),
               "raw echo", note=f"p99 {median([one[1] for one in alone]):.1f} ms"),
        Figure("the same beside 10,000 idle: gateway CPU a message", beside_us, "us", alone_us, "100 alone",
               median(ratios), ("<=", 2),
               note=f"ratios {spread(ratios)}; p99 {median([one[1] for one in beside]):.1f} ms"),
        Figure("resident memory with room for 10,200, before and after", after["rss"], "KiB", before["rss"], "before"),
    ]
    if not quick:
        gateway = stage.gateway(MAX_CONNECTIONS=10200, HEARTBEAT_INTERVAL=10)
        with stage.idle_clients(gateway, 10000):
            answer = stage.load(gateway, rate=1000, seconds=10, type="quorum")
        found.append(Figure("the same, and each idle client pinged every 10 s", stage.cpu_us(answer, gateway), "us",
                            alone_us, "100 alone"))
        stage.purge("quorum")
        stage.end(gateway)
    return found


def rows(stage, quick):
    """From the client to the committed row and back to the client's `stored`."""
    copy = stage.rows(seconds=2)
    statement = stage.store_rate(seconds=2)
    limits = [Figure("PostgreSQL alone, COPY by 500", copy["rows_rate"], "rows/s",
                     note=f"its CPU {copy['backend_cpu_us'] / copy['rows']:.1f} us a row"),
              Figure("PostgreSQL alone, the processor's statement by 500", statement["rows_rate"], "rows/s",
                     copy["rows_rate"], "COPY",
                     note=f"the store's CPU {statement['own_cpu_us'] / statement['rows']:.1f} us a row")]
    gateway = stage.gateway()
    processor = stage.processor()
    # Warm: links, statements, the first pages.
    stage.load(gateway, window=4, seconds=1, warmup=0, receipts="stored", until="stored")
    before = stage.database.query("SELECT count(*) FROM messages", database="bench")[0][0]
    seconds = 8 if quick else 25
    rate = 10500
    with DepthSampler(stage.broker, "messages") as depth:
        answer = stage.load(gateway, [processor], rate=rate, grid_us=GRID_US, seconds=seconds, warmup=2,
                            receipts="queued,stored", until="stored")
    after = stage.database.query("SELECT count(*) FROM messages", database="bench")[0][0]
    if after - before != answer["total"]["sent"]:
        raise Failure(f"{answer['total']['sent']} messages made {after - before} rows")
    waiting = [count for at, count in depth.samples if 2 < at < seconds + 2]
    third = max(1, len(waiting) // 3)
    first, last = median(waiting[:third]), median(waiting[-third:])
    stored = answer["latency_us"]["stored"]
    most = stage.load(gateway, [processor], window=16, seconds=3 if quick else 8, receipts="stored", until="stored")
    found = limits + [
        Figure(f"client to row at {rate:,} msg/s: stored", answer["stored_rate"], "rows/s", copy["rows_rate"],
               "COPY alone", None, (">=", 10000), False),
        Figure("  waiting in the queue, last third of the run", last, "messages", None, "", None,
               ("<=", first + rate / 4), False, note=f"first third {first:.0f}, most {max(waiting)}"),
        Figure("  processor CPU a row", stage.cpu_us(answer, processor, "stored"), "us", None, "", None, ("<=", 8),
               False),
        Figure("  gateway CPU a message, two receipts each", stage.cpu_us(answer, gateway, "stored"), "us"),
        Figure("  broker CPU a message", stage.cpu_us(answer, stage.broker.process, "stored"), "us"),
        Figure("  p50 of stored", stored["p50"] / 1000, "ms", note=percentiles(stored)),
        Figure("client to row, 100 x 16 closed loop: stored", most["stored_rate"], "rows/s", copy["rows_rate"],
               "COPY alone"),
        Figure("  processor CPU a row", stage.cpu_us(most, processor, "stored"), "us"),
    ]
    stage.end(processor)
    stage.end(gateway)
    return found


def usage(gateway):
    """The gateway's counters, which SIGHUP makes it log."""
    before = len(gateway.log(event="memory_used"))
    gateway.hang_up()
    wait_until(lambda: len(gateway.log(event="memory_used")) > before, 30, "memory_used in the log")
    return {key: int(value) for key, value in gateway.log(event="memory_used")[-1].items() if value.isdigit()}


def log_seconds(line):
    """The time of a log line."""
    return datetime.datetime.fromisoformat(line["ts"].replace("Z", "+00:00")).timestamp()


def outage(stage, gateway, **options):
    """The broker is stopped, 100 clients go on sending, and then it goes on. In the warm-up the window fills and the
    gateway stops waiting for confirms. Returns the load's answer and how the spool was written."""
    before = usage(gateway)
    stage.broker.stop()
    try:
        answer = stage.load(gateway, bytes=200, type="quorum", receipts="accepted", until="accepted", **options)
        after = usage(gateway)
    finally:
        stage.broker.cont()
    written, writes = (after[name] - before[name] for name in ("spool_written_bytes", "spool_writes"))
    return answer, {"batch": round(after["spool_messages"] / writes), "record_bytes": written // after["spool_messages"]}


def drain(stage, gateway, quick):
    """An outage at the rate that is wanted, and the drain behind it: messages a second from its first confirm on."""
    drained, told = (len(gateway.log(event=event)) for event in ("spool_drained", "spool_draining"))
    answer, _ = outage(stage, gateway, rate=20000, grid_us=GRID_US, warmup=3, seconds=2 if quick else 4)
    wait_until(lambda: len(gateway.log(event="spool_drained")) > drained, 120, "the spool to be drained", 0.05)
    begin, end = gateway.log(event="spool_draining")[told], gateway.log(event="spool_drained")[drained]
    return answer, int(begin["messages"]) / (log_seconds(end) - log_seconds(begin))


def spool(stage, quick):
    """The broker is stopped for a while: what is accepted, beside the disk alone; the drain, beside the direct way."""
    rounds = 2 if quick else 5
    most, disk, written, cpu = [], [], [], []
    for _ in range(rounds):
        gateway = stage.gateway(SPOOL_MAX_BYTES="1G", OUTBOX_BYTES="16M")
        answer, how = outage(stage, gateway, window=100, warmup=3, seconds=1.5)
        written.append(how)
        most.append(answer)
        cpu.append(stage.cpu_us(answer, gateway, "accepted"))
        disk.append(stage.disk(gateway.folder / "disk", seconds=1.5, **how))
        gateway.kill9()
        stage.end(gateway)
        shutil.rmtree(gateway.folder)
    gateway = stage.gateway(OUTBOX_BYTES="16M")
    direct, drains, steady = [], [], []
    for _ in range(rounds):
        stage.purge("quorum")
        direct.append(stage.load(gateway, window=16, seconds=3 if quick else 4, bytes=200,
                                 type="quorum")["queued_rate"])
        stage.purge("quorum")
        answer, rate = drain(stage, gateway, quick)
        steady.append(answer)
        drains.append(rate)
    stage.purge("quorum")
    stage.end(gateway)
    rates = [one["accepted_rate"] for one in most]
    of_disk = [a / b["records_rate"] for a, b in zip(rates, disk)]
    of_direct = [a / b for a, b in zip(drains, direct)]

    def latency(answers, point):
        return median([one["latency_us"]["accepted"][point] for one in answers]) / 1000
    return [
        Figure("200 bytes, 100 x 100, broker away: accepted", median(rates), "msg/s",
               median([one["records_rate"] for one in disk]), "disk alone", median(of_disk), (">=", 20000), False,
               note=f"{spread(rates)}; ratios {spread(of_disk)}"),
        Figure("  messages in one write and sync", median([one["batch"] for one in written]), "",
               note=f"{median([one['record_bytes'] for one in written]):.0f} bytes each on the disk; such a write and "
                    f"sync of the disk alone {median([one['latency_us']['p50'] for one in disk]) / 1000:.1f} ms"),
        Figure("  p50 of accepted", latency(most, "p50"), "ms", note=f"p99 {latency(most, 'p99'):.1f} ms"),
        Figure("  gateway CPU a message", median(cpu), "us", note=spread(cpu)),
        Figure("100 at 20,000 msg/s, broker away: p50 of accepted", latency(steady, "p50"), "ms",
               note=f"p99 {latency(steady, 'p99'):.1f} ms"),
        Figure("the drain when it is back", median(drains), "msg/s", median(direct), "direct, 100 x 16",
               median(of_direct), (">=", 0.7), note=f"ratios {spread(of_direct)}"),
    ] + untouched(stage, quick)


def untouched(stage, quick):
    """What a gateway with default settings writes to the disk while the broker is well."""
    wanted = 100_000 if quick else 1_000_000
    gateway = stage.gateway()
    before, log_before, count = written_bytes(gateway.pid), len(gateway.log_text()), 0
    while count < wanted:
        count += stage.load(gateway, window=16, seconds=4, warmup=0, bytes=200, type="quorum")["total"]["queued"]
        stage.purge("quorum")
    written, logged = written_bytes(gateway.pid) - before, len(gateway.log_text()) - log_before
    spooled = usage(gateway)["spool_written_bytes"]
    stage.end(gateway)
    # The first is the gateway's own word, the second the kernel's; a page of the log may be written more than once.
    return [Figure(f"{count:,} messages, broker well: bytes spooled", spooled, "bytes", target=("<=", 0)),
            Figure("  bytes a message given to the disk, without the log", max(0, written - logged) / count, "bytes",
                   target=("<=", 1), note=f"{written} bytes in all; the log grew by {logged}")]


def statements(stage, quick):
    """Ways to store batches of 500 with 1, 2 and 4 of them at the database at once."""
    ways = ("unnest", "pipelined", "staged", "copy")
    flights = (1, 2, 4)
    rates = {(way, flight): [] for way in ways for flight in flights}
    for _ in range(2 if quick else 5):
        for (way, flight), found in rates.items():
            if (way, flight) != ("pipelined", 1):  # that is unnest
                found.append(stage.statements(way=way, flight=flight, seconds=1 if quick else 2)["rows_rate"])
    base = rates["unnest", 1]
    return [Figure(f"{way}, {flight} in flight", median(found), "rows/s", median(base), "unnest, 1",
                   median([one / other for one, other in zip(found, base)]),
                   note="ratios " + spread([one / other for one, other in zip(found, base)]))
            for (way, flight), found in rates.items() if found]


def memory(stage, quick):
    """The gateway's memory from its start through thousands of clients that come and go in every way."""
    del quick
    count = 5000
    gateway = stage.gateway()
    start = memory_kib(gateway.pid)
    for name in range(2):
        stage.storm(gateway, count // 2)
        stage.load(gateway, connections=100, window=16, seconds=0.5, warmup=0, type="quorum")
    wait_until(gateway.alive, 1, "the gateway to be alive")
    end = memory_kib(gateway.pid)
    stage.purge("quorum")
    stage.end(gateway)
    growth = max(end["rss"], end["peak"]) - start["rss"]
    return [
        Figure(f"resident memory after {count:,} connects and disconnects", end["rss"], "KiB", start["rss"], "at start",
               None, ("<=", 1.01), note=f"peak {end['peak']} KiB, proportional {start['pss']} to {end['pss']} KiB"),
        Figure("growth at the peak", growth, "KiB"),
    ]


ALL = {"echo": echo, "closed": closed, "open": open_loop, "idle": idle, "rows": rows, "spool": spool,
       "statements": statements, "memory": memory}
