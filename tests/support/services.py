# SPDX-License-Identifier: MIT
"""A private RabbitMQ and a private PostgreSQL for tests, the benchmark and `./dev run`.

Both listen on loopback only, keep everything in one folder, use no system service, and run as root (PostgreSQL then as
the user `postgres` or `nobody`) and as an ordinary user. They end with the process that started them.

    with Broker(folder) as broker, Database(folder2) as database:
        broker.url()                  amqp://guest:guest@127.0.0.1:21567/%2F
        database.create("one")        postgresql://postern:postern@127.0.0.1:21568/one

Both have the same handles: start, end, restart, kill9, stop (SIGSTOP), cont.
"""

import base64
import hashlib
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path

from process import Failure, Process, children_of, free_port, tail, wait_until

RABBITMQ_BIN = Path("/usr/lib/rabbitmq/bin")
START_TIMEOUT_S = 300.0


class Broker:
    """One RabbitMQ node. `management` adds the web pages and the HTTP API (and is then used for what it does faster).
    More `addresses` of loopback tell its clients' packets apart. Its data is its node's: with a `node_name`, a node on
    another port finds it too."""

    def __init__(self, folder, port=None, management_port=None, management=False, addresses=("127.0.0.1",),
                 node_name=None):
        self.folder = Path(folder).absolute()
        self.port = port or free_port()
        self.addresses = addresses
        self.distribution_port = free_port()
        self.epmd_port = free_port()
        self.management_port = (management_port or free_port()) if management else None
        self.node = f"{node_name or f'postern{self.port}'}@localhost"
        self.epmd = None
        self.process = None
        self.alarm_on = False

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.end()

    def url(self, vhost="/", user="guest", password="guest"):
        return f"amqp://{user}:{password}@127.0.0.1:{self.port}/{urllib.parse.quote(vhost, safe='')}"

    @property
    def log_path(self):
        return self.folder / "log" / f"{self.node}.log"

    def _environment(self):
        folder = self.folder
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": str(folder / "home"),
            "RUNNING_UNDER_SYSTEMD": "true",  # the start script then becomes the node instead of watching over it
            "RABBITMQ_CONF_ENV_FILE": str(folder / "etc/rabbitmq-env.conf"),
            "RABBITMQ_NODENAME": self.node, "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"), "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "etc/rabbitmq"),
            "RABBITMQ_CONFIG_FILES": str(folder / "etc/conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "etc/advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "etc/generated"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "etc/enabled_plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "ERL_EPMD_PORT": str(self.epmd_port), "ERL_EPMD_ADDRESS": "127.0.0.1",
            # No busy waiting of the schedulers: the cores are shared with what is being tested.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                f"{loopback} -start_epmd false +sbwt none +sbwtdcpu none +sbwtdio none",
            "RABBITMQ_CTL_ERL_ARGS": loopback,
        }

    def _write_configuration(self):
        for name in ("home", "etc/conf.d", "etc/generated", "mnesia", "log"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        lines = [f"listeners.tcp.{number} = {address}:{self.port}"
                 for number, address in enumerate(self.addresses, 1)]
        lines += ["vm_memory_high_watermark.absolute = 2GB", "disk_free_limit.absolute = 50MB", "log.console = false",
                  "log.file.level = info"]
        if self.management_port:
            lines += ["management.tcp.ip = 127.0.0.1", f"management.tcp.port = {self.management_port}"]
        (self.folder / "etc/rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "etc/rabbitmq-env.conf").write_text("")
        (self.folder / "etc/enabled_plugins").write_text("[rabbitmq_management].\n" if self.management_port else "[].\n")

    def launch(self):
        """Begins the start; wait_ready() completes it, so that others can start meanwhile."""
        if not (RABBITMQ_BIN / "rabbitmq-server").exists():
            raise Failure(f"RabbitMQ is not installed: {RABBITMQ_BIN}/rabbitmq-server is missing")
        self._write_configuration()
        environment = self._environment()
        output = self.folder / "log/output.log"
        if not (self.epmd and self.epmd.alive()):
            self.epmd = Process("epmd", [shutil.which("epmd", path="/usr/bin:/usr/sbin") or "epmd"], self.folder,
                                environment, output).start()
            wait_until(lambda: _accepts(self.epmd_port), 20, "epmd")
        self.process = Process("RabbitMQ", [RABBITMQ_BIN / "rabbitmq-server"], self.folder, environment, output)
        self.process.start()
        return self

    def wait_ready(self, timeout_s=START_TIMEOUT_S):
        def ready():
            if not self.process.alive():
                raise Failure(f"RabbitMQ ended while starting; {self.folder}/log ends with:\n"
                              f"{tail(self.folder / 'log/output.log', 8)}\n{tail(self.log_path, 12)}")
            return self.answers()
        wait_until(ready, timeout_s, f"RabbitMQ on port {self.port} (see {self.folder}/log)", 0.1)
        if self.management_port:
            wait_until(lambda: _accepts(self.management_port), timeout_s, "RabbitMQ's management port", 0.1)
        self.alarm_on = False
        return self

    def start(self):
        return self.launch().wait_ready()

    def answers(self):
        """Does the node speak AMQP?"""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(5)
                connection.sendall(b"AMQP\0\0\x09\x01")
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def end(self, quickly=False):
        """Ends the node and its epmd; quickly = by SIGKILL, for when its data is not wanted any more."""
        if self.process:
            if quickly:
                self.process.kill9()
            else:
                self.process.end(timeout_s=60)
        if self.epmd:
            self.epmd.end()

    def remembers_its_queues(self):
        """Has the node written down all names of its quorum queues? RabbitMQ 3.10 does so a second late, or later when
        it is busy. Killed before that, it comes back with a queue that has no leader for ever, and not the messages
        that it confirmed: that is RabbitMQ's, and not what is tested."""
        folder = self.folder / "mnesia" / self.node / "quorum" / self.node
        try:
            new = [each.name for each in folder.iterdir() if each.is_dir() and each.stat().st_mtime > time.time() - 60]
            names = (folder / "names.dets").read_bytes()
        except FileNotFoundError:
            return False  # something is just being made or deleted
        return all(each.encode() in names for each in new)

    def kill9(self):
        wait_until(self.remembers_its_queues, 120, "RabbitMQ to write down its queues' names", 0.05)
        self.process.kill9()

    def stop(self):
        self.process.stop()

    def cont(self):
        self.process.cont()

    def restart(self):
        """Orderly when it runs, else just started again; with the same ports and data."""
        if self.process.alive():
            self.process.end(timeout_s=60)
        return self.start()

    def ctl(self, *words, timeout_s=180):
        """Runs rabbitmqctl; returns its output."""
        done = subprocess.run(
            [str(RABBITMQ_BIN / "rabbitmqctl"), "-q", "-n", self.node, *map(str, words)], env=self._environment(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s, check=False,
            text=True)
        if done.returncode != 0:
            raise Failure(f"rabbitmqctl {' '.join(map(str, words))}: {done.stdout.strip()}")
        return done.stdout

    def api(self, method, path, body=None):
        """The management HTTP API; returns the decoded answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.management_port, timeout=30)
        try:
            connection.request(method, "/api" + path, None if body is None else json.dumps(body), {
                "Authorization": "Basic " + base64.b64encode(b"guest:guest").decode(),
                "Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise Failure(f"management API: {method} {path}: {answer.status} {text[:200]!r}")
        return json.loads(text) if text else None

    def add_vhost(self, name):
        """Makes an empty vhost that guest may use; returns its URL."""
        if self.management_port:
            self.api("PUT", f"/vhosts/{name}", {})
            self.api("PUT", f"/permissions/{name}/guest", {"configure": ".*", "write": ".*", "read": ".*"})
        else:
            self.ctl("add_vhost", name)
            self.ctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        return self.url(name)

    def delete_vhost(self, name):
        if self.management_port:
            self.api("DELETE", f"/vhosts/{name}")
        else:
            self.ctl("delete_vhost", name)

    def memory_alarm(self, on):
        """Sets or clears the memory alarm: while it is set RabbitMQ reads nothing from publishing connections."""
        self.alarm_on = self.alarm_on or on
        self.ctl("set_vm_memory_high_watermark", "absolute", "1000" if on else "2GB")
        self.alarm_on = on

    def channel(self, vhost="/"):
        """A new pika channel on a connection of its own (channel.connection.close() ends both)."""
        import pika
        parameters = pika.URLParameters(self.url(vhost) + "?heartbeat=0&blocked_connection_timeout=120")
        return pika.BlockingConnection(parameters).channel()

    def queue_depth(self, queue="messages", vhost="/"):
        """Messages ready in a queue; None when there is no such queue."""
        import pika
        try:
            return self._counts(queue, vhost).message_count
        except pika.exceptions.ChannelClosedByBroker:
            return None

    def _counts(self, queue, vhost):
        """What RabbitMQ knows of a queue. Where a quorum queue does not answer within 250 ms it says 0 and 0."""
        channel = self.channel(vhost)
        try:
            deadline = time.monotonic() + 60
            while True:
                start = time.monotonic()
                counts = channel.queue_declare(queue, passive=True).method
                now = time.monotonic()
                if counts.message_count or counts.consumer_count or now - start < 0.2 or now > deadline:
                    return counts
        finally:
            if channel.connection.is_open:
                channel.connection.close()

    def queue_held(self, queue, vhost="/"):
        """Messages in a queue now, those that were handed out and not acknowledged too."""
        rows = json.loads(self.ctl("list_queues", "-p", vhost, "--formatter", "json", "name", "messages"))
        return next(row["messages"] for row in rows if row["name"] == queue)

    def consumer_count(self, queue="messages", vhost="/"):
        """Who consumes a queue, as it knows itself; None when it cannot say."""
        import pika
        try:
            return self._counts(queue, vhost).consumer_count
        except pika.exceptions.AMQPError:
            return None

    def rss_bytes(self):
        return self.process.rss_bytes()


class Database:
    """One PostgreSQL server with the superuser postern/postern. durable=False: no fsync, for tests that kill only it.
    Started by root it is another user's, and a folder under /root, say, is out of that user's reach: then its data is
    elsewhere, and gone at the end unless it is to be `kept`."""

    def __init__(self, folder, port=None, durable=True, addresses=("127.0.0.1",), kept=False):
        self.folder = Path(folder).absolute()
        self.port = port or free_port()
        self.durable = durable
        self.addresses = addresses
        self.bin = postgresql_bin()
        self.user = _unprivileged_user() if os.geteuid() == 0 else None
        self.data = self.folder / "data"
        self.kept = kept
        self.borrowed_folder = None
        self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.end()

    def url(self, database="postern", user="postern", password="postern"):
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    @property
    def log_path(self):
        return self.folder / "postgresql.log"

    def _run_as_user(self, command):
        prefix = []
        if self.user:
            prefix = ["setpriv", f"--reuid={self.user[0]}", f"--regid={self.user[1]}", "--clear-groups", "--"]
        done = subprocess.run(prefix + command, cwd=self.data.parent, env=self._environment(),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False)
        if done.returncode != 0:
            raise Failure(f"{' '.join(command)}: {done.stdout.strip()}")

    @staticmethod
    def _environment():
        return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}

    def _prepare(self):
        is_new = not self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.user and not _reachable_by_others(self.folder):
            if self.borrowed_folder is None:
                self.borrowed_folder = self._borrow(is_new)
                self.borrowed_folder.chmod(0o755)
            self.data = self.borrowed_folder / "data"
        if (self.data / "PG_VERSION").exists():
            return
        fresh = self.data.with_name("data.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        password = self.data.with_name("password")
        password.write_text("postern\n")
        if self.user:
            os.chown(fresh, *self.user)
            os.chown(password, *self.user)
        self._run_as_user([str(self.bin / "initdb"), "-D", str(fresh), "-U", "postern", f"--pwfile={password}",
                           "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])
        password.unlink()
        fresh.rename(self.data)

    def _borrow(self, is_new):
        """A folder elsewhere; one that is kept belongs to ours, and is emptied when ours is new."""
        if not self.kept:
            return Path(tempfile.mkdtemp(prefix="postern-postgresql-"))
        name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        kept = Path("/var/tmp") / f"postern-postgresql-{name}"
        kept.mkdir(exist_ok=True)
        if kept.is_symlink() or kept.stat().st_uid != os.geteuid():
            raise Failure(f"{kept} is somebody else's; remove it")
        if is_new:
            shutil.rmtree(kept)
            kept.mkdir()
        return kept

    def launch(self):
        self._prepare()
        settings = {
            "listen_addresses": ",".join(self.addresses), "port": self.port, "unix_socket_directories": "",
            "max_connections": 60,
            "fsync": "on" if self.durable else "off", "log_min_duration_statement": -1, "shared_buffers": "64MB",
            "max_wal_size": "1GB",
        }
        command = [self.bin / "postgres", "-D", self.data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        self.process = Process("PostgreSQL", command, self.data.parent, self._environment(), self.log_path, self.user,
                               death_signal="INT")
        self.process.start()
        return self

    def wait_ready(self, timeout_s=START_TIMEOUT_S):
        def ready():
            self.process.check_alive()
            return self.answers()
        wait_until(ready, timeout_s, f"PostgreSQL on port {self.port} (see {self.log_path})", 0.05)
        return self

    def answers(self):
        """Does the server let sessions in?"""
        return subprocess.run([str(self.bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)],
                              check=False).returncode == 0

    def start(self):
        return self.launch().wait_ready()

    def end(self, quickly=False):
        """A fast shutdown: sessions are ended, data is safe. quickly = without caring for the data."""
        if self.process:
            self.process.end(signal.SIGQUIT if quickly else signal.SIGINT, timeout_s=60)
        if self.borrowed_folder and not self.kept:
            shutil.rmtree(self.borrowed_folder, ignore_errors=True)

    def _all_pids(self):
        return [self.process.pid] + children_of(self.process.pid)

    def _stopped_pids(self):
        """All pids, with the server stopped first, so that it has no other children a moment later."""
        if self.process.alive():
            self.process.stop()
        return self._all_pids()

    def kill9(self):
        """Kills the server and all its sessions at once."""
        pids = self._stopped_pids()
        for pid in pids:
            _kill(pid, signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: not any(_exists(pid) for pid in pids[1:]), 30, "PostgreSQL's sessions to be gone")

    def stop(self):
        for pid in self._stopped_pids():
            _kill(pid, signal.SIGSTOP)

    def cont(self):
        for pid in reversed(self._all_pids()):
            _kill(pid, signal.SIGCONT)

    def restart(self):
        if self.process.alive():
            self.process.end(signal.SIGINT, timeout_s=60)
        return self.start()

    def create(self, name):
        """An empty database; returns its URL."""
        self.query(f'CREATE DATABASE "{name}"', database="postgres")
        return self.url(name)

    def drop(self, name):
        self.query(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', database="postgres")

    def connect(self, database="postern"):
        import psycopg2
        connection = psycopg2.connect(self.url(database), connect_timeout=20)
        connection.autocommit = True
        return connection

    def query(self, sql, arguments=None, database="postern"):
        """Runs one statement on a connection of its own; returns its rows (or an empty list)."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, arguments)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


def migrate(database_url, revision="head", direction="upgrade"):
    """alembic, as a user would run it from the repository's root."""
    root = Path(__file__).resolve().parents[2]
    environment = dict(os.environ, DATABASE_URL=database_url, PYTHONDONTWRITEBYTECODE="1")
    done = subprocess.run(["/usr/bin/alembic", direction, revision], cwd=root, env=environment,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    if done.returncode != 0:
        raise Failure(f"alembic {direction} {revision}:\n{done.stdout}")
    return done.stdout


def postgresql_bin():
    """The newest installed PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise Failure("PostgreSQL is not installed: no /usr/lib/postgresql/*/bin/postgres")
    return found[-1].parent


def _unprivileged_user():
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
        except KeyError:
            pass
    raise Failure("PostgreSQL does not run as root, and there is no user postgres or nobody")


def _reachable_by_others(folder):
    return all(parent.stat().st_mode & 0o001 for parent in [folder, *folder.parents])


def _accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def _exists(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
