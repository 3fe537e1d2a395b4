# SPDX-License-Identifier: MIT
"""Locust users for a gateway: WebSocket clients that send at a chosen rate and wait for what becomes of each message.

One series of latencies a stage: `connect` (TCP, handshake, greeting), `send` (handing a message to the socket: long when
the gateway holds its clients back), and from then on `accepted`, `queued` and `stored`, as the receipts come. The last
stage asked for (`stored`, unless the receipts are chosen otherwise) has every message exactly once: as a success when
its receipt came, else as a failure, whose text is a code:

    no_receipt only_accepted only_queued     the receipt did not come in time; how far the message got
    unknown_type bad_json ...                the gateway's error code
    rejected:CODE dead:CODE                  the receipt that says so

`connect` fails with the gateway's refusal (already_connected, max_connections), http_STATUS, or what the network said
(econnrefused, timeout, unknown_host, tls, ...), or no_answer when the run ended before anybody was answered;
`connection` counts connections that were lost: closed_CODE, or what the network said. Both say not_a_gateway when
somebody answers who does not speak as a gateway does.
`busy` is the time a client was held back.

A user that loses its connection comes back under the same client id, as a device does, and sends again, with the same
ids, what has not had its last receipt: that may have come while nobody was there. Each message is stored once all the
same, and the successes of `stored` are the rows.

`lag` is Locust's own lateness. When it fails (locust_lag, locust_cpu), the other series show Locust and not the
gateway, and the log says so too.

The clients are python3-websocket's, plain blocking sockets, which gevent makes cooperative; asyncio's are not."""

import errno
import json
import logging
import os
import random
import socket
import ssl
import struct
import time
import urllib.parse
from itertools import count

import gevent
import gevent.event
import websocket
from locust import User, constant_pacing, events, task
from locust.runners import STATE_RUNNING, STATE_SPAWNING, MasterRunner, WorkerRunner

log = logging.getLogger("postern")
# This version of the library takes the codes that IANA registered later for an error.
websocket._abnf.VALID_CLOSE_STATUS = {*websocket._abnf.VALID_CLOSE_STATUS, 1012, 1013, 1014}

STAGES = ("accepted", "queued", "stored")
CONNECT_TIMEOUT_S = 20.0
PAUSE_FIRST_S = 0.5  # before the second attempt to connect; it doubles
PAUSE_MAX_S = 10.0
CLOSE_TIMEOUT_S = 5.0
EXPIRE_EVERY_S = 0.25
LAG_EVERY_S = 0.05
LAG_MS_MAX = 100.0
NOT_GATEWAYS = (ValueError, LookupError, TypeError, AttributeError)  # from words that a gateway does not say
SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}

RUN = os.urandom(4).hex()  # so that no two runs, and no two workers, use the same client ids
numbers = count(1)
users = set()  # those of this process


class Code(Exception):
    """A failure. Locust groups failures by their repr()."""

    def __repr__(self):
        return str(self)


def note(environment, name, ms, code=None, size=0, kind="ws"):
    """One entry of a series; with a code it is a failure."""
    environment.events.request.fire(request_type=kind, name=name, response_time=ms, response_length=size,
                                    exception=Code(code) if code else None, context={})


def since_ms(start_s):
    return (time.perf_counter() - start_s) * 1000


def network_code(error):
    """What went wrong on the way, as a word."""
    if isinstance(error, (websocket.WebSocketTimeoutException, TimeoutError)):
        return "timeout"
    # Before errno: they number their errors in a way of their own.
    if isinstance(error, (socket.gaierror, websocket.WebSocketAddressException)):
        return "unknown_host"
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, OSError) and error.errno in errno.errorcode:
        return errno.errorcode[error.errno].lower()
    if isinstance(error, websocket.WebSocketConnectionClosedException):
        return "ended_without_close"
    return type(error).__name__


@events.init_command_line_parser.add_listener
def add_options(parser):
    parser.add_argument("--rate", type=float, default=1.0, help="messages a second of each user; 0: none, just stay")
    parser.add_argument("--message-bytes", type=int, default=200, help="length of each message, about")
    parser.add_argument("--message-type", default="text", help="the messages' type")
    parser.add_argument("--receipts", default="default", help="as in the URL: any of accepted,queued,stored, or none")
    parser.add_argument("--receipt-timeout", type=float, default=30.0, help="seconds to wait for the last receipt")
    parser.add_argument("--roam-seconds", type=float, default=5.0, help="how long a Roaming user stays connected")
    parser.add_argument("--client-prefix", default="load", help="what the client ids begin with")
    parser.add_argument("--token", default="", help="goes into the URL as token=..., for what stands before the gateway")
    parser.add_argument("--query", default="", help="more for the URL, behind its ?")
    parser.add_argument("--figures", default="", include_in_web_ui=False, help="a file for the final figures, as JSON")


class Message:
    """One that waits for receipts."""

    def __init__(self, text):
        self.text = text
        self.sent_s = time.perf_counter()  # when it was sent first
        self.reached = None  # the last stage it is known to have reached


class Device(User):
    """Has one greenlet for its connection (connect, listen, connect again) beside the one that sends."""

    abstract = True

    def __init__(self, environment):
        super().__init__(environment)
        self.options = environment.parsed_options
        self.client_id = f"{self.options.client_prefix}-{RUN}-{next(numbers)}"
        self.last_stage = self._last_stage()
        self.sent_count = 0
        self.waiting = {}  # messages by id, the oldest first
        self.socket = None
        self.is_open = gevent.event.Event()
        self.is_held = False  # the user waits for the connection
        self.is_leaving = False  # the connection ends because we want it to
        self.is_ending = False  # and no other follows
        self.busy_since_s = None
        self.life = None

    def _last_stage(self):
        if self.options.receipts == "default":
            return STAGES[-1]
        chosen = self.options.receipts.split(",")
        # `accepted` comes only when the broker is away, so nobody can wait for it.
        return next((stage for stage in reversed(STAGES[1:]) if stage in chosen), None)

    def url(self):
        scheme, _, address = self.environment.host.rpartition("://")
        query = [] if self.options.receipts == "default" else [f"receipts={self.options.receipts}"]
        query += [f"token={urllib.parse.quote(self.options.token)}"] if self.options.token else []
        query += [self.options.query] if self.options.query else []
        return f"{SCHEMES.get(scheme, 'ws')}://{address.rstrip('/')}/{self.client_id}{'?' if query else ''}{'&'.join(query)}"

    def wait_time(self):
        return constant_pacing(1 / self.options.rate if self.options.rate > 0 else 1.0)(self)

    # ---- Locust's side ----

    def on_start(self):
        users.add(self)
        self.life = gevent.spawn(self._live)
        self._wait_open()

    def stop(self, force=False):
        """One that waits for the gateway has no task that will end, so it is stopped in the middle of it."""
        return super().stop(force or self.is_held)

    def on_stop(self):
        """Waits for the receipts that are still to come; each comes or fails by its time."""
        while self.waiting:
            gevent.sleep(EXPIRE_EVERY_S)
        users.discard(self)
        self.is_ending = True
        self.leave()
        self.life.join(CLOSE_TIMEOUT_S)
        self.life.kill()

    @task
    def send(self):
        if self.options.rate <= 0:
            return
        self._wait_open()
        self.sent_count += 1
        message_id = f"m{self.sent_count}"
        head = f'{{"type":"{self.options.message_type}","id":"{message_id}","content":"'
        message = Message(head + "x" * max(0, self.options.message_bytes - len(head) - 2) + '"}')
        if self.last_stage:
            self.waiting[message_id] = message
        self._send(message)

    def _wait_open(self):
        self.is_held = True
        self.is_open.wait()
        self.is_held = False

    # ---- The connection ----

    def _live(self):
        pause_s = PAUSE_FIRST_S
        while not self.is_ending:
            if self._connect():
                pause_s = PAUSE_FIRST_S
                gevent.spawn(self._send_again, list(self.waiting.values()))
                self.is_open.set()
                self._listen()
                if self.is_leaving:
                    self.is_leaving = False
                    continue
            gevent.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def _connect(self):
        start_s = time.perf_counter()
        try:
            opened = websocket.create_connection(self.url(), timeout=CONNECT_TIMEOUT_S, enable_multithread=True)
            opcode, data = opened.recv_data()
            code = closing_code(data) if opcode == websocket.ABNF.OPCODE_CLOSE else greeting_code(data)
        except websocket.WebSocketBadStatusException as error:
            code = f"http_{error.status_code}"
        except (OSError, websocket.WebSocketException) as error:
            code = network_code(error)
        note(self.environment, "connect", since_ms(start_s), code)
        if code:
            return False
        opened.settimeout(None)
        self.socket = opened
        return True

    def leave(self):
        """Begins the closing handshake; _listen() sees its end."""
        if self.socket:
            self.is_leaving = True
            self.is_open.clear()
            try:
                self.socket.send_close()
            except (OSError, websocket.WebSocketException):
                pass

    def _send_again(self, messages):
        for message in messages:
            self._send(message)

    def _send(self, message):
        start_s = time.perf_counter()
        try:
            self.socket.send(message.text)
        except (OSError, AttributeError, websocket.WebSocketException):
            return  # the connection is gone: _listen() says why, and the message is sent again on the next one
        note(self.environment, "send", since_ms(start_s), size=len(message.text))

    def _listen(self):
        """Until the connection is gone; says why, unless we wanted it."""
        listening = self.socket
        try:
            while True:
                opcode, data = listening.recv_data()
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    code = f"closed_{closing_code(data)}"
                    break
                self._hear(json.loads(data))
        except (OSError, websocket.WebSocketException) as error:
            code = network_code(error)
        except NOT_GATEWAYS:
            code = "not_a_gateway"
        self.socket = None
        self.is_open.clear()
        listening.shutdown()
        if not self.is_leaving:
            note(self.environment, "connection", 0, code)

    # ---- What the gateway says ----

    def _hear(self, said):
        kind = said.get("type")
        if kind == "busy":
            self.busy_since_s = self.busy_since_s or time.perf_counter()
        elif kind == "error":
            self._finish(said.get("id"), said["code"])
        elif kind == "receipt":
            if self.busy_since_s:
                note(self.environment, "busy", since_ms(self.busy_since_s))
                self.busy_since_s = None
            self._receipt(said.get("id"), said["status"], said.get("code"))

    def _receipt(self, message_id, status, code):
        message = self.waiting.get(message_id)
        if message is None or status == message.reached:
            return  # it came too late and has failed, or it is said again after an outage
        if status not in STAGES:
            self._finish(message_id, f"{status}:{code}")
        elif status == self.last_stage:
            self._finish(message_id)
        else:
            message.reached = status
            note(self.environment, status, since_ms(message.sent_s))

    def _finish(self, message_id, code=None):
        message = self.waiting.pop(message_id, None)
        if message:
            note(self.environment, self.last_stage, since_ms(message.sent_s), code)

    def expire(self):
        """Gives up what waited too long."""
        while self.waiting:
            message_id, message = next(iter(self.waiting.items()))
            if since_ms(message.sent_s) < self.options.receipt_timeout * 1000:
                return
            self._finish(message_id, f"only_{message.reached}" if message.reached else "no_receipt")


class Steady(Device):
    """Stays connected."""

    weight = 4


class Roaming(Device):
    """Comes and goes, and finds the receipts of what it sent before."""

    weight = 1

    def on_start(self):
        self.roaming = gevent.spawn(self._roam)  # first, for who is stopped while it waits for the gateway
        super().on_start()

    def on_stop(self):
        self.roaming.kill()
        super().on_stop()

    def _roam(self):
        while True:
            gevent.sleep(random.uniform(0.5, 1.5) * self.options.roam_seconds)
            self.is_open.wait()
            self.leave()


def greeting_code(data):
    """None when a gateway takes us."""
    try:
        said = json.loads(data)
        return None if said["type"] == "connected" else said["code"] or "not_a_gateway"
    except NOT_GATEWAYS:
        return "not_a_gateway"


def closing_code(data):
    return struct.unpack("!H", data[:2])[0] if len(data) >= 2 else 1005


# ---- What is watched beside the users ----

def watch_receipts():
    while True:
        gevent.sleep(EXPIRE_EVERY_S)
        for user in list(users):
            user.expire()


def watch_lag(environment):
    """How late this process's own loop is: once a second, the worst of it."""
    while True:
        worst_ms = 0.0
        for _ in range(round(1 / LAG_EVERY_S)):
            start_s = time.perf_counter()
            gevent.sleep(LAG_EVERY_S)
            worst_ms = max(worst_ms, since_ms(start_s) - LAG_EVERY_S * 1000)
        if environment.runner.state in (STATE_SPAWNING, STATE_RUNNING):
            is_late = worst_ms > LAG_MS_MAX
            note(environment, "lag", worst_ms, "locust_lag" if is_late else None, kind="locust")
            if is_late:
                log.warning("Locust is the bottleneck: it was %.0f ms late. Fewer users, or more machines.", worst_ms)


@events.cpu_warning.add_listener
def on_cpu_warning(environment, cpu_usage, **_):
    note(environment, "lag", 0, "locust_cpu", kind="locust")
    log.warning("Locust is the bottleneck: it uses %.0f %% of a core. Fewer users, or more machines.", cpu_usage)


@events.init.add_listener
def on_init(environment, runner, **_):
    if not isinstance(runner, MasterRunner):
        gevent.spawn(watch_receipts)
        gevent.spawn(watch_lag, environment)


@events.test_stop.add_listener
def on_test_stop(environment, **_):
    """One line that can be compared with the rows, and a file: Locust's own .csv files are some seconds old."""
    stats = environment.stats
    is_answered = any(name == "connect" for name, _ in stats.entries)
    if environment.runner.target_user_count > 0 and not is_answered and not isinstance(environment.runner, WorkerRunner):
        note(environment, "connect", 0, "no_answer")
    series = {name: {"succeeded": entry.num_requests - entry.num_failures, "failed": entry.num_failures,
                     "median_ms": entry.median_response_time, "p99_ms": entry.get_response_time_percentile(0.99)}
              for (name, _), entry in sorted(stats.entries.items())}
    log.info("In all: %s", ", ".join(
        f"{name} {each['succeeded']}" + (f" ({each['failed']} failed)" if each["failed"] else "")
        for name, each in series.items()) or "nothing")
    if environment.parsed_options.figures:
        failures = [{"series": error.name, "code": repr(error.error), "times": error.occurrences}
                    for error in stats.errors.values()]
        with open(environment.parsed_options.figures, "w", encoding="utf-8") as file:
            json.dump({"series": series, "failures": failures}, file, indent=1)
    if any(error.name == "lag" for error in stats.errors.values()):
        log.warning("Locust was the bottleneck for a part of the time: the figures show Locust rather than the gateway.")
