# SPDX-License-Identifier: MIT
"""Starting, stopping, logs, and what wrong settings get."""

import os
import re
import signal
import subprocess
import time

import pytest
from admin import readiness
from clients import Client, Closed, RawClient
from pipeline import BUILD
from process import free_port, wait_until
from programs import find_program, parse_log_line


def run_program(name, folder, *arguments, **settings):
    """Runs a program that is meant to end by itself; returns (exit code, everything it said)."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run([find_program(BUILD, name), *arguments], cwd=folder, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
                          env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **settings})
    return done.returncode, done.stdout


@pytest.mark.short
def test_sigterm_drains(pipeline):
    """Clients are told 1012, what was taken reaches the queue, the exit code is 0."""
    gateway = pipeline.gateway(DRAIN_MS="1000")
    pipeline.wait_connected_to_broker(gateway)
    clients = [Client(gateway.url(f"dev-{number}")) for number in range(20)]
    for client in clients:
        for _ in range(50):
            client.send({"type": "text", "content": "x"})
    gateway.send_signal(signal.SIGTERM)
    queued = 0
    for client in clients:
        try:
            while True:
                queued += client.receive().get("status") == "queued"
        except Closed as closed:
            assert closed.code == 1012, closed
    assert gateway.end() == 0
    assert pipeline.queue_depth() >= queued


def test_sigterm_does_not_wait_for_a_broker_that_is_away_for_ever(pipeline):
    gateway = pipeline.gateway(DRAIN_MS="500")
    pipeline.wait_connected_to_broker(gateway)
    pipeline.broker.stop()
    client = Client(gateway.url("dev-7"))
    client.send({"type": "text", "content": "x"})
    gateway.send_signal(signal.SIGTERM)
    assert client.expect_close().code == 1012
    assert gateway.end() == 0
    pipeline.broker.cont()


def test_no_new_client_while_it_drains(pipeline):
    gateway = pipeline.gateway(DRAIN_MS="3000")
    clients = [Client(gateway.url(f"dev-{number}")) for number in range(3)]
    gateway.send_signal(signal.SIGTERM)
    clients[0].expect_close()
    with pytest.raises((OSError, Closed, AssertionError)):
        Client(gateway.url("late"))
    assert gateway.end() == 0


def test_processor_ends_with_0_and_leaves_no_message_behind(pipeline):
    gateway = pipeline.gateway()
    processor = pipeline.processor()
    with Client(gateway.url("dev-7")) as client:
        for number in range(300):
            client.send({"type": "text", "content": number, "id": f"m{number}"})
        client.expect(seq=300, status="queued")
    assert processor.end() == 0
    wait_until(lambda: pipeline.row_count() + pipeline.queue_depth() == 300, 30, "each message to be in one place")


def test_sighup_reopens_the_log(pipeline):
    gateway = pipeline.gateway()
    processor = pipeline.processor()
    pipeline.wait_connected(gateway)
    for program in (gateway, processor):
        moved = program.log_path.with_suffix(".moved")
        program.log_path.rename(moved)
        program.hang_up()
        wait_until(program.log_path.exists, 30, "the log to be opened anew")
        pipeline.wait_connected(gateway)
        wait_until(lambda: program.log_path.stat().st_size > 0, 30, "lines in the new log")


def test_logs_rotate_within_their_bounds(pipeline):
    gateway = pipeline.gateway(LOG_MAX_BYTES="65536", LOG_FILES="3", LOG_MESSAGES="1", LOG_LEVEL="debug")
    folder = gateway.log_path.parent
    with Client(gateway.url("dev-7", "?receipts=none")) as client:
        def rotated():
            for _ in range(200):
                client.send({"type": "text", "content": "x", "id": f"m{client.sent_count}"})
            client.send({"type": "ping"})
            client.expect(type="pong")
            return len(list(folder.iterdir())) >= 3
        wait_until(rotated, 60, "three log files")
        for _ in range(10):
            rotated()
    # What is still being logged may be turning them just now.
    files = wait_until(lambda: len(found := list(folder.iterdir())) == 3 and found, 20, "three files again")
    assert all(path.stat().st_size <= 65536 + 4096 for path in files), [path.stat().st_size for path in files]


def test_log_lines_are_logfmt_and_follow_a_message(pipeline):
    """One grep finds a message in both logs."""
    gateway = pipeline.gateway(LOG_MESSAGES="1")
    processor = pipeline.processor(LOG_MESSAGES="1")
    with Client(gateway.url("dev-7")) as client:
        client.store("x", "find-me")
    for program in (gateway, processor):
        wait_until(lambda: program.log(client="dev-7", id="find-me"), 30, "the message in the log")
        for line in program.log_text().splitlines():
            fields = parse_log_line(line)
            assert {"ts", "level", "event"} <= set(fields), line
            assert fields["level"] in ("error", "warn", "info", "debug"), line


def test_a_log_that_cannot_be_written_stops_nothing(pipeline):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    gateway = pipeline.gateway(GATEWAY_LOG_FILE="/dev/full", ADMIN_PORT=free_port())
    processor = pipeline.processor(PROCESSOR_LOG_FILE="/dev/full", PROCESSOR_ADMIN_PORT=free_port())
    with Client(gateway.url("dev-7")) as client:
        client.send({"type": "ping"})
        assert client.receive() == {"type": "pong"}
    for program in (gateway, processor):
        wait_until(lambda: readiness(program) == (True, [], ["log_failing"]), 30, "who watches to learn it")


def test_a_pipe_that_nobody_reads_does_not_hold_up_the_start(pipeline):
    pipe = pipeline.folder / "pipe"
    os.mkfifo(pipe)
    gateway = pipeline.gateway(GATEWAY_LOG_FILE=pipe)
    said = gateway.output.read_text("utf-8")
    assert f"the log {pipe} cannot be written: open: it is a socket, or a pipe that nobody reads" in said


@pytest.mark.parametrize("program, name, value", [
    ("postern-gateway", "PORT", "99999"),
    ("postern-gateway", "PORT", "http"),
    ("postern-gateway", "SESSION_POLICY", "first"),
    ("postern-gateway", "RABBITMQ_URL", "http://127.0.0.1"),
    ("postern-gateway", "ROUTES", "text messages"),
    ("postern-gateway", "MAX_MESSAGE_BYTES", "0"),
    ("postern-processor", "DATABASE_URL", "mysql://x"),
    ("postern-processor", "PROCESSOR_BATCH", "-1"),
    ("postern-gateway", "LISTEN_ADDRESS", "1.2.3"),
    ("postern-gateway", "ADMIN_ADDRESS", "300.1.1.1"),
    ("postern-gateway", "PORT", "8081"),
    ("postern-gateway", "RABBITMQ_URL", "amqp://u:sec ret@127.0.0.1:1"),
    ("postern-processor", "PROCESSOR_ADMIN_ADDRESS", "300.1.1.1"),
])
def test_a_wrong_setting_stops_the_start_with_one_line(tmp_path, program, name, value):
    settings = {"RABBITMQ_URL": "amqp://127.0.0.1:1", "DATABASE_URL": "postgresql://127.0.0.1:1/x", name: value}
    code, said = run_program(program, tmp_path, **settings)
    assert code == 2
    lines = [line for line in said.splitlines() if name in line]
    assert len(lines) == 1 and len(said.splitlines()) == 1, said
    assert run_program(program, tmp_path, "--check", **settings) == (code, said)


def test_dotenv_is_read_and_the_environment_wins(tmp_path):
    (tmp_path / ".env").write_text('# a comment\nexport PORT="8123"\nHEARTBEAT_INTERVAL=17 # seconds\n')
    code, said = run_program("postern-gateway", tmp_path, "--check", HEARTBEAT_INTERVAL="18")
    assert code == 0, said
    assert "8123" in said and "18" in said and "=17" not in said.replace(" ", "")


def test_a_wrong_line_of_dotenv_is_named(tmp_path):
    (tmp_path / ".env").write_text("PORT=8123\nHARTBEAT_INTERVAL=17\n")
    code, said = run_program("postern-gateway", tmp_path, "--check")
    assert code != 0
    assert ".env:2" in said and "HARTBEAT_INTERVAL" in said and "HEARTBEAT_INTERVAL" in said, said


def test_check_masks_secrets(tmp_path):
    for program in ("postern-gateway", "postern-processor"):
        code, said = run_program(program, tmp_path, "--check", RABBITMQ_URL="amqp://user:s3cret-a@127.0.0.1/",
                                 DATABASE_URL="postgresql://user:s3cret-b@127.0.0.1/x")
        assert code == 0, said
        assert "s3cret" not in said and "127.0.0.1" in said


def test_the_template_is_a_valid_dotenv(tmp_path):
    from programs import ROOT
    (tmp_path / ".env").write_text((ROOT / ".env.template").read_text("utf-8"))
    for program in ("postern-gateway", "postern-processor"):
        code, said = run_program(program, tmp_path, "--check", DATABASE_URL="postgresql://127.0.0.1/postern")
        assert code == 0, said


def test_a_taken_port_is_one_clear_line(pipeline):
    gateway = pipeline.gateway()
    code, said = run_program("postern-gateway", pipeline.folder / "second", PORT=str(gateway.port),
                             LISTEN_ADDRESS="127.0.0.1", RABBITMQ_URL=pipeline.rabbitmq_url)
    assert code == 1
    assert f"PORT={gateway.port}" in said and "nothing else has the port" in said and len(said.splitlines()) == 1, said


def test_the_plan_is_shown_without_starting(tmp_path):
    for program in ("postern-gateway", "postern-processor"):
        code, said = run_program(program, tmp_path, "--plan", DATABASE_URL="postgresql://127.0.0.1:1/x")
        assert code == 0 and "total" in said, said
        rows = [line for line in said.splitlines() if not line.startswith("#")]
        table = rows[1:next(index for index, line in enumerate(rows) if line.startswith("total"))]
        total = next(int(line.split()[-1]) for line in rows if line.startswith("total"))
        assert sum(int(line.split()[-1]) for line in table) == total, said
        assert not any(tmp_path.glob("*")), "it wrote something"


@pytest.mark.parametrize("program", ["postern-gateway", "postern-processor"])
def test_the_command_line_is_judged(tmp_path, program):
    """Exit code 2 and one line that says what to do; --help and --version need no settings at all."""
    for words in (["--chekc"], ["run"], ["--check", "x"], ["--version", "x"], ["--plan", "1", "2", "3"], [""]):
        code, said = run_program(program, tmp_path, *words, DATABASE_URL="postgresql://127.0.0.1:1/x")
        assert code == 2 and said.startswith(f"{program}: ") and "--help" in said, (words, said)
        assert len(said.splitlines()) == 1, said
    for option in ("--help", "-h", "--version"):
        code, said = run_program(program, tmp_path, option)
        assert code == 0 and program in said, said
    for words in (["--plan", "0"], ["--plan", "x"], ["--plan", "5", "-1"]):
        code, said = run_program(program, tmp_path, *words, DATABASE_URL="postgresql://127.0.0.1:1/x")
        assert code == 2 and "--plan" in said and len(said.splitlines()) == 1, said


def test_exit_codes(pipeline, tmp_path):
    """0 in good order, 1 told twice, 2 a wrong setting; as --help and the manual pages say."""
    gateway = pipeline.gateway(DRAIN_MS="60000")
    clients = [Client(gateway.url(f"dev-{number}")) for number in range(20)]  # one is told every three seconds
    gateway.send_signal(signal.SIGTERM)
    gateway.wait_log(event="drain_begin")
    gateway.send_signal(signal.SIGTERM)
    assert gateway.wait(30) == 1 and gateway.log(event="stopped_at_once")
    for client in clients:
        client.drop()
    assert pipeline.gateway().end() == 0
    assert run_program("postern-gateway", tmp_path, PORT="0")[0] == 2


def test_a_stop_while_it_starts_is_kept(tmp_path):
    """It is told while it reads .env, a pipe that says nothing yet, and stops in good order as soon as it runs."""
    os.mkfifo(tmp_path / ".env")
    env = {"PATH": "/usr/bin:/bin", "LISTEN_ADDRESS": "127.0.0.1", "RABBITMQ_URL": "amqp://127.0.0.1:1"}
    with subprocess.Popen([find_program(BUILD, "postern-gateway")], cwd=tmp_path, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, env=env) as gateway:
        pipe = wait_until(lambda: _open_if_read(tmp_path / ".env"), 30, "the gateway reading .env")
        gateway.send_signal(signal.SIGTERM)
        os.write(pipe, f"PORT={free_port()}\nADMIN_PORT=0\n".encode())
        os.close(pipe)
        try:
            assert gateway.wait(30) == 0
        finally:
            gateway.kill()


def _open_if_read(pipe):
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def test_check_refuses_what_the_start_refuses(tmp_path):
    """Too little memory shows only once all is measured."""
    code, said = run_program("postern-gateway", tmp_path, MEMORY_LIMIT="1M")
    assert code == 2 and "MEMORY_LIMIT=1048576: " in said and len(said.splitlines()) == 1, said
    assert run_program("postern-gateway", tmp_path, "--check", MEMORY_LIMIT="1M") == (code, said)
    assert run_program("postern-gateway", tmp_path, "--check", MEMORY_LIMIT="1G")[0] == 0


def test_the_plan_says_how_long_an_outage_may_be(tmp_path):
    def outage(*words, **settings):
        code, said = run_program("postern-gateway", tmp_path, "--plan", *words, **settings)
        assert code == 0, said
        found = re.findall(r"^(messages of|minutes of outage at) (\d+).*?(\d+)$", said, re.M)
        return {(what, int(which)): int(value) for what, which, value in found}
    usual = outage()
    held = usual["messages of", 200]
    assert 100_000 < held < 64 * 1024 * 1024 / 200
    assert usual["minutes of outage at", 1] == held // 60 and usual["minutes of outage at", 100] == held // 6000
    assert outage("7", "1000") == {("messages of", 1000): outage("7", "1000")["messages of", 1000],
                                   ("minutes of outage at", 7): outage("7", "1000")["messages of", 1000] // 420}
    assert outage("7", "1000")["messages of", 1000] < held / 2
    assert outage(SPOOL_MAX_BYTES="640M")["messages of", 200] == 10 * held
    assert not outage(SPOOL_MAX_BYTES="0")
    code, said = run_program("postern-gateway", tmp_path, "--plan", "many")
    assert code == 2 and "--plan RATE: messages a second, 1 to " in said, said


@pytest.mark.short
def test_idle_clients_cost_nothing_over_time(pipeline):
    """No timer or log of an idle gateway wakes it for nothing."""
    gateway = pipeline.gateway(LOG_LEVEL="info")
    pipeline.wait_connected_to_broker(gateway)
    clients = [Client(gateway.url(f"dev-{number}")) for number in range(50)]
    with RawClient(gateway.url("x")):
        wait_until(lambda: _wakes_within(gateway, 3) <= 10, 60, "three seconds in which it sleeps", 0)
    for client in clients:
        client.close()


def _wakes_within(gateway, for_s):
    """How often the gateway's loop went to sleep: once a turn."""
    before = gateway.sleep_count()
    time.sleep(for_s)
    return gateway.sleep_count() - before
