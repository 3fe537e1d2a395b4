# SPDX-License-Identifier: MIT
"""A container engine of the tests' own, and docker-compose on a copy of the tree.

    engine = Engine().start()
    project = Project(engine)
    project.make_env()
    project.compose("up", "-d")
    project.remove()
    engine.end()

The engine is a dockerd with its data under build/compose/ and its sockets in a temporary folder. It shares nothing with
an engine that the machine may run already, and leaves the host's network as it is: no packet filter, no forwarding, no
bridge but those of the projects, which go with them; published ports go through docker-proxy. Images stay from one run
to the next, for a week.

No registry is needed: debian:bookworm-slim is made here with mmdebstrap, and standin/Dockerfile makes the images of
RabbitMQ and PostgreSQL."""

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from process import Failure, Process, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "compose"
STAND_IN = Path(__file__).parent / "standin"
BASE = "debian:bookworm-slim"
PATIENT = 'Acquire::Retries "5"'
STAND_INS = {"rabbitmq": "rabbitmq:3.13-management", "postgres": "postgres:16"}
KEPT_S = 7 * 24 * 3600
SLIM = ("doc", "info", "locale", "man")  # what the official image leaves out too
SKIPPED = shutil.ignore_patterns("build", ".git", ".env", "logs", "spool", "__pycache__", "*.pyc")


def missing():
    """Why there can be no engine here; None when there can."""
    if os.geteuid() != 0:
        return "an engine of our own needs root"
    for program in ("dockerd", "docker", "docker-compose", "mmdebstrap"):
        if not shutil.which(program):
            return f"{program} is not installed"
    return None


class Engine:
    def __init__(self):
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.data = FOLDER / "engine"
        self.log = FOLDER / "dockerd.log"
        self.sockets = Path(tempfile.mkdtemp(prefix="postern-engine-"))
        self.lock = open(FOLDER / "lock", "w", encoding="ascii")
        self.process = None
        self.environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": str(self.sockets),
            "DOCKER_HOST": f"unix://{self.sockets}/docker.sock", "DOCKER_CONFIG": str(self.sockets),
            "COMPOSE_HTTP_TIMEOUT": "600",
        }

    def start(self):
        fcntl.flock(self.lock, fcntl.LOCK_EX)  # one engine for this data; another run waits
        stamp = FOLDER / "made"
        if not stamp.exists() or time.time() - stamp.stat().st_mtime > KEPT_S:
            shutil.rmtree(self.data, ignore_errors=True)
            stamp.write_text("")
        self.log.unlink(missing_ok=True)
        self.process = Process("dockerd", [
            "dockerd", f"--data-root={self.data}", f"--exec-root={self.sockets}/exec", f"--pidfile={self.sockets}/pid",
            f"--host={self.environment['DOCKER_HOST']}", "--containerd-namespace=postern-tests",
            "--containerd-plugins-namespace=postern-tests-plugins", "--bridge=none", "--iptables=false",
            "--ip6tables=false", "--ip-forward=false"], FOLDER, self.environment, self.log, death_signal="TERM")
        try:
            self.process.start()
            wait_until(self._answers, 60, f"dockerd (see {self.log})", 0.2)
            self._remove_leftovers()
        except BaseException:
            self.end()
            raise
        return self

    def _answers(self):
        self.process.check_alive()
        return self.docker("info", check=False).returncode == 0

    def _remove_leftovers(self):
        """Of a run that was killed."""
        containers = self.docker("ps", "-aq").stdout.split()
        if containers:
            self.docker("rm", "-f", "-v", *containers)
        self.docker("volume", "prune", "-f")
        self.docker("network", "prune", "-f")

    def end(self):
        """Ends the engine and what it left: sockets, and mounts if it was killed."""
        try:
            if self.process:
                self.process.end(timeout_s=120)
        finally:
            self.lock.close()
            for mount in reversed(self.mounts()):
                subprocess.run(["umount", "-l", mount], check=False)
            shutil.rmtree(self.sockets, ignore_errors=True)

    def mounts(self):
        """What is mounted below the engine's folders."""
        with open("/proc/self/mounts", encoding="utf-8") as file:
            places = [line.split()[1] for line in file]
        return [place for place in places if place.startswith((f"{self.data}/", f"{self.sockets}/"))]

    def docker(self, *words, check=True, timeout_s=900, **options):
        return run(["docker", *words], self.environment, ROOT, check, timeout_s, **options)

    def has(self, image):
        return self.docker("image", "inspect", image, check=False).returncode == 0

    def make_base(self):
        """debian:bookworm-slim with the machine's own package sources; like the official one it starts no service,
        keeps no caches of apt, and installs without syncs."""
        if self.has(BASE):
            return
        command = ["mmdebstrap", "--variant=minbase", "--quiet", f"--aptopt={PATIENT}",
                   f"--customize-hook=echo '{PATIENT};' > $1/etc/apt/apt.conf.d/patient",
                   *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in SLIM),
                   "--customize-hook=printf '#!/bin/sh\\nexit 101\\n' > $1/usr/sbin/policy-rc.d",
                   "--customize-hook=chmod 755 $1/usr/sbin/policy-rc.d",
                   '--customize-hook=echo \'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";\''
                   " > $1/etc/apt/apt.conf.d/docker-clean",
                   "--customize-hook=echo force-unsafe-io > $1/etc/dpkg/dpkg.cfg.d/docker-apt-speedup",
                   "--customize-hook=rm -f $1/var/cache/apt/*.bin", "bookworm"]
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            archive = f"{folder}/base.tar"
            run([*command, archive], {**os.environ, "TMPDIR": folder}, ROOT, True, 900)
            self.docker("import", archive, BASE)

    def make_stand_ins(self):
        for target, image in STAND_INS.items():
            self.docker("build", "--quiet", "--network=host", f"--target={target}", f"--tag={image}", str(STAND_IN))


def run(command, environment, folder, check, timeout_s, **options):
    """Runs a command with its two outputs in one text; Failure with that text when it fails and must not."""
    done = subprocess.run([str(word) for word in command], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
                          timeout=timeout_s, **options)
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout[-6000:]}")
    return done


class Project:
    """A fresh copy of the tree, as an ordinary user has it, with the commands of its docker-compose.yml."""

    OWNER = 1000

    def __init__(self, engine, stand_ins):
        self.engine = engine
        self.stand_ins = stand_ins  # a Future: the images of RabbitMQ and PostgreSQL, on their way
        self.parent = Path(tempfile.mkdtemp(prefix="postern-clone-"))
        self.parent.chmod(0o755)
        self.folder = self.parent / "postern"
        shutil.copytree(ROOT, self.folder, ignore=SKIPPED)
        for name in ("websocket_server", "message_processor"):
            (self.folder / name / "logs").mkdir()
            shutil.copy(ROOT / name / "logs/.gitignore", self.folder / name / "logs")
        for path in [self.folder, *self.folder.rglob("*")]:
            os.chown(path, self.OWNER, self.OWNER, follow_symlinks=False)
        self.environment = {**engine.environment, "COMPOSE_FILE": "docker-compose.yml:tests/compose/override.yml"}
        self.name = "postern"
        self.ran = set()  # documented commands
        self.port, self.admin_port = free_port(), free_port()
        self.management_port, self.locust_port = free_port(), free_port()

    def make_env(self, **settings):
        """cp .env.template .env, with what the test needs changed in it; readable by its owner alone."""
        text = (self.folder / ".env.template").read_text("utf-8")
        settings = {"LISTEN_ADDRESS": "127.0.0.1", "PORT": self.port, "ADMIN_PORT": self.admin_port,
                    "RABBITMQ_MANAGEMENT_PORT": self.management_port, "LOCUST_PORT": self.locust_port, **settings}
        for name, value in settings.items():
            text, count = re.subn(rf"^#?{name}=.*$", f"{name}={value}", text, flags=re.M)
            assert count == 1, name
        env = self.folder / ".env"
        env.write_text(text, "utf-8")
        os.chown(env, self.OWNER, self.OWNER)
        env.chmod(0o600)

    def line_of(self, name):
        """The line of .env that sets `name`."""
        lines = (self.folder / ".env").read_text("utf-8").splitlines()
        return next(number for number, line in enumerate(lines, 1) if line.startswith(f"{name}="))

    def compose(self, *words, check=True, timeout_s=900):
        if words[0] == "up" and (self.folder / ".env").exists():
            self.stand_ins.result()  # without them docker-compose would look for them elsewhere
        return run(["docker-compose", "--ansi=never", *words], self.environment, self.folder, check, timeout_s)

    def documented(self, command, check=True):
        """Runs a command as it stands in the documents; only that there is no terminal to attach to."""
        words = shlex.split(command)
        assert words[0] == "docker-compose", command
        self.ran.add(tuple(words))
        return self.compose(*(word for each in words[1:] for word in ((each, "-T") if each == "exec" else (each,))),
                            check=check)

    def up(self, *words, check=True):
        return self.compose("up", "-d", *words, check=check)

    def containers(self, service):
        """Ids, the newest first; those that ended too."""
        labels = (f"project={self.name}", f"service={service}", "oneoff=False")
        return self.engine.docker("ps", "-aq", "--no-trunc",
                                  *(f"--filter=label=com.docker.compose.{label}" for label in labels)).stdout.split()

    def inspect(self, service, template):
        """For each container of a service one answer of docker inspect."""
        ids = self.containers(service)
        return self.engine.docker("inspect", f"--format={template}", *ids).stdout.splitlines() if ids else []

    def logs(self, service):
        """Everything a service's containers said."""
        return [line for container in self.containers(service)
                for line in self.engine.docker("logs", container).stdout.splitlines()]

    def exec(self, service, *words):
        return self.engine.docker("exec", self.containers(service)[0], *words).stdout

    def sql(self, statement):
        """Rows of one statement, as lists of texts."""
        text = self.exec("postgres", "psql", "-qAtX", "-F", "\t", "-h", "127.0.0.1", "-U", "postern", "-c", statement,
                         "postern")
        return [line.split("\t") for line in text.splitlines()]

    def wait_healthy(self, *services, timeout_s=180):
        for service in services:
            def healthy(service=service):
                states = self.inspect(service, "{{.State.Health.Status}}")
                return states and all(state == "healthy" for state in states)
            wait_until(healthy, timeout_s, f"{service} to be healthy", 0.5)

    def url(self, client_id, query=""):
        return f"ws://127.0.0.1:{self.port}/{client_id}{query}"

    def down(self, *words):
        self.compose("down", "--timeout=20", *words)

    def left_behind(self):
        """Containers, volumes and networks of this project that are still there."""
        label = f"--filter=label=com.docker.compose.project={self.name}"
        return [line for what in (("ps", "-aq"), ("volume", "ls", "-q"), ("network", "ls", "-q"))
                for line in self.engine.docker(*what, label).stdout.split()]

    def remove(self):
        if (self.folder / ".env").exists():
            self.down("--volumes", "--remove-orphans")
        shutil.rmtree(self.parent)
