# SPDX-License-Identifier: MIT
"""WebSocket clients for tests: two independent implementations behind one face, and a raw socket for bad manners.

    client = Client(gateway.url("dev-7"))                  python3-websocket
    client = Client(gateway.url("dev-7"), "websockets")    python3-websockets
    client.greeting; client.send({...}); client.receive(); client.expect(status="stored"); client.close()
"""

import asyncio
import base64
import json
import os
import socket
import struct
import threading
import time
from urllib.parse import urlsplit

TIMEOUT_S = 60.0  # for anything that is sure to come; generous, because the machine may be slow


class Closed(Exception):
    """The gateway closed the connection, or refused it with an HTTP status."""

    def __init__(self, code, reason=""):
        super().__init__(f"closed with {code} {reason!r}")
        self.code = code
        self.reason = reason


class Silence(Exception):
    """Nothing came in time."""


class _WebSocketLibrary:
    """python3-websocket: blocking sockets."""

    def __init__(self, url, timeout_s):
        import websocket
        # This version takes the codes that IANA registered later for an error.
        websocket._abnf.VALID_CLOSE_STATUS = {*websocket._abnf.VALID_CLOSE_STATUS, 1012, 1013, 1014}
        self.module = websocket
        try:
            self.socket = websocket.create_connection(url, timeout=timeout_s)
        except websocket.WebSocketBadStatusException as error:
            raise Closed(error.status_code, str(error)) from None
        except websocket.WebSocketConnectionClosedException as error:
            raise Closed(1006, str(error)) from None

    def send(self, data, binary=False):
        try:
            self.socket.send(data, self.module.ABNF.OPCODE_BINARY if binary else self.module.ABNF.OPCODE_TEXT)
        except self.module.WebSocketConnectionClosedException as error:
            raise Closed(1006, str(error)) from None

    def receive(self, timeout_s):
        deadline = time.monotonic() + timeout_s
        try:
            # Control frames come back too (they are answered all the same), so that pings do not prolong the wait.
            opcode, data = self.module.ABNF.OPCODE_PING, b""
            while opcode in (self.module.ABNF.OPCODE_PING, self.module.ABNF.OPCODE_PONG):
                self.socket.settimeout(max(0.001, deadline - time.monotonic()))
                opcode, data = self.socket.recv_data(control_frame=True)
        except self.module.WebSocketTimeoutException:
            raise Silence(f"nothing within {timeout_s} s") from None
        except (self.module.WebSocketConnectionClosedException, ConnectionError) as error:
            raise Closed(1006, str(error)) from None
        if opcode == self.module.ABNF.OPCODE_CLOSE:
            code = struct.unpack("!H", data[:2])[0] if len(data) >= 2 else 1005
            raise Closed(code, data[2:].decode())
        return data.decode()

    def close(self):
        self.socket.close(timeout=10)

    def drop(self):
        self.socket.shutdown()


class _WebSocketsLibrary:
    """python3-websockets: asyncio, on a loop in a thread of its own, so that pings are answered at any time."""

    def __init__(self, url, timeout_s):
        import websockets
        self.module = websockets
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        try:
            self.socket = self._run(self._connect(url, timeout_s))
        except BaseException:
            self._end_loop()
            raise

    async def _connect(self, url, timeout_s):
        return await self.module.connect(url, open_timeout=timeout_s, ping_interval=None, close_timeout=10)

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def _end_loop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)

    def send(self, data, binary=False):
        try:
            self._run(self.socket.send(data))
        except self.module.exceptions.ConnectionClosed:
            pass  # receive() tells how it was closed

    def receive(self, timeout_s):
        try:
            return self._run(asyncio.wait_for(self.socket.recv(), timeout_s))
        except asyncio.TimeoutError:
            raise Silence(f"nothing within {timeout_s} s") from None
        except self.module.exceptions.ConnectionClosed as error:
            received = error.rcvd
            raise Closed(received.code if received else 1006, received.reason if received else "") from None

    def close(self):
        self._run(self.socket.close())
        self._end_loop()

    def drop(self):
        self.loop.call_soon_threadsafe(self.socket.transport.abort)
        self._end_loop()


LIBRARIES = {"websocket": _WebSocketLibrary, "websockets": _WebSocketsLibrary}


class Client:
    """A connected client. `greeting` is the first message; None when greet=False (a refusal is then received)."""

    def __init__(self, url, library="websocket", greet=True, timeout_s=TIMEOUT_S):
        self.connection = LIBRARIES[library](url, timeout_s)
        self.greeting = None
        self.sent_count = 0
        if greet:
            self.greeting = self.receive()
            assert self.greeting["type"] == "connected", self.greeting

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, message):
        self.send_text(json.dumps(message, separators=(",", ":")))

    def send_text(self, text):
        self.connection.send(text)
        self.sent_count += 1

    def send_binary(self, data):
        self.connection.send(data, binary=True)

    def receive_text(self, timeout_s=TIMEOUT_S):
        """The next text frame; Closed or Silence instead."""
        return self.connection.receive(timeout_s)

    def receive(self, timeout_s=TIMEOUT_S):
        return json.loads(self.receive_text(timeout_s))

    def expect(self, timeout_s=TIMEOUT_S, **fields):
        """Receives until a message has these fields, and returns it; what comes before is thrown away."""
        deadline = time.monotonic() + timeout_s
        seen = []
        while True:
            try:
                message = self.receive(max(0.01, deadline - time.monotonic()))
            except Silence:
                raise Silence(f"no message with {fields} within {timeout_s} s, but {seen[-5:]}") from None
            if all(message.get(key) == value for key, value in fields.items()):
                return message
            seen.append(message)

    def expect_close(self, timeout_s=TIMEOUT_S):
        """Receives until the gateway closes; returns the Closed."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.receive_text(max(0.01, deadline - time.monotonic()))
            except Closed as closed:
                return closed

    def silent(self, for_s):
        """True when nothing comes for that long."""
        try:
            self.receive_text(for_s)
            return False
        except Silence:
            return True

    def store(self, content="x", message_id=None, type_="text", timeout_s=TIMEOUT_S):
        """Sends one message and waits for queued and stored; returns the stored receipt."""
        message = {"type": type_, "content": content}
        if message_id:
            message["id"] = message_id
        self.send(message)
        self.expect(timeout_s, type="receipt", seq=self.sent_count, status="queued")
        return self.expect(timeout_s, type="receipt", seq=self.sent_count, status="stored")

    def close(self):
        self.connection.close()

    def drop(self):
        """Ends the TCP connection without a word of WebSocket."""
        self.connection.drop()


def connects(url):
    """Opens, greets, closes; True when the gateway let it in."""
    try:
        Client(url).close()
        return True
    except (Closed, AssertionError, OSError):
        return False


TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class RawClient:
    """A TCP connection that says exactly what the test says."""

    def __init__(self, url, timeout_s=TIMEOUT_S, receive_buffer=None):
        parts = urlsplit(url)
        self.path = parts.path + ("?" + parts.query if parts.query else "")
        self.host = parts.netloc
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout_s)
        self.socket.connect((parts.hostname, parts.port))
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def request(self, *headers, path=None, method="GET", version="HTTP/1.1"):
        """An upgrade request; headers replace the usual ones of the same name, "Name" alone leaves one out."""
        lines = {"host": f"Host: {self.host}", "upgrade": "Upgrade: websocket", "connection": "Connection: Upgrade",
                 "sec-websocket-key": "Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)).decode(),
                 "sec-websocket-version": "Sec-WebSocket-Version: 13"}
        for header in headers:
            name = header.split(":")[0].lower()
            if ":" in header:
                lines[name] = header
            else:
                lines.pop(name, None)
        return "\r\n".join([f"{method} {path or self.path} {version}", *lines.values(), "", ""]).encode("latin-1")

    def status(self):
        """Reads the HTTP answer; returns (status, headers in lower case)."""
        while b"\r\n\r\n" not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise Closed(0, f"no whole HTTP answer, but {self.buffer!r}")
            self.buffer += data
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return int(lines[0].split()[1]), headers

    def open(self):
        """Upgrade; returns self. The greeting is the first frame to read."""
        self.send(self.request())
        status, _ = self.status()
        assert status == 101, status
        return self

    @staticmethod
    def frame(payload=b"", opcode=TEXT, fin=True, reserved=0, mask=b"\x11\x22\x33\x44"):
        """One frame's bytes; mask=None leaves it unmasked."""
        first = (0x80 if fin else 0) | reserved << 4 | opcode
        bit = 0x80 if mask else 0
        if len(payload) < 126:
            head = bytes([first, bit | len(payload)])
        elif len(payload) < 65536:
            head = bytes([first, bit | 126]) + struct.pack("!H", len(payload))
        else:
            head = bytes([first, bit | 127]) + struct.pack("!Q", len(payload))
        if not mask:
            return head + payload
        return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))

    def _take(self, count):
        while len(self.buffer) < count:
            data = self.socket.recv(65536)
            if not data:
                raise Closed(0, "end of stream")
            self.buffer += data
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def read_frame(self):
        """(opcode, payload) of the next frame from the gateway, which is never masked and here never fragmented."""
        first, second = self._take(2)
        length = second
        if second == 126:
            length = struct.unpack("!H", self._take(2))[0]
        elif second == 127:
            length = struct.unpack("!Q", self._take(8))[0]
        assert not second & 0x80 and first & 0xF0 == 0x80, (first, second)
        return first & 0x0F, self._take(length)

    def read_close(self):
        """Reads until the close frame; returns its code. 0: the stream ended without one."""
        try:
            while True:
                opcode, payload = self.read_frame()
                if opcode == CLOSE:
                    return struct.unpack("!H", payload[:2])[0] if payload else 1005
        except (Closed, ConnectionError):
            return 0

    def ended(self):
        """Waits for the end of the stream; True when it came."""
        try:
            while self.socket.recv(65536):
                pass
            return True
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def close(self):
        self.socket.close()


class Bystander:
    """A well-behaved client in a thread, which must notice nothing of what a test does to others: every message it
    sends comes back as queued and then stored, in order, nothing else comes, and nobody closes it. It does not ask to
    hear `accepted`, which comes where the machine stood still for two seconds, whatever the test does."""

    def __init__(self, gateway):
        self.statuses = ["queued", "stored"]
        self.client = Client(gateway.url("bystander", "?receipts=" + ",".join(self.statuses)))
        self.complaint = None
        self.rounds = 0
        self.slowest_s = 0.0
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while not self.ending.is_set():
                self.rounds += 1
                start = time.monotonic()
                self.client.send({"type": "text", "content": "all is well", "id": f"by-{self.rounds}"})
                for status in self.statuses:
                    expected = {"type": "receipt", "seq": self.rounds, "id": f"by-{self.rounds}", "status": status}
                    got = self.client.receive()
                    if got != expected:
                        raise AssertionError(f"expected {expected}, got {got}")
                self.slowest_s = max(self.slowest_s, time.monotonic() - start)
                self.ending.wait(0.05)
        except Exception as error:  # pylint: disable=broad-except
            self.complaint = error

    def wait_rounds(self, count):
        """Waits until so many more rounds are done, so that what the test did has had its chance to disturb."""
        goal = self.rounds + count + 1
        deadline = time.monotonic() + TIMEOUT_S
        while self.rounds < goal and not self.complaint and time.monotonic() < deadline:
            time.sleep(0.02)
        self.check()
        assert self.rounds >= goal, "the bystander makes no progress"

    def check(self):
        assert self.complaint is None, f"the bystander noticed: {self.complaint!r}"

    def end(self):
        self.ending.set()
        self.thread.join(TIMEOUT_S)
        self.check()
        self.client.close()
