# SPDX-License-Identifier: MIT
"""What the benchmark runs on: the private servers, the gateways and processors it starts, and its own C programs."""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from process import Failure, Process, wait_until  # noqa: E402
from programs import Gateway, Processor, find_program  # noqa: E402
from services import Broker, Database, migrate  # noqa: E402

RUN_SECONDS_MAX = 400  # no single run of a program of ours lasts longer
BINDINGS_SECONDS_MAX = 200

# The queues that are only published to, made before the gateway sees them.
QUEUES = {"classic": "bench.classic", "quorum": "bench.quorum"}


class Stage:
    """Servers and programs for one run of the benchmark; ends everything it started, in any case."""

    def __init__(self, build, folder):
        self.build = Path(build).absolute()
        self.folder = Path(folder).absolute()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.broker = Broker(self.folder / "rabbitmq")
        self.database = Database(self.folder / "postgresql")
        self.programs = []
        self.echo = None
        self.run_count = 0
        self.channel = None
        self.database_url = None

    def __enter__(self):
        try:
            self.broker.launch()
            self.database.launch()
            self.broker.wait_ready()
            self.database.wait_ready()
            self.database_url = self.database.create("bench")
            migrate(self.database_url)
            self.channel = self.broker.channel()
            for kind, name in QUEUES.items():
                self.channel.queue_declare(name, durable=True, arguments={"x-queue-type": kind})
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for program in list(self.programs):
            self.end(program)
        if self.echo:
            self.echo.kill()
            self.echo.wait()
        self.broker.end(quickly=True)
        self.database.end(quickly=True)

    # Programs under test.

    def gateway(self, **settings):
        """A started gateway that has its queues."""
        defaults = {
            "RABBITMQ_URL": self.broker.url(), "MAX_CONNECTIONS": 1024, "DRAIN_MS": 100,
            "ROUTES": f"text -> messages; classic -> {QUEUES['classic']}; quorum -> {QUEUES['quorum']}",
        }
        gateway = Gateway(self.build, self.folder / f"gateway-{len(os.listdir(self.folder))}",
                          **{**defaults, **settings})
        self.programs.append(gateway)
        gateway.start()
        # The first message is answered when links and queues are there.
        self.load(gateway, connections=1, window=1, seconds=0.2, warmup=0, type="quorum")
        return gateway

    def processor(self, **settings):
        defaults = {"RABBITMQ_URL": self.broker.url(), "DATABASE_URL": self.database_url}
        processor = Processor(self.build, self.folder / f"processor-{len(os.listdir(self.folder))}",
                              **{**defaults, **settings})
        self.programs.append(processor)
        return processor.start()

    def end(self, program):
        self.programs.remove(program)
        try:
            program.end()
        except Failure as failure:
            print(f"  {failure}", flush=True)

    # Programs of the benchmark.

    def _run(self, name, options):
        command = [str(find_program(self.build, name))]
        for key, value in options.items():
            command += [f"--{key.replace('_', '-')}", str(value)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  timeout=RUN_SECONDS_MAX, text=True, check=False)
        except subprocess.TimeoutExpired:
            raise Failure(f"{' '.join(command)}: did not end within {RUN_SECONDS_MAX} s") from None
        if done.returncode != 0:
            raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def run_name(self):
        """Ids of one run never meet those of another one."""
        self.run_count += 1
        return f"b{os.getpid()}-{self.run_count}"

    def load(self, gateway, watch=(), **options):
        """The load generator against a gateway; CPU times come back by process."""
        pids = [gateway.pid, self.broker.process.pid, *(program.pid for program in watch)]
        answer = self._run("bench_load", {"port": gateway.port, "run": self.run_name(),
                                          "watch": ",".join(map(str, pids)), **options})
        total = answer["total"]
        if total["unanswered"] or total["errors"] or total["refused"]:
            raise Failure(f"the load generator missed receipts or got errors: {answer}")
        return answer

    def load_echo(self, **options):
        return self._run("bench_load", {"port": self.echo_port, "raw": 1, "watch": self.echo.pid, **options})

    @contextlib.contextmanager
    def idle_clients(self, gateway, count):
        """That many clients that are connected and silent, and known to the broker; they go when the block ends."""
        command = [str(find_program(self.build, "bench_load"))]
        for key, value in {"port": gateway.port, "run": self.run_name(), "connections": 1, "idle": count - 1, "rate": 1,
                           "seconds": RUN_SECONDS_MAX, "type": "quorum"}.items():
            command += [f"--{key}", str(value)]
        holder = Process("idle clients", command, self.folder, dict(os.environ), self.folder / "idle.log").start()
        try:
            wait_until(lambda: holder.check_alive() or gateway.file_count() >= count, 60,
                       f"{count} clients to connect", 0.2)
            self.wait_bindings(gateway, lambda bound: bound >= count)
            yield
            holder.check_alive()
        finally:
            holder.kill9()

    def wait_bindings(self, gateway, wanted):
        """Waits until the broker has as many bindings for the gateway as wanted: clients that come and go are bound
        and unbound after the fact (one to two milliseconds of the broker's time each), which must not be counted as
        the cost of messages."""
        queue = f"postern.gateway.{gateway.gateway_id}"

        def as_wanted():
            names = self.broker.ctl("list_bindings", "--no-table-headers", "destination_name").split()
            return wanted(names.count(queue))
        wait_until(as_wanted, BINDINGS_SECONDS_MAX, "the clients' bindings", 0.5)

    def storm(self, gateway, count):
        return self._run("bench_load", {"port": gateway.port, "run": self.run_name(), "storm": count})

    def publish(self, kind, **options):
        """The bare publisher."""
        answer = self._run("bench_publish", {"port": self.broker.port, "queue": QUEUES[kind], "type": kind,
                                             "run": self.run_name(), "watch": self.broker.process.pid, **options})
        if answer["unanswered"]:
            raise Failure(f"the bare publisher missed confirms: {answer}")
        return answer

    def rows(self, **options):
        return self._run("bench_rows", {"url": self.database_url, **options})

    def store_rate(self, **options):
        return self._run("bench_store_rate", {"url": self.database_url, "run": self.run_name(),
                                              "log": self.folder / "store_rate.log", **options})

    def statements(self, **options):
        return self._run("bench_statements", {"url": self.database_url, "run": self.run_name(), **options})

    def disk(self, folder, **options):
        """What the disk itself takes."""
        return self._run("bench_disk", {"folder": folder, **options})

    def start_echo(self):
        if self.echo is None:
            self.echo = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--",
                                          str(find_program(self.build, "bench_echo"))],
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
            self.echo_port = int(self.echo.stdout.readline())

    def purge(self, kind):
        """Every run publishes into an empty queue."""
        self.channel.queue_purge(QUEUES[kind])

    def cpu_us(self, answer, program, count_name="queued"):
        """CPU microseconds of a program for each message of the measured interval."""
        count = answer[count_name]
        return answer["cpu_us"][str(program.pid)] / count if count else float("nan")


class DepthSampler:
    """Reads how many messages wait in a queue, a few times a second, while a run lasts."""

    def __init__(self, broker, queue, every_s=0.25):
        self.broker = broker
        self.queue = queue
        self.every_s = every_s
        self.samples = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.channel = self.broker.channel()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()
        self.channel.connection.close()

    def _run(self):
        begin = time.monotonic()
        while not self.stopping.wait(self.every_s):
            count = self.channel.queue_declare(self.queue, passive=True).method.message_count
            self.samples.append((time.monotonic() - begin, count))


def written_bytes(pid):
    """What a process has given to the disk so far."""
    with open(f"/proc/{pid}/io", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("write_bytes:"))


def memory_kib(pid):
    """Resident, proportional and peak resident memory of a process."""
    found = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            word = line.split()
            if word[0] in ("Rss:", "Pss:", "Private_Dirty:"):
                found[word[0][:-1].lower()] = int(word[1])
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                found["peak"] = int(line.split()[1])
    return found


def median(values):
    return statistics.median(values)
