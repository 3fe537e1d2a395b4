# SPDX-License-Identifier: MIT
"""Clients that keep sending while a test breaks something, and know what they were told."""

import json
import threading
import time

from clients import TIMEOUT_S, Client, Closed, Silence


class Sender:
    """One client that sends numbered messages until it is told to stop, and notes each receipt."""

    def __init__(self, url, pause_s=0.005):
        self.client = Client(url)
        self.name = self.client.greeting["client_id"]
        self.pause_s = pause_s
        self.sent = 0
        self.accepted = []  # ids in the order of their receipts
        self.queued = []
        self.stored = set()
        self.busy_count = 0
        self.heard_at = time.monotonic()
        self.complaint = None
        self.ending = threading.Event()
        self.all_sent = threading.Event()  # `sent` changes no more
        self.threads = [threading.Thread(target=self._guarded, args=(each,), daemon=True)
                        for each in (self._send, self._receive)]
        for thread in self.threads:
            thread.start()

    def _guarded(self, function):
        try:
            function()
        except (Closed, OSError, AssertionError) as error:
            self.complaint = self.complaint or error

    def _send(self):
        try:
            while not self.ending.is_set():
                self.client.send({"type": "text", "content": self.sent, "id": f"m{self.sent}"})
                self.sent += 1
                time.sleep(self.pause_s)
        finally:
            self.all_sent.set()

    def _receive(self):
        while not (self.all_sent.is_set() and len(self.stored) == self.sent):
            try:
                message = json.loads(self.client.receive_text(1))
            except Silence:
                continue
            self.heard_at = time.monotonic()
            if message["type"] == "busy":
                self.busy_count += 1
                continue
            assert message["type"] == "receipt", message
            if message["status"] == "accepted":
                assert message["id"] not in self.stored and message["id"] not in self.queued[-2000:], message
                self.accepted.append(message["id"])
            elif message["status"] == "queued":
                assert message["id"] not in self.stored, f"backwards: {message}"
                self.queued.append(message["id"])
            else:
                assert message["status"] == "stored", message
                self.stored.add(message["id"])

    def missing(self):
        """Ids of what was sent and not stored, as far as we were told."""
        return [name for number in range(self.sent) if (name := f"m{number}") not in self.stored]

    def check(self):
        assert self.complaint is None, f"{self.name} after {self.sent} messages: {self.complaint!r}"


class Load:
    """Several senders on one gateway."""

    def __init__(self, gateway, clients=5, pause_s=0.005):
        self.senders = [Sender(gateway.url(f"dev-{number}"), pause_s) for number in range(clients)]

    def wait_sent(self, more):
        """Waits until each sender has sent so many more."""
        goals = [(sender, sender.sent + more) for sender in self.senders]
        deadline = time.monotonic() + TIMEOUT_S
        while any(sender.sent < goal for sender, goal in goals):
            self.check()
            assert time.monotonic() < deadline, "the senders make no progress"
            time.sleep(0.01)

    def wait_stored(self, more, timeout_s=TIMEOUT_S):
        """Waits until each sender has heard `stored` so many more times."""
        goals = [(sender, len(sender.stored) + more) for sender in self.senders]
        deadline = time.monotonic() + timeout_s
        while any(len(sender.stored) < goal for sender, goal in goals):
            self.check()
            assert time.monotonic() < deadline, "no more messages are stored"
            time.sleep(0.01)

    def check(self):
        for sender in self.senders:
            sender.check()

    def end(self, timeout_s=120):
        """Stops sending, waits until each message is stored, as long as receipts come within timeout_s of each other;
        nobody was disturbed."""
        for sender in self.senders:
            sender.ending.set()
        for sender in self.senders:
            while any(thread.is_alive() for thread in sender.threads):
                self.check()
                silence_s = time.monotonic() - max(each.heard_at for each in self.senders)
                assert silence_s < timeout_s, f"nothing for {silence_s:.0f} s; no `stored` receipt: " + ", ".join(
                    f"{each.name} {each.missing()}" for each in self.senders)
                time.sleep(0.01)
            sender.check()
            assert not sender.missing()
            sender.client.close()

    def assert_all_rows(self, pipeline, in_order=True):
        """Every message is in PostgreSQL, once, and (with one processor) in the order it was sent."""
        for sender in self.senders:
            ids = pipeline.message_ids(sender.name)
            expected = [f"m{number}" for number in range(sender.sent)]
            assert len(ids) == len(expected), f"{sender.name}: {len(ids)} rows for {len(expected)} messages"
            if in_order:
                wrong = [index for index in range(len(ids)) if ids[index] != expected[index]]
                assert not wrong, (f"{sender.name}: out of order from row {wrong[0]} to {wrong[-1]} of {len(ids)}: "
                                   f"{ids[max(0, wrong[0] - 2):wrong[0] + 8]}")
            else:
                assert set(ids) == set(expected)
            assert len(sender.queued) == len(set(sender.queued)), f"{sender.name}: `queued` twice for one message"
