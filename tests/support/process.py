# SPDX-License-Identifier: MIT
"""Child processes that end with us, ports nobody else has, and waiting by condition.

Every process is started in a session of its own (so that Ctrl-C reaches only us) under `setpriv --pdeathsig`, so that
the kernel ends it even when we are killed. All signals go by pid.
"""

import fcntl
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PORT_FIRST = 21000
PORT_LAST = 22999
_ports_given = {}  # to the open file that claims it


class Failure(Exception):
    """Something that was started did not do what it was started for; the text is for a person."""


def wait_until(condition, timeout_s=30.0, what="the condition", every_s=0.02):
    """Returns the first truthy value of condition(); raises Failure when none came in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise Failure(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(every_s)


def port_is_free(port, host="127.0.0.1"):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def claim_port(port):
    """Takes a port for the rest of this process's life; False when another run on this machine has it. A port that is
    merely free may belong to a broker that a test has just killed and is about to start again."""
    folder = Path(tempfile.gettempdir()) / f"postern-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    claim = open(folder / str(port), "w", encoding="ascii")
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        claim.close()
        return False
    _ports_given[port] = claim
    return True


def free_port(preferred=None):
    """A loopback port that is free now and that no test run on this machine has been given."""
    candidates = [preferred] if preferred else []
    candidates += random.sample(range(PORT_FIRST, PORT_LAST + 1), PORT_LAST + 1 - PORT_FIRST)
    for port in candidates:
        if port not in _ports_given and port_is_free(port) and claim_port(port):
            return port
    raise Failure(f"no free port between {PORT_FIRST} and {PORT_LAST}")


def tail(path, lines=20):
    """The last lines of a text file, or a word about why there are none."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16384))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
    except OSError as error:
        return f"({error})"


def children_of(pid):
    """The direct children of a process."""
    try:
        found = []
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                found += [int(word) for word in file.read().split()]
        return found
    except OSError:
        return []


class Process:
    """One child process with its output in a file."""

    def __init__(self, name, command, folder, env, output, user=None, death_signal="KILL"):
        self.name = name
        self.command = [str(word) for word in command]
        self.folder = Path(folder)
        self.env = env
        self.output = Path(output)
        self.user = user  # (uid, gid) or None for our own
        self.death_signal = death_signal
        self.popen = None
        self.asked_to_end = False

    @property
    def pid(self):
        return self.popen.pid

    def start(self):
        if self.alive():
            raise Failure(f"{self.name} runs already")
        self.asked_to_end = False
        self.output.parent.mkdir(parents=True, exist_ok=True)
        prefix = ["setpriv", "--pdeathsig", self.death_signal]
        if self.user:
            uid, gid = self.user
            prefix += [f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        with open(self.output, "ab") as output:
            self.popen = subprocess.Popen(
                prefix + ["--"] + self.command, cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True)
        return self

    def alive(self):
        return self.popen is not None and self.popen.poll() is None

    def check_alive(self):
        if not self.alive():
            code = self.popen.returncode if self.popen else None
            raise Failure(f"{self.name} ended by itself (exit {code}); {self.output} ends with:\n{tail(self.output)}")

    def send_signal(self, number):
        if self.alive():
            os.kill(self.pid, number)
            self.asked_to_end = self.asked_to_end or number == signal.SIGTERM

    def wait(self, timeout_s=30.0):
        """The exit code (negative: the signal); Failure when it does not end in time."""
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} (pid {self.pid}) did not end within {timeout_s:g} s") from None

    def stop(self):
        """SIGSTOP: the process keeps its sockets and does nothing."""
        self.send_signal(signal.SIGSTOP)
        wait_until(lambda: self._status("State") == "T", 30, f"{self.name} to stop")

    def cont(self):
        """Undoes stop(). Nothing when it is not stopped: a SIGCONT that comes while LeakSanitizer stops the threads of
        a process that ends would take back that stop, and it would wait for ever."""
        if self.alive() and self._status("State") == "T":
            self.send_signal(signal.SIGCONT)

    def kill9(self):
        """SIGKILL, and waits until it is gone."""
        if self.alive():
            self.send_signal(signal.SIGKILL)
            self.wait()

    def end(self, number=signal.SIGTERM, timeout_s=30.0):
        """Asks the process to end, unless it was asked before (asked twice, our programs stop at once); kills it when
        it does not. Returns the exit code."""
        if self.popen is None:
            return None
        if number != signal.SIGTERM or not self.asked_to_end:
            self.send_signal(number)
        self.cont()
        try:
            return self.wait(timeout_s)
        except Failure:
            self.kill9()
            raise

    def _status(self, name):
        """A line of /proc/PID/status."""
        with open(f"/proc/{self.pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(name + ":"):
                    return line.split()[1]
        return "0"

    def rss_bytes(self):
        return int(self._status("VmRSS")) * 1024

    def handles(self, number):
        """Has the process installed a handler for this signal?"""
        return bool(int(self._status("SigCgt"), 16) >> (number - 1) & 1)

    def sleep_count(self):
        """How often its first thread has gone to sleep so far."""
        return int(self._status("voluntary_ctxt_switches"))

    def cpu_s(self):
        """User and system time spent so far, in seconds."""
        with open(f"/proc/{self.pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def listens(self, port):
        """Does this very process listen on that port?"""
        inodes = set()
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            try:
                with open(table, encoding="ascii") as file:
                    rows = [line.split() for line in file][1:]
            except OSError:
                continue
            inodes |= {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
        try:
            return any(os.readlink(entry.path) in inodes for entry in os.scandir(f"/proc/{self.pid}/fd"))
        except OSError:
            return False

    def file_count(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))
