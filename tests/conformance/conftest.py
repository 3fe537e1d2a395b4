# SPDX-License-Identifier: MIT
"""Runs each test against the echo server on both pollers, and asks at the end whether it gave everything back."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from programs import find_program  # noqa: E402
from wire import Client  # noqa: E402


class EchoServer:
    def __init__(self, poller):
        program = find_program(os.environ.get("POSTERN_BUILD", "debug"), "echo_server")
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", program, "--port", "0", "--poller", poller],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        self.port = int(line)

    def stop(self):
        """Ends it; returns what it says is still lent: buffers, chunks, open connections."""
        self.process.send_signal(signal.SIGTERM)
        output, errors = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, errors
        return tuple(int(number) for number in re.findall(r"\d+", output))


@pytest.fixture(scope="session", params=["poll", "epoll"])
def server(request):
    running = EchoServer(request.param)
    yield running
    with Client(running.port) as last:
        for _ in range(100):
            last.alive()  # and had a turn for the ends of the streams closed before
        assert running.stop() == (0, 0, 1)


@pytest.fixture
def client(server):
    with Client(server.port) as opened:
        yield opened
