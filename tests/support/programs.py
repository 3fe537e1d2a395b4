# SPDX-License-Identifier: MIT
"""Starters for postern-gateway and postern-processor.

    gateway = Gateway(build, folder, RABBITMQ_URL=broker.url(), SESSION_POLICY="takeover").start()
    gateway.url("dev-7")                        ws://127.0.0.1:21700/dev-7
    gateway.log(event="client_connected")       the log's lines of that event, as dictionaries
    gateway.end()                               SIGTERM; the exit code

A program gets exactly the settings named here and nothing of our own environment. Its working directory is `folder`, so
its logs are under folder/logs and a stray .env cannot reach it. A sanitizer's finding goes to folder/sanitizer.* and
makes end() fail.
"""

import re
import signal
from pathlib import Path

from process import Failure, Process, free_port, tail, wait_until

ROOT = Path(__file__).resolve().parents[2]
_FIELD = re.compile(r'([A-Za-z0-9_.]+)=("(?:[^"\\]|\\.)*"|\S*)')


def find_program(build, name):
    """The program in a build folder ("debug" or a path)."""
    folder = Path(build) if "/" in str(build) else ROOT / "build" / str(build)
    for path in sorted(folder.rglob(name)):
        if path.is_file() and path.stat().st_mode & 0o100:
            return path
    raise Failure(f"{name} is not built in {folder}")


def parse_log_line(line):
    """logfmt to a dictionary; quoted values are unescaped."""
    fields = {}
    for name, value in _FIELD.findall(line):
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        fields[name] = value
    return fields


class Program(Process):
    """What both programs have in common."""

    log_setting = None
    log_default = None
    admin_setting = None  # its port; off unless a test names it

    def __init__(self, name, build, folder, settings, arguments=()):
        folder = Path(folder).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        self.settings = {key: str(value) for key, value in {self.admin_setting: 0, **settings}.items()}
        environment = {
            "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC",
            "ASAN_OPTIONS": f"abort_on_error=0:exitcode=99:detect_leaks=1:log_path={folder}/sanitizer",
            "UBSAN_OPTIONS": f"print_stacktrace=1:exitcode=99:log_path={folder}/sanitizer",
            **self.settings,
        }
        super().__init__(name, [find_program(build, name), *arguments], folder, environment, folder / "output.log")
        self.log_path = folder / self.settings.get(self.log_setting, self.log_default)

    def admin_url(self, path):
        return f"http://127.0.0.1:{self.settings[self.admin_setting]}{path}"

    def log_text(self):
        """The whole log, rotated parts first."""
        parts = sorted(self.log_path.parent.glob(self.log_path.name + ".*"), reverse=True) + [self.log_path]
        return "".join(part.read_text("utf-8", "replace") for part in parts if part.exists())

    def log(self, **fields):
        """Log lines whose fields have these values."""
        lines = map(parse_log_line, self.log_text().splitlines())
        return [line for line in lines if all(line.get(key) == str(value) for key, value in fields.items())]

    def wait_log(self, timeout_s=30.0, **fields):
        return wait_until(lambda: self.log(**fields), timeout_s, f"{self.name} to log {fields}")[-1]

    def tails(self):
        return f"{self.output}:\n{tail(self.output)}\n{self.log_path}:\n{tail(self.log_path)}"

    def hang_up(self):
        self.send_signal(signal.SIGHUP)

    def sanitized(self):
        """Is this a build with AddressSanitizer?"""
        return b"__asan_init" in Path(self.command[0]).read_bytes()

    def sanitizer_findings(self):
        return "".join(path.read_text("utf-8", "replace") for path in sorted(self.folder.glob("sanitizer.*")))

    def end(self, number=signal.SIGTERM, timeout_s=60.0):
        code = super().end(number, timeout_s)
        findings = self.sanitizer_findings()
        if findings:
            raise Failure(f"{self.name}: a sanitizer found something:\n{findings}")
        return code


class Gateway(Program):
    log_setting = "GATEWAY_LOG_FILE"
    log_default = "logs/websocket.log"
    admin_setting = "ADMIN_PORT"

    def __init__(self, build, folder, port=None, **settings):
        self.port = port or int(settings.get("PORT", 0)) or free_port()
        defaults = {"LISTEN_ADDRESS": "127.0.0.1", "PORT": self.port, "GATEWAY_ID": f"gw-{self.port}"}
        super().__init__("postern-gateway", build, folder, {**defaults, **settings})

    @property
    def gateway_id(self):
        return self.settings["GATEWAY_ID"]

    def url(self, client_id, query=""):
        return f"ws://127.0.0.1:{self.port}/{client_id}{query}"

    def start(self, timeout_s=60.0):
        """Starts it and waits until it accepts connections."""
        super().start()

        def listens():
            if not self.alive():
                raise Failure(f"postern-gateway ended while starting (exit {self.popen.returncode})\n{self.tails()}")
            return self.listens(self.port)
        wait_until(listens, timeout_s, "postern-gateway to listen")
        return self


class Processor(Program):
    log_setting = "PROCESSOR_LOG_FILE"
    log_default = "logs/message_processor.log"
    admin_setting = "PROCESSOR_ADMIN_PORT"

    def __init__(self, build, folder, **settings):
        super().__init__("postern-processor", build, folder, settings)

    def start(self, timeout_s=60.0):
        """Starts it and waits until it serves its pages, the last thing that can keep it from running, or without any
        until it handles signals; it may not have found its servers yet."""
        super().start()
        port = int(self.settings[self.admin_setting])

        def started():
            if not self.alive():
                raise Failure(f"postern-processor ended while starting (exit {self.popen.returncode})\n{self.tails()}")
            return self.listens(port) if port else self.handles(signal.SIGTERM)
        wait_until(started, timeout_s, "postern-processor to start")
        return self
