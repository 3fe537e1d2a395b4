# SPDX-License-Identifier: MIT
"""`./dev test`: builds everything, runs everything, and counts.

A few steps run side by side. Each prints one line when it is done; the output of a failed one is printed in full. The
very last line is the count.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
JOBS = str(os.cpu_count() or 2)
STEP_TIMEOUT_S = 5400


class Count:
    def __init__(self, passed=0, failed=0, skipped=0):
        self.passed = passed
        self.failed = failed
        self.skipped = skipped
        self.skip_reasons = []

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.skip_reasons += other.skip_reasons

    def __str__(self):
        words = [f"{self.passed} passed", f"{self.failed} failed"]
        if self.skipped:
            words.append(f"{self.skipped} skipped")
        return ", ".join(words)


class StepFailed(Exception):
    """A step that cannot be counted in tests: its output is the text."""


def run(command, env=None):
    """Runs a command, which ends with us; returns (exit code, output)."""
    try:
        done = subprocess.run(["setpriv", "--pdeathsig", "TERM", "--", *map(str, command)], cwd=ROOT, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=STEP_TIMEOUT_S, check=False,
                              env={**os.environ, **(env or {})})
        return done.returncode, done.stdout.decode("utf-8", "replace")
    except subprocess.TimeoutExpired as expired:
        output = (expired.stdout or b"").decode("utf-8", "replace")
        return 124, f"{output}\n(broken off after {STEP_TIMEOUT_S} s)"


def must(command, env=None):
    code, output = run(command, env)
    if code != 0:
        raise StepFailed(f"$ {' '.join(map(str, command))}\n{output}\n(exit {code})")
    return output


def build(preset):
    """Configures and builds; warnings are errors, so a build that succeeds is a clean one."""
    must(["cmake", "--preset", preset])
    must(["cmake", "--build", "--preset", preset, "-j", JOBS])
    return Count()


def count_cmocka(output):
    """The tests of one CMocka program by its own words; None when it is not one."""
    started = output.count("[ RUN      ]")
    if not started:
        return None
    passed = output.count("[       OK ]")
    skipped = output.count("[  SKIPPED ] ") and sum(
        1 for line in output.splitlines() if line.startswith("[  SKIPPED ] ") and "test(s)" not in line)
    skipped = min(skipped, started - passed)
    return Count(passed, started - passed - skipped, skipped)


def count_pytest(report):
    """Counts of a pytest run by its JUnit file."""
    count = Count()
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            count.failed += 1
        elif skipped is not None:
            count.skipped += 1
            count.skip_reasons.append(f"{name}: {skipped.get('message')}")
        else:
            count.passed += 1
    return count


def ctest(build_name, *options):
    """Runs ctest; counts the single tests in each program."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "ctest.xml"
        code, output = run(["ctest", "--test-dir", f"build/{build_name}", "--output-on-failure", "--timeout", "600",
                            "-j", JOBS, "--output-junit", report, "--test-output-size-passed", "10000000",
                            "--test-output-size-failed", "10000000", *options])
        if not report.exists():
            raise StepFailed(output)
        count = Count()
        for case in xml.etree.ElementTree.parse(report).iter("testcase"):
            ok = case.get("status") == "run"
            single = count_cmocka(case.findtext("system-out") or "")
            if single is None:
                single = Count(passed=1) if ok else Count(failed=1)
            elif not ok and single.failed == 0:
                single.failed = 1  # it crashed, leaked or timed out after its tests
            count.add(single)
        if count.passed + count.failed == 0:
            raise StepFailed(f"no test was found\n{output}")
        if code != 0 and count.failed == 0:
            raise StepFailed(output)
    return (count, output) if count.failed else count


def pytest(build_name, *arguments, poller="auto"):
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "pytest.xml"
        code, output = run([PYTHON, "-B", "-m", "pytest", "-q", "--junitxml", report, *arguments],
                           {"POSTERN_BUILD": build_name, "POSTERN_POLLER": poller})
        if not report.exists():
            raise StepFailed(output)
        count = count_pytest(report)
        if code != 0 and count.failed == 0:
            raise StepFailed(output)
    return (count, output) if count.failed else count


def simulate(build_name, *arguments):
    """Runs of the simulator; the line with what they were made of is worth seeing when they are good, too."""
    code, output = run([f"build/{build_name}/tests/sim/sim", *arguments])
    print(f"  {output.splitlines()[-1] if output and code == 0 else ''}", flush=True)
    return Count(passed=1) if code == 0 else (Count(failed=1), output)


def planted_faults():
    """Each planted fault in a simulator of its own: it has to show within so many seeds."""
    build("faults")
    return ctest("faults", "-L", "sim_faults")


def simulator_hash(build_name):
    """The hash over a few fixed seeds, on whatever machine the build is for."""
    output = must(["ctest", "--test-dir", f"build/{build_name}", "--verbose", "-R", "^sim_some_seeds$"])
    return re.search(r"hash of .*", output).group()


def clang_tidy():
    """Each file once, though what the tests share is compiled for each of their programs."""
    commands = {}
    for command in json.loads((ROOT / "build/clang/compile_commands.json").read_text("utf-8")):
        commands.setdefault(command["file"], command)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "compile_commands.json").write_text(json.dumps(list(commands.values())), "utf-8")
        code, output = run(["run-clang-tidy", "-quiet", "-p", folder, "-j", JOBS, f"{ROOT}/(src|port|processor)/",
                            f"{ROOT}/tests/"])
    if code == 0:
        return Count(passed=1)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    # Each finding once, though a header's is found with every file that includes it.
    findings = sorted({line.replace(f"{ROOT}/", "") for line in plain.splitlines() if re.search(r": error: ", line)})
    return Count(failed=1), "\n".join(findings) or plain


def cross(architecture, debian):
    """A cross build and its unit tests under qemu-user; those named host_ start programs, which qemu-user cannot."""
    must(["toolchains/sysroot.sh", debian, f"build/sysroot/{debian}"])
    build(architecture)
    here, there = simulator_hash("release"), simulator_hash(architecture)
    if here != there:
        raise StepFailed(f"the simulator's runs depend on the machine: {here} here, {there} on {architecture}")
    return ctest(architecture, "-E", "^host_")


DEBUG, RELEASE, CLANG = "build debug (gcc, sanitizers)", "build release (gcc)", "build clang (sanitizers)"

# Each step with the builds it needs. As many run side by side as there are WORKERS, begun in this order, the long ones
# first, so that none of them is left over at the end; much of them is waiting while the others are compiling.
WORKERS = 3
STEPS = [
    (DEBUG, (), lambda: build("debug")),
    (RELEASE, (), lambda: build("release")),
    (CLANG, (), lambda: build("clang")),
    ("integration, debug", (DEBUG,), lambda: pytest("debug", "tests/integration")),
    ("end to end, debug", (DEBUG,), lambda: pytest("debug", "tests/e2e")),
    ("unit tests, debug", (DEBUG,), lambda: ctest("debug")),
    ("style and documents", (RELEASE,), lambda: pytest("release", "tests/tidy")),
    ("clang-tidy", (CLANG,), clang_tidy),
    ("integration, release, on poll()", (RELEASE,), lambda: pytest("release", "tests/integration", poller="poll")),
    ("containers", (), lambda: pytest("release", "tests/compose")),
    ("the documents' commands, release", (DEBUG, RELEASE), lambda: pytest("release", "tests/documents")),
    ("aarch64: build, unit tests in qemu", (RELEASE,), lambda: cross("aarch64", "arm64")),
    ("armhf: build, unit tests in qemu", (RELEASE,), lambda: cross("armhf", "armhf")),
    ("simulator: planted faults", (), planted_faults),
    ("chaos, short, debug", (DEBUG,), lambda: pytest("debug", "tests/chaos")),
    ("load, release", (RELEASE,), lambda: pytest("release", "tests/load")),
    ("simulator, debug: fixed seeds", (DEBUG,), lambda: simulate("debug", "--seeds", "150", "--from", "1")),
    ("simulator: fixed seeds", (RELEASE,), lambda: simulate("release", "--seeds", "1000", "--from", "1")),
    ("simulator: fresh seeds", (RELEASE,), lambda: simulate("release", "--seeds", "3000")),
    ("short end to end, release", (RELEASE,), lambda: pytest("release", "-m", "short", "tests/e2e")),
    ("unit tests, clang", (CLANG,), lambda: ctest("clang")),
    ("unit tests, release", (RELEASE,), lambda: ctest("release")),
    ("conformance, debug", (DEBUG,), lambda: pytest("debug", "tests/conformance")),
    ("conformance, release", (RELEASE,), lambda: pytest("release", "tests/conformance")),
]


class Report:
    def __init__(self):
        self.total = Count()
        self.left = list(STEPS)
        self.done = set()
        self.broken = set()
        self.changed = threading.Condition()  # guards all of the above, and the output

    @staticmethod
    def line(name, said, start):
        print(f"  {name:<38} {said:<36} {time.monotonic() - start:7.1f} s", flush=True)

    def take(self):
        """The next step whose builds are there; None when there is none left."""
        with self.changed:
            while self.left:
                for step in self.left:
                    if self.broken.intersection(step[1]):
                        print(f"  {step[0]:<38} NOT RUN: the build failed", flush=True)
                        self.left.remove(step)
                        break
                    if self.done.issuperset(step[1]):
                        self.left.remove(step)
                        return step
                else:
                    self.changed.wait()
            return None

    def run_step(self, name, do):
        """Runs, counts and prints one step."""
        start = time.monotonic()
        broken = False
        try:
            result = do()
            count, output = result if isinstance(result, tuple) else (result, None)
        except Exception as failure:  # whatever it was, it counts
            count, output, broken = Count(failed=1), f"{type(failure).__name__}: {failure}", True
        with self.changed:
            self.total.add(count)
            tests = count.passed + count.failed + count.skipped
            self.line(name, str(count) if tests else "clean", start)
            if output:
                print(f"\n{output}\n", flush=True)
            for reason in count.skip_reasons:
                print(f"  SKIPPED {reason}", flush=True)
            (self.broken if broken else self.done).add(name)
            self.changed.notify_all()

    def work(self):
        while step := self.take():
            self.run_step(step[0], step[2])


def main():
    report = Report()
    start = time.monotonic()
    workers = [threading.Thread(target=report.work, daemon=True) for _ in range(WORKERS)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        os._exit(130)
    report.line("all", "", start)
    print(report.total, flush=True)
    return 1 if report.total.failed or not report.total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
