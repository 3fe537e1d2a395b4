# SPDX-License-Identifier: MIT
"""Every command in the documents is run: as printed, or, where that would take long, the same with less to do."""

import json
import os
import signal
import subprocess

import pytest
from clients import Client
from commands import ROOT, commands
from process import Process, free_port, wait_until

PROGRAMS = "build/release/src/gateway:build/release/processor"
LOAD = "./dev load --headless --users 100 --rate 5"
LOAD_FIGURES = ROOT / "build/load/report.json"

# What is run in place of a command, because the printed one takes minutes.
SHORTER = {
    LOAD: f"{LOAD} --run-time 5s",
    "./dev bench": "./dev bench --quick --only echo",
    "./dev bench --quick": "./dev bench --help",
    "./dev bench --only closed": "./dev bench --quick --only closed",
    "./dev cross x86_64": "toolchains/sysroot.sh amd64 build/sysroot/amd64 && cmake --preset x86_64 && "
                          "cmake --build --preset x86_64 --target postern-gateway",
    "./dev fuzz --minutes 10": "./dev fuzz --minutes 0.05 json",
    "./dev fuzz --minutes 60 spool amqp": "./dev fuzz --minutes 0.05 spool amqp",
    # It would change the corpora in the tree.
    "./dev fuzz --merge": "./dev fuzz --help",
    "FUZZ_LOG=1 build/debug/tests/fuzz/fuzz_spool build/fuzz/finds/spool/crash-…":
        "FUZZ_LOG=1 build/debug/tests/fuzz/fuzz_spool tests/fuzz/corpus/spool/seed-*",
    "./dev sim --minutes 10": "./dev sim --seeds 20 --from 7",
    "./dev sim --seeds 1000 --from 1": "./dev sim --seeds 20 --from 1",
    # tests/chaos has a run of it.
    "./dev chaos": "./dev chaos --help",
    "./dev chaos --minutes 60 --seed 7": "./dev chaos --help",
}
# How the file that a mark names says the same.
ELSEWHERE = {
    "./dev cross aarch64": 'cross("aarch64", "arm64")',
    "./dev cross armhf": 'cross("armhf", "armhf")',
    "cmake --preset faults && cmake --build --preset faults": 'build("faults")',
    "build/faults/tests/sim/sim_fault_a_wake_up_is_lost --find 3000": 'ctest("faults", "-L", "sim_faults")',
    "ctest --test-dir build/faults -L sim_faults": 'ctest("faults", "-L", "sim_faults")',
}
# These stay; this is what they say when all is well.
STAYING = {
    "./dev load": "Starting web interface",
    "./dev logs -f dev-7:m1": "event=message_taken client=dev-7 id=m1 ",
}
EVERYTHING = commands()
HERE = list(dict.fromkeys(each.text for each in EVERYTHING if each.where == "here"))


def what_is_run(command, dev_run):
    """The command, or what stands for it, with ports that are free."""
    if "-m pytest" in command:
        return f"{command} --collect-only -q"  # what they would run is a part of all tests
    if command == "./dev load":
        return f"{command} --web-port {free_port(8089)}"
    command = SHORTER.get(command, command)
    for printed, real in (("--port 8000", f"--port {dev_run.port}"), ("--run try-1", f"--run try-{os.urandom(3).hex()}"),
                          ("127.0.0.1:8081", f"127.0.0.1:{dev_run.gateway_pages_port}"),
                          ("127.0.0.1:8082", f"127.0.0.1:{dev_run.processor_pages_port}")):
        command = command.replace(printed, real)
    return command


def environment():
    return {**os.environ, "PATH": f"{ROOT}/{PROGRAMS.replace(':', f':{ROOT}/')}:{os.environ['PATH']}"}


def was_only_late(output):
    """Did this load fail for nothing but Locust's own lateness? That is the machine's doing."""
    failures = json.loads(LOAD_FIGURES.read_text("utf-8"))["failures"]
    return {each["series"] for each in failures} == {"lag"} and "Traceback" not in output


def test_the_documents_have_commands():
    assert len(EVERYTHING) > 30, EVERYTHING
    assert {"./dev test", "./dev cross aarch64"} <= {command.text for command in EVERYTHING}
    left = [command for command in [*SHORTER, *STAYING] if command not in HERE]
    assert not left, f"no document has {left}"


@pytest.mark.parametrize("command", [each for each in EVERYTHING if each.where not in ("here", "box")], ids=str)
def test_what_is_run_by_another_file_is_in_it(command):
    """It takes its commands out of the document, or has this one."""
    text = (ROOT / command.where).read_text("utf-8")
    assert command.document in text or ELSEWHERE.get(command.text, command.text) in text, (
        f"{command.where} does not run {command.text}")


@pytest.mark.parametrize("command", [command for command in HERE if command != "./dev run"])
def test_it_runs(command, dev_run, tmp_path):
    """`./dev run` itself is what all others run beside."""
    if command == "./dev logs -f dev-7:m1":
        with Client(f"ws://127.0.0.1:{dev_run.port}/dev-7") as client:
            client.send({"type": "text", "content": "x", "id": "m1"})
            client.expect(status="stored")
    if command == LOAD:
        LOAD_FIGURES.unlink(missing_ok=True)
    process = Process(command, ["/bin/bash", "-c", what_is_run(command, dev_run)], ROOT, environment(),
                      tmp_path / "output.log")
    process.start()
    try:
        if command in STAYING:
            wait_until(lambda: STAYING[command] in process.output.read_text("utf-8", "replace"), 120,
                       f"{command} to say: {STAYING[command]}")
            process.end(signal.SIGTERM)
        else:
            code = process.wait(900)
            output = process.output.read_text("utf-8", "replace")
            assert code == 0 or (command == LOAD and code == 1 and was_only_late(output)), (
                f"{command}: exit {code}\n{output[-4000:]}")
    finally:
        process.kill9()


def test_dev_run_says_what_the_readme_shows(dev_run):
    """All but times and numbers, and `accepted`, which a slow machine says too."""
    readme = (ROOT / "README.md").read_text("utf-8")
    shown = readme[readme.index("One message, as the client demo:"):readme.index("Its row in PostgreSQL:")]
    said = dev_run.output()

    def plain(text):
        return [" ".join(word for word in line.replace('"', " ").split()
                         if not any(letter.isdigit() for letter in word) and word != "ms")
                for line in text.splitlines() if line.strip() and '"accepted"' not in line]
    assert plain(shown) == plain(said[said.index("One message"):said.index("Its row in")])


def test_it_tells_when_it_runs_already(dev_run):
    done = subprocess.run([ROOT / "dev", "run"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=300, check=False)
    assert done.returncode == 1 and "runs already" in done.stdout
