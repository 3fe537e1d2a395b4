# SPDX-License-Identifier: MIT
"""docker-compose.yml, built and used on an engine of the tests' own: what it gives, and what it says when it cannot.

The tests stand in the order of a user's first day and share one project; each leaves it running as it found it, or
takes it on from there."""

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import pytest
from clients import Client
from engine import BASE, ROOT, Engine, Project, missing, run
from process import Failure, Process, wait_until

IMAGES = ("gateway", "processor", "prepare", "migrate", "locust")
SERVICES = ("gateway", "processor", "locust")  # those of ours that stay
SECRET = "only-in-env-" + os.urandom(8).hex()
STORED = "SELECT message_id FROM messages WHERE client_id = '{}' ORDER BY id"


@pytest.fixture(scope="module")
def engine():
    reason = missing()
    if reason:
        pytest.skip(f"NOT RUN: {reason}")
    try:
        engine = Engine().start()
    except Failure as failure:
        pytest.skip(f"NOT RUN: dockerd does not start here: {failure}")
    yield engine
    engine.end()
    assert not engine.process.alive() and not engine.mounts()


@pytest.fixture(scope="module")
def project(engine):
    """A fresh copy of the tree, its images not built yet."""
    engine.make_base()
    with ThreadPoolExecutor(1) as beside:
        project = Project(engine, beside.submit(engine.make_stand_ins))
        yield project
        project.remove()
        assert not project.left_behind()


def lines(text):
    return [line for line in text.splitlines() if line.strip()]


def http_get(port, path, login=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": "Basic " + b64encode(login.encode()).decode()} if login else {}
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


def test_a_port_that_the_pages_have_inside_is_refused(tmp_path):
    """By prepare, with stand-ins for all that it calls; no engine is needed."""
    for name in ("postern-gateway", "postern-processor", "chgrp", "chmod", "http-status"):
        stand_in = tmp_path / name
        stand_in.write_text("#!/bin/sh\necho 200\n")
        stand_in.chmod(0o755)
    for port, code, said in (("8000", 0, ""), ("8081", 2, "PORT=8081 is the port of the gateway's pages inside its "
                                                          "container: choose another PORT\n")):
        done = subprocess.run(["/bin/sh", ROOT / "containers/prepare"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, check=False,
                              env={"PATH": f"{tmp_path}:/usr/bin:/bin", "GATEWAY_PORT": port,
                                   "RABBITMQ_DEFAULT_USER": "u", "RABBITMQ_DEFAULT_PASS": "p"})
        assert (done.returncode, done.stderr) == (code, said)


def test_prepare_knows_the_port_and_the_pages_have_8081(tmp_path):
    if not shutil.which("docker-compose"):
        pytest.skip("NOT RUN: docker-compose is not installed")
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    template = (ROOT / ".env.template").read_text("utf-8")
    (tmp_path / ".env").write_text(re.sub(r"^#PORT=.*$", "PORT=9000", template, flags=re.M))
    done = subprocess.run(["docker-compose", "config"], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=True)
    prepare, gateway = (re.search(rf"^  {name}:\n((?:   .*\n)*)", done.stdout, re.M)[1] for name in ("prepare", "gateway"))
    assert re.search("GATEWAY_PORT: '?9000'?$", prepare, re.M), prepare
    assert re.search(" PORT: '?9000'?$", gateway, re.M) and re.search("ADMIN_PORT: '?8081'?$", gateway, re.M), gateway
    assert "0.0.0.0:9000:9000" in gateway and "127.0.0.1:8081:8081" in gateway, gateway


def ensure_up(project):
    project.documented("docker-compose up -d")
    project.wait_healthy("gateway")


# ---- The first start ----

def test_a_start_without_env_is_one_line_that_says_what_to_do(project):
    for words in (("build",), ("up", "-d"), ("config",)):
        done = project.compose(*words, check=False)
        assert done.returncode != 0
        assert len(lines(done.stdout)) == 1 and done.stdout.rstrip().endswith("cp .env.template .env"), done.stdout
    assert not (project.folder / ".env").exists() and not project.left_behind()


def test_the_images_are_built(project, engine):
    project.make_env(RABBITMQ_DEFAULT_PASS=SECRET, POSTGRES_PASSWORD=SECRET)
    project.documented("docker-compose build")
    base = int(engine.docker("image", "inspect", "--format={{.Size}}", BASE).stdout)
    for name in IMAGES:
        size, user = engine.docker("image", "inspect", "--format={{.Size}} {{.Config.User}}",
                                   f"{project.name}-{name}").stdout.split(" ")
        print(f"{name}: {int(size) / 1e6:.1f} MB, {(int(size) - base) / 1e6:.1f} MB over the base")
        assert user.strip() == ("root" if name == "prepare" else "postern")


def test_no_secret_is_in_an_image(project, engine, tmp_path):
    """Neither in a file, nor in the history or the environment, which stand in JSON files of the archive."""
    archive = tmp_path / "images.tar"
    engine.docker("save", f"--output={archive}", *(f"{project.name}-{name}" for name in IMAGES))
    assert subprocess.run(["grep", "-q", "postern-gateway", str(archive)], check=False).returncode == 0
    assert subprocess.run(["grep", "-q", SECRET, str(archive)], check=False).returncode == 1
    with tarfile.open(archive) as layers:
        for layer in layers.getmembers():
            if layer.isfile() and layer.name.endswith("layer.tar"):
                with tarfile.open(fileobj=layers.extractfile(layer)) as files:
                    assert not [entry for entry in files.getnames() if os.path.basename(entry) == ".env"]
    archive.unlink()


def test_a_wrong_setting_is_one_line(project):
    project.make_env(RABBITMQ_DEFAULT_PASS=SECRET, POSTGRES_PASSWORD=SECRET, MAX_CONNECTIONS="0")
    assert project.up("gateway", check=False).returncode != 0
    assert project.logs("prepare") == [f"postern-gateway: .env:{project.line_of('MAX_CONNECTIONS')}: MAX_CONNECTIONS=0 "
                                       "is out of range: 1 to 200000 clients"]
    assert project.inspect("gateway", "{{.State.Status}} {{.RestartCount}}") in ([], ["created 0"])
    project.make_env(RABBITMQ_DEFAULT_PASS=SECRET, POSTGRES_PASSWORD=SECRET, PROCESSOR_BATCH="many")
    done = project.compose("run", "--rm", "--no-deps", "prepare", check=False)
    assert done.returncode == 2
    assert (f"postern-processor: .env:{project.line_of('PROCESSOR_BATCH')}: PROCESSOR_BATCH=many is not a whole number: "
            "1 to 10000 messages") in lines(done.stdout)


def test_up(project):
    project.make_env(RABBITMQ_DEFAULT_PASS=SECRET, POSTGRES_PASSWORD=SECRET)
    ensure_up(project)
    assert project.inspect("prepare", "{{.State.ExitCode}}") == ["0"], project.logs("prepare")
    assert project.inspect("migrate", "{{.State.ExitCode}}") == ["0"], project.logs("migrate")
    project.wait_healthy("rabbitmq", "postgres", "processor")
    with Client(project.url("dev-7")) as client:
        receipt = client.store({"temperature": 21.5}, "m1")
    assert receipt == {"type": "receipt", "seq": 1, "id": "m1", "status": "stored"}
    assert project.sql("SELECT client_id, message_id, content, status, gateway FROM messages") == [
        ["dev-7", "m1", '{"temperature": 21.5}', "stored", "gateway"]]
    assert "dev-7" in project.documented(
        "docker-compose exec postgres psql -U postern postern -c 'SELECT * FROM messages'").stdout
    assert "(healthy)" in project.documented("docker-compose ps").stdout


def test_pages(project):
    project.wait_healthy("locust")
    status, text = http_get(project.management_port, "/")
    assert status == 200 and "RabbitMQ Management" in text
    status, text = http_get(project.management_port, "/api/queues/%2F/messages", f"postern:{SECRET}")
    assert status == 200 and json.loads(text)["durable"] is True
    status, text = http_get(project.locust_port, "/")
    assert status == 200 and "Locust" in text
    for path, said in (("/readyz", '"ready":true'), ("/metrics", "postern_ready 1"), ("/", "<html")):
        status, text = http_get(project.admin_port, path)
        assert status == 200 and said in text
    assert f":{project.port}" in project.exec("gateway", "cat", "logs/websocket.log")  # where the live page connects to


def test_logs_are_on_the_host(project):
    for service, folder, name in (("gateway", "websocket_server", "websocket.log"),
                                  ("processor", "message_processor", "message_processor.log")):
        log = project.folder / folder / "logs" / name
        assert "started" in log.read_text("utf-8")
        assert "started" in project.exec(service, "cat", f"/{folder}/logs/{name}")
        assert any("started" in line for line in project.logs(service))
        # Whoever cloned the tree reads and removes them without being root.
        assert log.stat().st_uid == 10001
        project.exec(service, "touch", f"/{folder}/logs/spare")
        owner = ["setpriv", f"--reuid={Project.OWNER}", f"--regid={Project.OWNER}", "--clear-groups", "--"]
        subprocess.run([*owner, "tail", "-n", "1", str(log)], stdout=subprocess.DEVNULL, check=True)
        subprocess.run([*owner, "rm", "-f", str(log.parent / "spare")], check=True)


def test_containers_can_do_no_more_than_they_need(project):
    for service in SERVICES:
        said = project.exec(service, "sh", "-c", "id -u; cat /proc/1/status; touch /x 2>&1 || true")
        assert said.splitlines()[0] == "10001"
        assert "CapEff:\t0000000000000000" in said and "NoNewPrivs:\t1" in said
        assert "Read-only file system" in said, said
    assert any("event=memory_sealed" in line for line in project.logs("gateway"))
    environment = project.inspect("gateway", "{{.Config.Env}}")[0]
    assert "DATABASE_URL= " in environment + " " and "POSTGRES_PASSWORD= " in environment + " "
    assert "postgresql://" not in environment


# ---- Life ----

def test_a_gateway_that_dies_is_restarted_and_loses_nothing(project):
    """What had `queued` or, while RabbitMQ was away, `accepted` is stored."""
    count = 200
    with Client(project.url("dying", "?receipts=queued")) as client:
        for number in range(count):
            client.send({"type": "text", "content": number, "id": f"q{number}"})
        client.expect(seq=count, status="queued")
        pid = int(project.inspect("gateway", "{{.State.Pid}}")[0])
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: project.inspect("gateway", "{{.RestartCount}} {{.State.Running}}") == ["1 true"], 60,
               "the engine to restart the gateway")
    project.wait_healthy("gateway")
    project.compose("stop", "rabbitmq")
    with Client(project.url("dying", "?receipts=accepted")) as client:
        for number in range(count):
            client.send({"type": "text", "content": number, "id": f"a{number}"})
        client.expect(seq=count, status="accepted")
        project.compose("kill", "gateway")
    ensure_up(project)
    wanted = [[f"q{number}"] for number in range(count)] + [[f"a{number}"] for number in range(count)]
    wait_until(lambda: len(project.sql(STORED.format("dying"))) >= 2 * count, 120, "all rows", 1)
    assert project.sql(STORED.format("dying")) == wanted


def test_several_processors(project):
    """Each consumes, and each has a log file of its own on the host."""
    project.documented("docker-compose up -d --scale processor=3")
    folder = project.folder / "message_processor" / "logs"
    names = ["message_processor.log", "message_processor-2.log", "message_processor-3.log"]
    wait_until(lambda: all((folder / name).exists() for name in names), 60, "three logs")
    for name in names:
        wait_until(lambda name=name: "event=consuming" in (folder / name).read_text("utf-8"), 60, name)
    shown = run(["/usr/bin/python3", "-B", "tests/support/logs.py"], project.environment, project.folder, True, 60)
    assert len([line for line in shown.stdout.splitlines() if "event=consuming" in line]) >= 3
    with Client(project.url("scaled", "?receipts=stored")) as client:
        for number in range(300):
            client.send({"type": "text", "content": number, "id": f"m{number}"})
        for _ in range(300):
            client.expect(status="stored")
    assert project.sql("SELECT count(*) FROM messages WHERE client_id = 'scaled'") == [["300"]]


def test_down_and_up_keep_what_the_volumes_hold(project):
    before = project.sql("SELECT count(*) FROM messages")
    project.documented("docker-compose down")
    ensure_up(project)
    assert len(project.containers("processor")) == 1
    assert project.sql("SELECT count(*) FROM messages") == before
    with Client(project.url("dev-7")) as client:
        client.store("again", "m2")


# ---- Bad starts ----

def test_a_port_that_is_taken_is_named(project):
    project.compose("rm", "-sf", "gateway")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", project.port))
        taken.listen()
        done = project.up("--no-deps", "gateway", check=False)
        assert done.returncode != 0
        assert f"127.0.0.1:{project.port}: bind: address already in use" in done.stdout
        assert project.inspect("gateway", "{{.State.Status}} {{.RestartCount}}") == ["created 0"]
    project.up("--no-deps", "gateway")
    project.wait_healthy("gateway")


def test_an_old_schema_is_named_with_its_remedy(project):
    """By the processor, once and while it goes on; and it works on as soon as the schema is right."""
    project.compose("stop", "processor")
    project.sql("ALTER TABLE messages RENAME COLUMN received_at TO received")
    try:
        project.up("--no-deps", "processor")
        told = wait_until(lambda: [line for line in project.logs("processor") if "database_not_migrated" in line], 60,
                          "the processor to tell", 0.5)
        assert len(told) == 1 and 'remedy="alembic upgrade head"' in told[0] and "received_at" in told[0]
        assert project.exec("processor", "http-status", "localhost", "8082", "/readyz") == "503\n"
        assert project.inspect("processor", "{{.RestartCount}} {{.State.Running}}") == ["0 true"]
    finally:
        project.sql("ALTER TABLE messages RENAME COLUMN received TO received_at")
    with Client(project.url("dev-7")) as client:
        client.store("once more", "m3")


def test_a_database_of_others_is_one_line_and_ends_the_start(project):
    project.compose("stop", "processor")
    project.compose("rm", "-f", "migrate")
    project.sql("UPDATE alembic_version SET version_num = '9999'")
    done = project.up(check=False)
    assert done.returncode != 0
    told = [line for line in project.logs("migrate") if not line.startswith("INFO ")]
    assert len(told) == 1 and "the database is at revision 9999, which is not among these" in told[0], told
    assert project.inspect("processor", "{{.State.Running}}") == ["false"]
    project.sql("DELETE FROM alembic_version")
    done = project.compose("run", "--rm", "--no-deps", "migrate", check=False)
    assert done.returncode == 1
    assert "these migrations have not made it: rename it, or give DATABASE_URL" in done.stdout
    assert "Traceback" not in done.stdout
    project.sql("INSERT INTO alembic_version VALUES ('0001')")


def test_a_wrong_password_is_one_line_and_ends_the_start(project):
    """Of both servers, whose volumes keep what they were made with. Once they are told the new ones, all is well."""
    project.compose("rm", "-sf", "prepare", "migrate", "gateway", "processor", "locust")
    project.make_env(RABBITMQ_DEFAULT_PASS="NEW", POSTGRES_PASSWORD="NEW")
    done = project.up(check=False)
    assert done.returncode != 0
    told = project.logs("prepare")
    assert len(told) == 1 and "RABBITMQ_DEFAULT_PASS" in told[0] and "rabbitmqctl change_password" in told[0], told
    told = [line for line in project.logs("migrate") if not line.startswith("INFO ")]
    assert len(told) == 1 and "password authentication failed" in told[0] and "POSTGRES_PASSWORD" in told[0], told
    assert not project.containers("gateway") and not project.containers("processor")
    project.documented("docker-compose exec rabbitmq rabbitmqctl change_password postern NEW")
    project.documented(
        "docker-compose exec postgres psql -U postern postern -c \"ALTER ROLE postern PASSWORD 'NEW'\"")
    ensure_up(project)
    with Client(project.url("dev-7")) as client:
        client.store("well again", "m4")


# ---- The documents ----

def test_every_command_of_the_documents_was_run(project, tmp_path):
    project.documented("docker-compose up -d migrate")
    # It follows the logs until it is ended.
    follow = "docker-compose logs -f gateway processor"
    project.ran.add(tuple(follow.split()))
    following = Process(follow, follow.split(), project.folder, project.environment, tmp_path / "output.log").start()

    def shows_both():
        said = following.output.read_text("utf-8", "replace")
        return "gateway_1" in said and "processor_1" in said
    try:
        wait_until(shows_both, 120, f"both names in {following.output}")
        time.sleep(2)  # one that does not follow ends meanwhile
        following.check_alive()
    finally:
        following.kill9()
    project.documented("docker-compose down --volumes")
    assert not project.left_behind()
    blocks = [block for name in ("README.md", "doc/containers.md")
              for block in re.findall(r"```sh\n(.*?)```", (ROOT / name).read_text("utf-8"), re.S)]
    commands = {tuple(shlex.split(line, comments=True)) for block in blocks for line in block.splitlines()
                if line.startswith("docker-compose ")}
    assert len(commands) > 8 and not commands - project.ran


def test_the_port_of_rabbitmq_can_be_published(project):
    text = (ROOT / "doc/containers.md").read_text("utf-8")
    override = project.folder / "docker-compose.override.yml"
    override.write_text(re.search(r"```yaml\n(.*?)```", text, re.S).group(1))
    environment = {name: value for name, value in project.environment.items() if name != "COMPOSE_FILE"}
    done = run(["docker-compose", "config"], environment, project.folder, True, 60)
    override.unlink()
    assert "published: 5672" in done.stdout and f"127.0.0.1:{project.management_port}:15672/tcp" in done.stdout


# ---- docker compose 2 ----

def test_docker_compose_2_reads_the_file(project):
    environment = {**project.environment, "DOCKER_CONFIG": os.path.expanduser("~/.docker")}
    if subprocess.run(["docker", "compose", "version"], env=environment, stdout=subprocess.DEVNULL,
                      stderr=subprocess.DEVNULL, check=False).returncode != 0:
        pytest.skip("NOT RUN: this machine has no docker compose 2 (Debian 12 has no package of it)")
    done = subprocess.run(["docker", "compose", "config", "--quiet"], cwd=project.folder, env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0 and not done.stdout.strip(), done.stdout
