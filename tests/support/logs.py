# SPDX-License-Identifier: MIT
"""`./dev logs [ID]`: the lines of both programs' logs in order of time, of one message or client or of all.

A log is several files: FILE, and FILE.1, FILE.2 and so on, which are older. They are told apart by inode, not by name,
so that a rotation in the middle of reading neither hides a line nor shows it twice.
"""

import argparse
import glob
import heapq
import os
import re
import signal
import sys
import time
from datetime import datetime, timezone
from itertools import count
from pathlib import Path

from process import Failure
from programs import ROOT, Gateway, Processor, parse_log_line
from settings import WrongSetting, settings_in_effect, settings_of_environment

# Each program, and its log under docker-compose, whose containers have a folder each.
PLACES = [("gateway", Gateway, "websocket_server/logs/websocket.log"),
          ("processor", Processor, "message_processor/logs/message_processor.log")]
HOLD_S = 0.3  # a line this young waits for an older one of the other program
TS = re.compile(r"ts=(\S+)")


class LogFile:
    """One log with its rotated parts."""

    def __init__(self, label, path):
        self.label = label
        self.path = Path(path)
        self.handle = None  # the newest part that was read
        self.rest = b""  # a line whose end is not written yet

    def _parts(self, until=None):
        """Opens the parts that are newer than the inode `until`, or all; the oldest first."""
        found = []
        seen = {until}
        for number in count():
            path = self.path if number == 0 else Path(f"{self.path}.{number}")
            try:
                handle = open(path, "rb")
            except FileNotFoundError:
                # Between two renames a name may be missing for a moment; a later one is not the end of the row.
                if number > 0 and not Path(f"{self.path}.{number + 1}").exists():
                    break
                continue
            inode = os.fstat(handle.fileno()).st_ino
            if inode in seen:
                handle.close()
                if inode == until:
                    break
                continue
            seen.add(inode)
            found.append(handle)
        return reversed(found)

    def lines(self):
        """(time, label, line) of all whole lines that were not given out yet."""
        for handle in self._next_handles():
            for line in handle:
                line = self.rest + line
                self.rest = b"" if line.endswith(b"\n") else line
                text = line.decode("utf-8", "replace").rstrip("\n")
                found = TS.match(text)
                if found and not self.rest:
                    yield found.group(1), self.label, text

    def _next_handles(self):
        """The part that was read last, from where it ended, and then those that came since."""
        until = None
        if self.handle:
            yield self.handle
            until = os.fstat(self.handle.fileno()).st_ino
        for handle in self._parts(until):
            if self.handle:
                # What was written to it between reading it and its being moved away.
                yield self.handle
                self.handle.close()
            self.handle = handle
            yield handle


def is_about(wanted, line):
    """Is the line about that client, that message, or CLIENT:MESSAGE?"""
    if wanted is None:
        return True
    if wanted.rpartition(":")[2] not in line:
        return False
    fields = parse_log_line(line)
    client, message = fields.get("client"), fields.get("id")
    return wanted in (client, message, fields.get("message_id"), f"{client}:{message}")


def chosen_paths(folder, build):
    """{setting: value} as the programs see them; without the programs (a machine that has only containers) what the
    environment says."""
    given = settings_of_environment()
    try:
        return {name: value for name, (value, _) in settings_in_effect(given, folder, build).items()}
    except Failure:
        return given


def log_files(named, folder=ROOT, build="release"):
    if named:
        missing = [path for path in named if not Path(path).exists()]
        if missing:
            sys.exit(f"There is no such file: {', '.join(missing)}")
        return [LogFile(Path(path).name, path) for path in named]
    chosen = chosen_paths(folder, build)
    found = []
    for label, program, in_container in PLACES:
        own = chosen.get(program.log_setting) or program.log_default
        found += [LogFile(label, each) for path in (own, in_container) for each in places(folder / path)]
    return found


def places(path):
    """The log of that name, and those of other programs that had the same: FILE-2.log and so on (src/shared/log.h)."""
    beside = path.parent.glob(f"{glob.escape(path.stem)}-*{glob.escape(path.suffix)}")
    wanted = re.compile(re.escape(path.stem) + r"-[1-9][0-9]*" + re.escape(path.suffix))
    return [each for each in [path, *sorted(beside)] if each == path or wanted.fullmatch(each.name) if is_log(each)]


def is_log(path):
    """A file, and not the one that this writes to: /dev/stdout may lead there."""
    return path.is_file() and not os.path.samestat(path.stat(), os.fstat(1))


def show(entry, width):
    print(f"{entry[1]:<{width}}  {entry[2]}")


def follow(files, wanted, width):
    """Goes on for ever; lines are held back for a moment, so that those of the two programs are in order."""
    held = []
    while True:
        time.sleep(HOLD_S / 2)
        # Of before reading: what the second file got while the first was read may follow what the first got since.
        until = datetime.fromtimestamp(time.time() - HOLD_S, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")
        held += [entry for file in files for entry in file.lines() if is_about(wanted, entry[2])]
        held.sort(key=lambda entry: entry[0])
        while held and held[0][0] <= until:
            show(held.pop(0), width)
        sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(prog="./dev logs", description=__doc__.split("\n")[0])
    parser.add_argument("id", nargs="?", help="a client id, a message id, or CLIENT:MESSAGE; all lines without one")
    parser.add_argument("-f", "--follow", action="store_true", help="stay, and show what comes")
    parser.add_argument("--file", action="append", help="read this log instead of the programs' own; may be repeated")
    options = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        files = log_files(options.file)
    except WrongSetting as wrong:
        sys.exit(str(wrong))
    if not files:
        sys.exit("There is no log: ./dev run and docker-compose up write them, --file names another one.")
    width = max(len(file.label) for file in files)
    merged = heapq.merge(*(file.lines() for file in files), key=lambda entry: entry[0])
    seen = False
    for entry in merged:
        if is_about(options.id, entry[2]):
            show(entry, width)
            seen = True
    sys.stdout.flush()
    if options.follow:
        follow(files, options.id, width)
    if not seen and options.id is None:
        sys.exit("The log is empty.")
    if not seen:
        sys.exit(f"No line about {options.id}. Each message's stages are logged with LOG_MESSAGES=1.")


if __name__ == "__main__":
    main()
