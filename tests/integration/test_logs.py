# SPDX-License-Identifier: MIT
"""What a person does with the logs: follow one message through both, and trust that they never fill the disk."""

import signal
import subprocess
import threading
import time
from datetime import datetime, timezone

import logs
import pytest
from clients import Client
from pipeline import BUILD
from process import Process, wait_until
from programs import ROOT, parse_log_line

PYTHON = "/usr/bin/python3"
FILE_BYTES = 16384  # the smallest allowed


def logs_command(programs, *words):
    files = [word for program in programs for word in ("--file", str(program.log_path))]
    return [PYTHON, "-B", str(ROOT / "tests/support/logs.py"), *files, *words]


def dev_logs(programs, *words):
    """`./dev logs` over these programs' files; returns the exit code and the lines as dictionaries."""
    done = subprocess.run(logs_command(programs, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=60, check=False)
    return done.returncode, [parse_log_line(line) for line in done.stdout.splitlines()]


def taken(lines):
    return [line["id"] for line in lines if line["event"] == "message_taken"]


@pytest.fixture
def programs(pipeline):
    settings = {"LOG_MESSAGES": "1", "LOG_LEVEL": "info", "LOG_MAX_BYTES": str(FILE_BYTES), "LOG_FILES": "100"}
    gateway = pipeline.gateway(SPOOL_MAX_BYTES="0", **settings)  # what waits long has one stage more with a spool
    processor = pipeline.processor(**settings)
    pipeline.wait_connected(gateway)
    return gateway, processor


def store_many(gateway, first, count):
    with Client(gateway.url("dev-7")) as client:
        for number in range(first, first + count):
            client.send({"type": "text", "content": "x", "id": f"m{number}"})
        client.expect(seq=count, status="stored")


def test_one_message_through_both_programs(programs):
    gateway, processor = programs
    with Client(gateway.url("dev-7")) as client:
        client.store("x", "find-me")
        client.store("x", "another")
    wait_until(lambda: gateway.log(event="message_stored", id="another"), 30, "the last line")
    wait_until(lambda: processor.log(event="stored", id="another"), 30, "the processor's line")
    code, lines = dev_logs(programs, "dev-7:find-me")
    assert code == 0
    events = [line["event"] for line in lines]
    assert sorted(events) == sorted(["message_taken", "message_published", "message_queued", "stored",
                                     "message_stored"]), events
    assert events[:2] == ["message_taken", "message_published"]
    times = [line["ts"] for line in lines]
    assert times == sorted(times)
    assert {line["id"] for line in lines} == {"find-me"}
    for wanted in ("find-me", "dev-7"):
        _, found = dev_logs(programs, wanted)
        assert [line for line in found if line.get("id") == "find-me"] == lines
    assert len(dev_logs(programs, "dev-7")[1]) >= 12, "both messages, and the client's coming and going"


def test_no_line_is_a_clear_word(programs):
    code, lines = dev_logs(programs, "dev-nobody")
    assert code == 1 and not lines


def test_the_logs_are_those_of_dotenv(tmp_path, monkeypatch):
    """As ./dev run and the programs themselves have it: the environment goes before .env."""
    (tmp_path / ".env").write_text("GATEWAY_LOG_FILE=elsewhere/g.log\nPROCESSOR_LOG_FILE='p q.log'\n", "utf-8")
    (tmp_path / "elsewhere").mkdir()
    for name in ("elsewhere/g.log", "elsewhere/g-2.log", "p q.log", "environment.log"):
        (tmp_path / name).touch()

    def found():
        return [file.path.relative_to(tmp_path).as_posix() for file in logs.log_files(None, tmp_path, BUILD)]
    monkeypatch.delenv("GATEWAY_LOG_FILE", raising=False)
    monkeypatch.delenv("PROCESSOR_LOG_FILE", raising=False)
    assert found() == ["elsewhere/g.log", "elsewhere/g-2.log", "p q.log"]
    monkeypatch.setenv("PROCESSOR_LOG_FILE", "environment.log")
    assert found() == ["elsewhere/g.log", "elsewhere/g-2.log", "environment.log"]


def test_what_it_writes_itself_is_no_log(tmp_path):
    """Where a program's log is /dev/stdout, the command's own is another one."""
    output = tmp_path / "output"
    output.write_text("ts=2026-11-23T07:21:11.839Z level=info event=earlier\n", "ascii")
    code = f"import logs, pathlib; print(logs.is_log(pathlib.Path('/dev/stdout')), logs.is_log(pathlib.Path({str(output)!r})))"
    with open(output, "ab") as own:
        subprocess.run([PYTHON, "-B", "-c", code], cwd=ROOT / "tests/support", stdout=own, timeout=60, check=True)
    assert output.read_text("ascii").splitlines()[1] == "False False"
    assert logs.is_log(output)


def test_an_empty_log_is_said_to_be_empty(tmp_path):
    (tmp_path / "empty.log").touch()
    done = subprocess.run([PYTHON, "-B", str(ROOT / "tests/support/logs.py"), "--file", tmp_path / "empty.log"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "The log is empty.\n")


def test_rotated_parts_are_read_too_and_followed(programs, tmp_path):
    """In order, each line once, while the files are moved on under the reader."""
    gateway, _ = programs
    store_many(gateway, 0, 300)
    wait_until(lambda: len(gateway.log(event="message_stored", client="dev-7")) == 300, 60, "all stages in the log")
    assert len(list(gateway.log_path.parent.iterdir())) > 5, "the log was rotated"
    expected = [f"m{number}" for number in range(300)]
    assert taken(dev_logs(programs, "dev-7")[1]) == expected

    follower = Process("./dev logs", logs_command(programs, "--follow", "dev-7"), tmp_path,
                       {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}, tmp_path / "followed")
    follower.start()

    def followed():
        return [parse_log_line(line) for line in follower.output.read_text("utf-8").splitlines()]

    def times(program):
        lines = follower.output.read_text("utf-8").splitlines()
        return [parse_log_line(line)["ts"] for line in lines if line.split()[0] == program.log_path.name]
    try:
        wait_until(lambda: len(taken(followed())) == 300, 60, "what is there already")
        for first in range(300, 900, 200):
            store_many(gateway, first, 200)
        wait_until(lambda: len([line for line in followed() if line["event"] == "message_stored"]) >= 900, 60,
                   "what came since")
        time.sleep(1)  # a line that is shown twice would come now
        lines = followed()
    finally:
        follower.end(signal.SIGTERM)
    assert taken(lines) == [f"m{number}" for number in range(900)]
    # Of each: a program that is held up between a line's time and its being written is later than lines are held back.
    for program in programs:
        assert times(program) == sorted(times(program)) and times(program)


def test_followed_lines_of_two_programs_are_in_order(monkeypatch, capsys):
    """However long it takes to read the files, and though a line's time is a moment before it is written."""
    now = [1_800_000_000.0]

    class File:
        """A log, to which a line is written when the first one has just been read."""

        def __init__(self, label):
            self.label = label
            self.written = []

        def write(self, age_s):
            ts = datetime.fromtimestamp(now[0] - age_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
            self.written.append((ts, self.label, f"ts={ts} event=from_{self.label}"))

        def lines(self):
            found, self.written = self.written, []
            if self.label == "first":
                first.write(0.25)
                second.write(0.1)
                now[0] += 1
            return found
    first, second = File("first"), File("second")
    turns = iter(range(5))

    def sleep(seconds):
        if next(turns, None) is None:
            raise KeyboardInterrupt
        now[0] += seconds
    monkeypatch.setattr(logs.time, "time", lambda: now[0])
    monkeypatch.setattr(logs.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        logs.follow([first, second], None, 6)
    shown = capsys.readouterr().out.splitlines()
    times = [line.split()[1] for line in shown]
    assert len(shown) >= 6 and times == sorted(times), shown


def test_a_flood_stays_within_the_caps_at_every_moment(pipeline):
    """Both programs; not only in the end."""
    settings = {"LOG_MESSAGES": "1", "LOG_LEVEL": "debug", "LOG_MAX_BYTES": str(FILE_BYTES), "LOG_FILES": "3"}
    gateway = pipeline.gateway(**settings)
    processor = pipeline.processor(**settings)
    pipeline.wait_connected(gateway)
    too_much, looks, ending = [], [0], threading.Event()

    def watch():
        while not ending.is_set():
            for program in (gateway, processor):
                # One file after the other, while they are moved on: the sum may count one twice, each file may not.
                for path in program.log_path.parent.iterdir():
                    try:
                        size = path.stat().st_size
                    except FileNotFoundError:
                        continue
                    if size > FILE_BYTES or not path.name.startswith(program.log_path.name):
                        too_much.append((path.name, size))
                names = {path.name for path in program.log_path.parent.iterdir()}
                if len(names) > 3:
                    too_much.append(sorted(names))
            looks[0] += 1
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    clients = [Client(gateway.url(f"flood-{number}")) for number in range(5)]
    for number in range(400):
        for client in clients:
            client.send({"type": "text", "content": "x", "id": f"a-long-name-for-a-message-{number}"})
            if number % 50 == 0:
                client.send_text("no message at all")
    for client in clients:
        client.expect(id="a-long-name-for-a-message-399", status="stored")
        client.close()
    ending.set()
    watcher.join(30)
    assert not too_much, too_much[:5]
    assert looks[0] > 20
    for program in (gateway, processor):
        names = [program.log_path.name + part for part in ("", ".1", ".2")]
        # What is still being logged may be turning them just now.
        wait_until(lambda: sorted(path.name for path in program.log_path.parent.iterdir()) == names, 20, f"{names}")
