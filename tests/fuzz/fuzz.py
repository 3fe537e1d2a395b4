# SPDX-License-Identifier: MIT
"""`./dev fuzz`: runs the fuzzers with libFuzzer, as many at a time as there are processors.

    ./dev fuzz --minutes M [NAME ...]    M minutes of processor time each; all of them where none is named
    ./dev fuzz --merge [NAME ...]        afterwards: makes the corpora in the tree of what was found, as small as can be

What grows lies under build/fuzz: corpus/NAME holds what reached something new, finds/NAME what broke a property, log/NAME
what libFuzzer said. The exit code is 1 when anything was found.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEEDS = ROOT / "tests/fuzz/corpus"
DICTIONARIES = ROOT / "tests/fuzz/dictionary"
BUILT = ROOT / "build/fuzz"
PROGRAMS = BUILT / "tests/fuzz"
INPUT_BYTES_MAX = 4096  # fuzz.h: FUZZ_INPUT_BYTES_MAX
INPUT_TIMEOUT_S = 10
MERGE_TIMEOUT_S = 600
MEMORY_MB = 1024
KEPT = ("seed-*", "find-*")  # written by hand, or found a fault: these stay in the tree


def names():
    return sorted(path.stem.removeprefix("fuzz_") for path in (ROOT / "tests/fuzz").glob("fuzz_*.c")
                  if path.stem != "fuzz_port")


def folder(kind, name):
    path = BUILT / kind / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def libfuzzer(name, *options):
    """The command line of one fuzzer."""
    dictionary = DICTIONARIES / name
    words = [f"-dict={dictionary}"] if dictionary.exists() else []
    return [PROGRAMS / f"fuzz_{name}", f"-max_len={INPUT_BYTES_MAX}", f"-timeout={INPUT_TIMEOUT_S}",
            f"-rss_limit_mb={MEMORY_MB}", f"-artifact_prefix={folder('finds', name)}/", *words, *options]


class Run:
    """One fuzzer at work."""

    def __init__(self, name, seconds):
        self.name = name
        self.seconds = seconds
        self.used_s = 0.0
        self.log = folder("log", name) / "log"
        self.before = set(folder("finds", name).iterdir())
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--",
                 *map(str, libfuzzer(name, "-print_final_stats=1", folder("corpus", name), SEEDS / name))],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def is_over(self):
        """Asks it to end when its time is used up: processor time, since libFuzzer's own limit runs on a busy machine too."""
        if self.process.poll() is not None:
            return True
        fields = Path(f"/proc/{self.process.pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        self.used_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        if self.used_s >= self.seconds:
            self.process.send_signal(signal.SIGUSR1)
        return False

    def report(self):
        """Prints one line, and what was found; true when nothing was."""
        text = self.log.read_text("utf-8", "replace")
        last = (re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)/(\S+)", text) or [("?", "?", "?", "?")])[-1]
        count = int((re.findall(r"number_of_executed_units: (\d+)", text) or [0])[-1])
        found = sorted(set(folder("finds", self.name).iterdir()) - self.before)
        well = self.process.returncode == 0 and not found
        print(f"  {self.name:<10} {count:>12} runs {count / max(self.used_s, 1):>8.0f} a CPU s   "
              f"cov {last[0]:>5}  ft {last[1]:>6}  corpus {last[2]:>5} ({last[3]})  "
              f"{self.used_s:6.0f} CPU s   {'clean' if well else 'FOUND'}", flush=True)
        if not well:
            print(f"\n{tail(text)}\n")
            for path in found:
                print(f"    to run it again:  build/fuzz/tests/fuzz/fuzz_{self.name} {path.relative_to(ROOT)}")
            if not found:
                print(f"    exit {self.process.returncode}; see {self.log.relative_to(ROOT)}")
            print(flush=True)
        return well


def tail(text):
    """The end of a log that has to do with us."""
    lines = [line for line in text.splitlines() if re.search(r"hold at|ERROR|SUMMARY|runtime error|#\d+ .*postern|"
                                                             r"#\d+ .*/(src|port|processor|tests)/", line)]
    return "\n".join("    " + line.replace(f"{ROOT}/", "") for line in lines[:20])


def fuzz(chosen, minutes):
    waiting = list(chosen)
    running = []
    well = True
    print(f"{len(chosen)} fuzzers, {minutes:g} CPU min each", flush=True)
    try:
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                running.append(Run(waiting.pop(0), max(1, round(minutes * 60))))
            time.sleep(0.2)
            for run in [run for run in running if run.is_over()]:
                running.remove(run)
                well = run.report() and well
    except KeyboardInterrupt:
        for run in running:
            run.process.terminate()
        return 130
    print("nothing was found" if well else "FOUND: see above", flush=True)
    return 0 if well else 1


def merge(name):
    """What stays, and of all else what it takes to reach whatever is reached."""
    seeds = SEEDS / name
    with tempfile.TemporaryDirectory() as temporary:
        merged = Path(temporary) / "merged"
        merged.mkdir()
        for path in [path for pattern in KEPT for path in seeds.glob(pattern)]:
            shutil.copy(path, merged)
        command = libfuzzer(name, "-merge=1", "-use_counters=0", merged, folder("corpus", name), seeds)
        done = subprocess.run(list(map(str, command)), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=MERGE_TIMEOUT_S, check=False,
                              env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})  # the runs look for leaks
        if done.returncode != 0:
            sys.exit(f"{name} cannot be merged:\n{tail(done.stdout.decode('utf-8', 'replace'))}")
        for path in seeds.iterdir():
            path.unlink()
        for path in merged.iterdir():
            shutil.copy(path, seeds)
    sizes = [path.stat().st_size for path in seeds.iterdir()]
    print(f"  {name:<10} {len(sizes):>5} files {sum(sizes):>8} bytes", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="./dev fuzz", description="Runs the fuzzers with libFuzzer.")
    parser.add_argument("--minutes", type=float, default=1, help="of processor time for each fuzzer (1)")
    parser.add_argument("--merge", action="store_true", help="make the corpora in the tree of what was found")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names()))
    given = parser.parse_args()
    unknown = set(given.names) - set(names())
    if unknown:
        parser.error(f"no such fuzzer: {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    chosen = given.names or names()
    if given.merge:
        for name in chosen:
            merge(name)
        return 0
    return fuzz(chosen, given.minutes)


if __name__ == "__main__":
    sys.exit(main())
