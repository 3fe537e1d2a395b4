# SPDX-License-Identifier: MIT
"""`./dev run`: the whole pipeline on this machine, with one message sent through it, until Ctrl-C.

Everything that is started is started here, as our own child, and ended here by its pid, last started first; the kernel
ends it when we are killed. Data and logs stay under build/run/ (so the next run finds the rows of this one) and logs/.
"""

import argparse
import asyncio
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time

import websockets
from process import Failure, free_port, port_is_free, tail, wait_until
from programs import ROOT, Gateway, Processor
from services import Broker, Database, migrate
from settings import SERVERS, WrongSetting, settings_in_effect, settings_of_environment

RUN = ROOT / "build" / "run"
GATEWAY_URL = RUN / "gateway.url"  # while it runs: where its gateway is, for ./dev load


# What decides where things are, and is ours to hand to the programs in place of their defaults.
PLACES = ("PORT", "LISTEN_ADDRESS", "GATEWAY_ID", "ADMIN_PORT", "PROCESSOR_ADMIN_PORT", "GATEWAY_LOG_FILE",
          "PROCESSOR_LOG_FILE")


class Stop(Exception):
    """Asked to end, by Ctrl-C or a signal."""


class Colours:
    def __init__(self, on):
        self.bold, self.dim, self.green, self.red, self.end = (
            ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m") if on else ("",) * 5)


C = Colours(sys.stdout.isatty() and "NO_COLOR" not in os.environ)


def step(name, do):
    """Runs one step and prints its line: name, what came of it, time."""
    start = time.monotonic()
    if sys.stdout.isatty():
        print(f"  {name:<12} {C.dim}…{C.end}", end="\r", flush=True)
    said = do()
    print(f"  {name:<12} {said:<58} {C.dim}{time.monotonic() - start:6.1f} s{C.end}", flush=True)


def quiet(command, log):
    """Runs a build command with its output in a file; shows the end of it only when it fails."""
    with open(log, "ab") as output:
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)} failed; {log} ends with:\n{tail(log, 40)}")


def build():
    log = RUN / "build.log"
    log.unlink(missing_ok=True)
    quiet(["cmake", "--preset", "release"], log)
    quiet(["cmake", "--build", "--preset", "release", "--target", "postern-gateway", "postern-processor"], log)
    compiler = subprocess.run(["gcc", "-dumpfullversion"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return f"build/release, gcc {compiler.strip()}"


def say_what_is_not_used():
    try:
        text = (ROOT / ".env").read_text("utf-8", "replace")
    except OSError:
        text = ""
    for name in SERVERS:
        if name in os.environ or re.search(rf"^\s*(export\s+)?{name}\s*=\s*\S", text, re.M):
            print(f"  {name} is not used: the servers of ./dev run are its own", flush=True)


def port_or_another(name, preferred):
    """The preferred port, or another one when that is taken. Asked right before it is used."""
    if port_is_free(preferred):
        return preferred
    port = free_port()
    print(f"  {name:<12} {preferred} is taken: {port} instead", flush=True)
    return port


class Demonstration:
    """One message as a client of python3-websockets, with the time of each thing that comes back."""

    def __init__(self, gateway, processor, database):
        self.gateway = gateway
        self.processor = processor
        self.database = database
        self.client_id = "demo"
        self.message = {"type": "text", "content": {"temperature": 21.5, "unit": "°C"},
                        "id": time.strftime("hello-%H%M%S")}

    def check_alive(self):
        for program in (self.gateway, self.processor):
            program.check_alive()

    async def receive(self, socket, timeout_s=60):
        deadline = time.monotonic() + timeout_s
        while True:
            self.check_alive()
            try:
                return await asyncio.wait_for(socket.recv(), 1)
            except asyncio.TimeoutError:
                if time.monotonic() >= deadline:
                    raise

    async def talk(self):
        async with websockets.connect(self.gateway.url(self.client_id)) as socket:
            print(f"  {C.dim}←         {C.end} {await self.receive(socket)}")
            text = json.dumps(self.message, ensure_ascii=False, separators=(",", ":"))
            start = time.monotonic()
            await socket.send(text)
            print(f"  {C.bold}→   0.0 ms{C.end} {text}", flush=True)
            while True:
                answer = await self.receive(socket)
                print(f"  {C.green}← {(time.monotonic() - start) * 1000:5.1f} ms{C.end} {answer}", flush=True)
                if json.loads(answer).get("status") == "stored":
                    return
                if json.loads(answer)["type"] == "error":
                    raise Failure("the gateway did not take the message")

    def show(self):
        print(f"\nOne message, as the client {self.client_id}:")
        try:
            asyncio.run(self.talk())
        except (asyncio.TimeoutError, OSError, websockets.exceptions.WebSocketException) as error:
            self.check_alive()
            raise Failure(f"no receipt `stored` came: {error!r}\n{self.gateway.tails()}\n"
                          f"{self.processor.tails()}") from None
        names = ["id", "client_id", "message_id", "type", "content", "status", "gateway", "stored_at"]
        row = self.database.query(
            f"SELECT {', '.join(f'{name}::text' for name in names)} FROM messages WHERE client_id = %s "
            "AND message_id = %s", (self.client_id, self.message["id"]))[0]
        widths = [max(len(name), len(value)) for name, value in zip(names, row)]
        print("\nIts row in PostgreSQL:")
        print(f"  {C.dim}" + "  ".join(name.ljust(width) for name, width in zip(names, widths)).rstrip() + C.end)
        print("  " + "  ".join(value.ljust(width) for value, width in zip(row, widths)).rstrip())


class Run:
    def __init__(self):
        self.started = []  # (name, how to end it), in the order of starting

    def go(self, once):
        RUN.mkdir(parents=True, exist_ok=True)
        (ROOT / "logs").mkdir(exist_ok=True)
        for output in RUN.glob("*.output"):
            output.unlink()

        print(f"{C.bold}Postern{C.end}: gateway and processor on a private RabbitMQ and PostgreSQL\n")
        step("build", build)
        given = settings_of_environment()
        in_effect = settings_in_effect(given)
        say_what_is_not_used()
        broker = Broker(RUN / "rabbitmq", port_or_another("RabbitMQ", 5672), port_or_another("RabbitMQ", 15672),
                        management=True, node_name="postern")
        database = Database(RUN / "postgresql", port_or_another("PostgreSQL", 5432), kept=True)
        self.started.append(("RabbitMQ", broker.end))
        step("PostgreSQL", lambda: self.start_database(broker, database))
        step("migrate", lambda: self.migrate(database))
        step("RabbitMQ", lambda: broker.wait_ready() and f"127.0.0.1:{broker.port}")

        settings = {**given, **self.places(in_effect), "RABBITMQ_URL": broker.url(), "DATABASE_URL": database.url()}
        processor = Processor("release", RUN, **settings)
        gateway = Gateway("release", RUN, **settings)
        for program in (processor, gateway):
            program.folder = ROOT  # .env and logs/ are where a user would look for them
            program.output = RUN / f"{program.name}.output"
            program.log_path = ROOT / program.settings.get(program.log_setting, program.log_default)
        self.started.append((processor.name, processor.end))
        step("processor", lambda: processor.start() and f"pid {processor.pid}")
        self.started.append((gateway.name, gateway.end))
        step("gateway", lambda: self.start_gateway(gateway))
        GATEWAY_URL.write_text(gateway.url("").rstrip("/") + "\n")

        Demonstration(gateway, processor, database).show()
        if once:
            return
        self.say_where(gateway, processor, broker, database, in_effect)
        while True:
            for program in (gateway, processor, broker.process, database.process):
                program.check_alive()
            time.sleep(0.5)

    @staticmethod
    def places(in_effect):
        """What .env and the environment say, and else what suits a machine where somebody tries it."""
        chosen = {name: in_effect[name][0] for name in PLACES if in_effect[name][1] != "default"}
        chosen.setdefault("LISTEN_ADDRESS", "127.0.0.1")
        for name, program in (("PORT", "gateway"), ("ADMIN_PORT", "gateway"), ("PROCESSOR_ADMIN_PORT", "processor")):
            if name not in chosen:
                chosen[name] = port_or_another(program, int(in_effect[name][0]))
        if in_effect["LOG_MESSAGES"][1] == "default":
            chosen["LOG_MESSAGES"] = 1
        return chosen

    def start_database(self, broker, database):
        broker.launch()
        self.started.append(("PostgreSQL", database.end))
        database.start()
        if not database.query("SELECT 1 FROM pg_database WHERE datname = 'postern'", database="postgres"):
            database.create("postern")
        return f"127.0.0.1:{database.port}"

    @staticmethod
    def start_gateway(gateway):
        """Until it has found RabbitMQ too, so that the first message shows what all others take."""
        before = len(gateway.log(event="downlink_up"))
        gateway.start()
        try:
            wait_until(lambda: len(gateway.log(event="downlink_up")) > before, 10)
        except Failure:
            pass  # another LOG_LEVEL, or a slow machine: the message will tell
        return f"pid {gateway.pid}, {gateway.url('{client_id}')}"

    @staticmethod
    def migrate(database):
        migrate(database.url())
        return "alembic upgrade head: " + database.query("SELECT version_num FROM alembic_version")[0][0]

    @staticmethod
    def say_where(gateway, processor, broker, database, in_effect):
        def page(program, path):
            is_off = int(program.settings[program.admin_setting]) == 0
            return f"none: {program.admin_setting}=0" if is_off else program.admin_url(path)

        lines = [
            ("live page", page(gateway, "/")),
            ("clients", gateway.url("{client_id}")),
            ("metrics", page(gateway, "/metrics")),
            ("", page(processor, "/metrics")),
            ("RabbitMQ", f"amqp://guest:guest@127.0.0.1:{broker.port}   pages: http://127.0.0.1:{broker.management_port} (guest, guest)"),
            ("PostgreSQL", database.url()),
            ("", f"psql {database.url()} -c 'SELECT * FROM messages'"),
            ("logs", os.path.relpath(gateway.log_path, ROOT)),
            ("", os.path.relpath(processor.log_path, ROOT)),
            ("data", f"build/run, {in_effect['SPOOL_DIR'][0]}   (remove both to start afresh)"),
        ]
        if database.borrowed_folder:
            lines.append(("", f"{database.borrowed_folder}   (the rows: emptied once build/run is gone)"))
        print(f"\n{C.bold}It runs.{C.end}")
        for name, value in lines:
            print(f"  {name:<12} {value}")
        print("\nCtrl-C ends everything.", flush=True)

    def end(self):
        """Ends what runs, last started first; True when all of it ended well."""
        well = True
        GATEWAY_URL.unlink(missing_ok=True)
        for name, end in reversed(self.started):
            try:
                start = time.monotonic()
                end()
                print(f"  {name:<18} ended {C.dim}{time.monotonic() - start:6.1f} s{C.end}", flush=True)
            except Failure as failure:
                well = False
                print(f"  {name:<18} {failure}", flush=True)
        return well


def stop_on_signal(number, _frame):
    # Only once: a second Ctrl-C must not break off the ending.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise Stop(signal.Signals(number).name)


def main():
    parser = argparse.ArgumentParser(prog="./dev run", description="The whole pipeline on this machine, until Ctrl-C.")
    parser.add_argument("--once", action="store_true", help="end after the message is stored instead of staying")
    once = parser.parse_args().once
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop_on_signal)

    RUN.mkdir(parents=True, exist_ok=True)
    with open(RUN / "lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("./dev run runs already in this folder.", file=sys.stderr)
            return 1
        run = Run()
        code = 0
        try:
            run.go(once)
        except Stop:
            print()
        except WrongSetting as wrong:
            print(wrong, file=sys.stderr)
            code = 2
        except Failure as failure:
            print(f"\n{C.red}It failed:{C.end} {failure}\n", flush=True)
            code = 1
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if run.started:
            print("Ending:")
        return code if run.end() else 1


if __name__ == "__main__":
    sys.exit(main())
