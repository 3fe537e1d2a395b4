# SPDX-License-Identifier: MIT
"""Many WebSocket clients in one thread, around one epoll: they send, note their receipts in the ledger, and come back
when their connection is lost. They know the protocol, and nothing of what is being done to the pipeline."""

import base64
import json
import os
import random
import select
import socket
import struct
import threading
import time

OPEN_MAX = 32  # messages without any receipt; then a client waits
OUT_BYTES_MAX = 65536  # unsent; likewise
BURST_MAX = 20
SILENCE_S = 6.0  # with messages open: then the client takes the connection for dead
SILENCE_BUSY_S = 20.0  # likewise, after it was told `busy`
SILENCE_LAST_S = 10.0  # with messages open, while nothing new is sent: then it sends them again
TICK_S = 0.01
RECEIPTS = {5: "?receipts=stored", 6: "?receipts=accepted,queued", 7: "?receipts=accepted,queued,stored"}
CLOSES_EXPECTED = {1001, 1005, 1006, 1012, 4010}
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


def frame(payload, opcode=TEXT):
    """A client's frame: whole and masked."""
    mask = os.urandom(4)
    length = len(payload)
    head = bytes([0x80 | opcode, 0x80 | length]) if length < 126 else struct.pack("!BBH", 0x80 | opcode, 0xFE, length)
    key = (mask * (length // 4 + 1))[:length]
    masked = int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")
    return head + mask + masked.to_bytes(length, "little")


class Member:
    """One client: a connection now and then, and its account."""

    def __init__(self, fleet, account):
        self.fleet = fleet
        self.account = account
        self.socket = None
        self.state = "away"  # away, connecting, upgrading, greeting, open
        self.retry_at = 0.0
        self.out = bytearray()
        self.received = bytearray()
        self.events = 0
        self.heard_at = 0.0
        self.was_busy = False
        self.asked_again_at = 0.0

    # The connection.

    def connect(self, now):
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.out.clear()
        self.received.clear()
        self.was_busy = False
        self.heard_at = now
        self.state = "connecting"
        try:
            self.socket.connect(self.fleet.address)
        except BlockingIOError:
            pass
        except OSError:
            self.lose(now)
            return
        self.fleet.members_by_fd[self.socket.fileno()] = self
        self.events = select.EPOLLOUT
        self.fleet.epoll.register(self.socket, self.events)

    def lose(self, now, code=1006, how="lost", abandon=False, reset=False):
        """The connection is gone, or given up; `abandon` keeps its socket open and silent, `reset` says RST."""
        if self.socket is None:
            return
        if self.fleet.members_by_fd.pop(self.socket.fileno(), None):
            self.fleet.epoll.unregister(self.socket)
        if abandon:
            self.fleet.abandoned.append((now + 8.0, self.socket))
        else:
            if reset:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.socket.close()
        self.socket = None
        if self.state == "open":
            self.fleet.open_count -= 1
            self.fleet.lost_count += 1
            self.account.note("connection " + how, None, code)
        self.state = "away"
        self.retry_at = now + self.fleet.random.uniform(0.02, 0.5)

    def want(self):
        events = select.EPOLLIN | (select.EPOLLOUT if self.out else 0)
        if events != self.events:
            self.events = events
            self.fleet.epoll.modify(self.socket, events)

    def on_event(self, events, now):
        try:
            if self.state == "connecting":
                error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error, "connect")
                query = RECEIPTS.get(self.account.index % 8, "")
                key = base64.b64encode(os.urandom(16)).decode()
                self.out += (f"GET /{self.account.name}{query} HTTP/1.1\r\nHost: gate\r\nUpgrade: websocket\r\n"
                             f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                             "Sec-WebSocket-Version: 13\r\n\r\n").encode()
                self.state = "upgrading"
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                data = self.socket.recv(65536)
                if not data:
                    raise ConnectionResetError
                self.heard_at = now
                self.received += data
                self.read(now)
            if self.socket is not None:
                self.flush()
        except BlockingIOError:
            pass
        except OSError:
            self.lose(now)

    def flush(self):
        if self.out:
            try:
                del self.out[:self.socket.send(self.out)]
            except BlockingIOError:
                pass
        self.want()

    # What comes.

    def read(self, now):
        if self.state == "upgrading":
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self.received.startswith(b"HTTP/1.1 101 "):
                status = bytes(self.received[:40]).split(b"\r\n")[0].decode("latin-1")
                if not status.startswith("HTTP/1.1 503 "):  # the gateway is restarting
                    self.account.complain("refused", None, status)
                self.lose(now)
                return
            del self.received[:end + 4]
            self.state = "greeting"
        at = 0
        data = self.received
        while self.socket is not None and len(data) - at >= 2:
            opcode, length, head = data[at] & 0x0F, data[at + 1], 2
            if length == 126:
                if len(data) - at < 4:
                    break
                length, head = struct.unpack_from("!H", data, at + 2)[0], 4
            if len(data) - at < head + length:
                break
            payload = bytes(data[at + head:at + head + length])
            at += head + length
            self.on_frame(opcode, payload, now)
        if self.socket is not None:
            del data[:at]

    def on_frame(self, opcode, payload, now):
        if opcode == TEXT:
            self.on_message(json.loads(payload), now)
        elif opcode == PING:
            self.out += frame(payload, PONG)
        elif opcode == CLOSE:
            code = struct.unpack("!H", payload[:2])[0] if payload else 1005
            self.fleet.closes[code] = self.fleet.closes.get(code, 0) + 1
            if code not in CLOSES_EXPECTED:
                self.account.complain("refused", None, f"closed with {code} {payload[2:].decode()!r}")
            self.lose(now, code, "closed")

    def on_message(self, message, now):
        kind = message["type"]
        if kind == "receipt":
            self.fleet.on_receipt(self.account, self.account.receipt(message), message)
        elif kind == "busy":
            self.was_busy = True
            self.fleet.busy_count += 1
            self.account.note("busy")
        elif kind == "connected" and self.state == "greeting":
            self.state = "open"
            self.fleet.open_count += 1
            for number in self.account.begin():
                self.put(number, again=True)
        else:
            self.account.complain("refused", None, json.dumps(message))

    # What goes.

    def put(self, number, again=False):
        self.out += frame(self.account.text(number).encode())
        self.account.sent(number, again)
        if again:
            self.fleet.again_count += 1
        else:
            self.fleet.sent_count += 1

    def may_send(self):
        return self.state == "open" and len(self.account.open) < OPEN_MAX and len(self.out) < OUT_BYTES_MAX

    def send(self, count, now):
        for _ in range(count):
            if not self.may_send():
                break
            self.put(self.account.new_message())
        try:
            self.flush()
        except OSError:
            self.lose(now)

    def watch(self, now):
        """Is the connection dead? Then it is given up, as any client would."""
        if self.state == "away":
            return
        silence_s = now - self.heard_at
        limit_s = SILENCE_BUSY_S if self.was_busy else SILENCE_S
        if (self.account.open or self.state != "open") and silence_s > limit_s:
            self.lose(now, how="given up")
        elif self.fleet.is_sending or not self.account.open:
            self.asked_again_at = now
        elif now - self.asked_again_at > SILENCE_LAST_S:
            self.asked_again_at = now
            self.lose(now, how="given up")


class Fleet:
    """The clients and their thread. What others ask of it (drop, is_sending) is done there, in its next tick."""

    def __init__(self, ledger, address, rate, seed):
        self.address = address
        self.rate = rate
        self.random = random.Random(seed)
        self.epoll = select.epoll()
        self.members = [Member(self, account) for account in ledger.accounts]
        self.members_by_fd = {}
        self.abandoned = []
        self.orders = []
        self.is_sending = False
        self.is_connecting = False
        self.is_ending = False
        self.failure = None
        self.sent_count = self.again_count = self.busy_count = self.open_count = self.lost_count = 0
        self.heard = {"accepted": 0, "queued": 0, "stored": 0}
        self.closes = {}
        self.samples = []  # (client, id) that were just called stored
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def on_receipt(self, account, rank, receipt):
        if rank:
            self.heard[receipt["status"]] += 1
        if rank == 3 and "id" in receipt and self.heard["stored"] % 50 == 0 and len(self.samples) < 5000:
            self.samples.append((account.name, receipt["id"]))

    def drop(self, count, how):
        """So many connections end at once: "reset", "closed" or "abandoned" (the socket stays and says nothing)."""
        self.orders.append((count, how))

    def open_messages(self):
        """Messages with an id that have no receipt."""
        return sum(len(member.account.open) for member in self.members)

    def end(self):
        self.is_ending = True
        self.thread.join(30)

    def _run(self):
        try:
            last = watched = time.monotonic()
            credit = 0.0
            while not self.is_ending:
                for fd, events in self.epoll.poll(TICK_S):
                    member = self.members_by_fd.get(fd)
                    if member:
                        member.on_event(events, time.monotonic())
                now = time.monotonic()
                credit = min(credit + (now - last) * self.rate, self.rate * 0.2)
                last = now
                if self.is_sending:
                    credit = self._send(credit, now)
                self._obey(now)
                if now - watched > 0.2:
                    watched = now
                    for member in self.members:
                        member.watch(now)
                if self.is_connecting:
                    for member in self.members:
                        if member.state == "away" and now >= member.retry_at:
                            member.connect(now)
            for member in self.members:
                member.lose(0)
        except Exception as error:  # pylint: disable=broad-except
            self.failure = error
            raise

    def _send(self, credit, now):
        for _ in range(64):
            if credit < 1:
                break
            member = self.random.choice(self.members)
            count = self.random.choice((1, 1, 1, 2, 4, BURST_MAX))
            if member.may_send():
                member.send(count, now)
            credit -= count
        return credit

    def _obey(self, now):
        while self.orders:
            count, how = self.orders.pop()
            members = [member for member in self.members if member.state == "open"]
            for member in self.random.sample(members, min(count, len(members))):
                member.lose(now, how=how, abandon=how == "abandoned", reset=how == "reset")
        while self.abandoned and now >= self.abandoned[0][0]:
            self.abandoned.pop(0)[1].close()
        if not self.is_connecting:
            for member in self.members:
                if member.state != "away":
                    member.lose(now, how="closed at the round's end", reset=False)
