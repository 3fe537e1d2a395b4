# SPDX-License-Identifier: MIT
"""What is done to a running pipeline.

Each fault is a generator: it harms, yields how many seconds it wants to wait (or a condition to wait for), and heals.
Faults of one target come one after another, those of different targets as they fall, so that the gateway is killed
while the broker is away and the disk is full. A target is given its faults with their weights.
"""

import os
import random
import signal
import time

from process import Failure, children_of

START_TRIES = 3
START_S = 120.0
# While one processor alone is connected, a cut of its link to the broker is either shorter than what anybody notices or
# longer than what the broker needs to notice. In between the broker hands new messages to the processor's next
# connection before it takes back those of the lost one, and rows may come in another order than messages. For the same
# reason these three are then harmed one after the other: the broker, the processor, and their link.
CUT_SHORT_S = (0.2, 1.5)
CUT_LONG_S = (9.0, 12.0)
AFTER_CUT_S = 3.0  # then what was lost in the cut has been sent again


def _restarted(site, server, ready):
    """Launches a server and waits until it answers; tried again when it ends while it starts."""
    for _ in range(START_TRIES):
        server.launch()
        deadline = time.monotonic() + START_S
        while server.process.alive() and time.monotonic() < deadline:
            if ready():
                return
            yield 0.25
        site.did(f"{server.process.name} did not come up")
        server.kill9()
    raise Failure(f"{server.process.name} does not start; see {server.folder}")


# ---- the programs ----

def kill_program(site, program, dice):
    site.count(f"{program.name} killed", program.kill9)
    yield dice.choice((0.0, dice.uniform(0.0, 0.3), dice.uniform(0.3, 2.5)))
    site.begin(program)


def kill_program_again(site, program, dice):
    """Killed, and killed again as soon as it is there."""
    for _ in range(2):
        site.count(f"{program.name} killed", program.kill9)
        yield 0.0
        site.begin(program)
        yield dice.uniform(0.0, 0.4)


def stop_program(site, program, dice):
    site.count(f"{program.name} stopped", program.stop)
    yield dice.choice((dice.uniform(0.1, 1.0), dice.uniform(1.0, 7.0)))
    site.did(f"{program.name} goes on")
    program.cont()


def stop_and_kill_program(site, program, dice):
    site.count(f"{program.name} stopped", program.stop)
    yield dice.uniform(0.1, 2.0)
    yield from kill_program(site, program, dice)


def restart_program(site, program, _dice):
    """SIGTERM, as an update does it; it has to end well."""
    def end():
        program.send_signal(signal.SIGTERM)
    site.count(f"{program.name} restarted", end)
    deadline = time.monotonic() + START_S
    while program.alive():
        if time.monotonic() > deadline:
            raise Failure(f"{program.name} does not end\n{program.tails()}")
        yield 0.05
    if program.wait() != 0:
        raise Failure(f"{program.name} ended with {program.wait()} when it was asked to end\n{program.tails()}")
    site.begin(program)


# ---- the servers ----

def kill_broker(site, broker, dice):
    """A RabbitMQ that was killed with deliveries out takes them back some moments after it answers. One processor that
    is there before is handed newer messages first, and rows have another order; so it is kept away until then."""
    is_alone = len(site.processors) == 1
    if is_alone:
        site.links.cut("processor-RabbitMQ")
    site.count("RabbitMQ killed", broker.kill9)
    yield dice.choice((0.0, dice.uniform(0.0, 5.0)))
    yield from _restarted(site, broker, broker.answers)
    site.did("RabbitMQ answers")
    if is_alone:
        deadline = time.monotonic() + START_S
        while broker.consumer_count() != 0 and time.monotonic() < deadline:
            yield 0.25
        site.did("RabbitMQ has taken its deliveries back")
        site.links.mend("processor-RabbitMQ")


def stop_broker(site, broker, dice):
    site.count("RabbitMQ stopped", broker.stop)
    yield dice.choice((dice.uniform(0.1, 1.5), dice.uniform(1.5, 9.0)))
    site.did("RabbitMQ goes on")
    broker.cont()


def kill_database(site, database, dice):
    site.count("PostgreSQL killed", database.kill9)
    yield dice.choice((0.0, dice.uniform(0.0, 4.0)))
    yield from _restarted(site, database, database.answers)
    site.did("PostgreSQL answers")


def stop_database(site, database, dice):
    site.count("PostgreSQL stopped", database.stop)
    yield dice.choice((dice.uniform(0.1, 1.5), dice.uniform(1.5, 7.0)))
    site.did("PostgreSQL goes on")
    database.cont()


def kill_database_session(site, database, dice):
    """kill -9 of one of the server's own processes, as soon as there is one: it throws out all sessions and recovers."""
    deadline = time.monotonic() + START_S
    while not (sessions := [pid for pid in children_of(database.process.pid) if _is_session(pid)]):
        if time.monotonic() > deadline:
            raise Failure("nobody has a session with PostgreSQL")
        yield 0.1
    try:
        os.kill(dice.choice(sessions), signal.SIGKILL)
        site.count("PostgreSQL session killed")
    except ProcessLookupError:
        site.did("PostgreSQL's session was gone")
    yield 1.0
    while not database.answers():
        if time.monotonic() > deadline:
            raise Failure(f"PostgreSQL does not recover; see {database.folder}")
        yield 0.25


def _is_session(pid):
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return " postern " in file.read()
    except OSError:
        return False


# ---- disk, links, clients ----

def fill_disk(site, disk, dice):
    site.count("disk full", disk.full)
    yield dice.uniform(0.5, 6.0)
    site.did("disk has space")
    disk.free()


def cut_link(site, link, dice):
    way = dice.choice(("both", "both", "there", "back"))
    if link == "processor-RabbitMQ" and len(site.processors) == 1:
        for_s = dice.uniform(*dice.choice((CUT_SHORT_S, CUT_LONG_S)))
    else:
        for_s = dice.choice((dice.uniform(0.2, 2.0), dice.uniform(2.0, 11.0)))
    site.count(f"link {link} cut", lambda: site.links.cut(link, way), f"{way} for {for_s:.1f} s")
    yield for_s
    site.did(f"link {link} mended")
    site.links.mend(link, way)
    if link == "processor-RabbitMQ" and len(site.processors) == 1:
        yield AFTER_CUT_S


def drop_clients(site, fleet, dice):
    how = dice.choice(("closed", "reset", "abandoned"))
    count = dice.randint(1, 60)
    site.count(f"clients {how}", lambda: fleet.drop(count, how), f"{count} of them", count)
    yield 0.1


def keep_apart(targets):
    for target in targets:
        target.apart_from = [each for each in targets if each is not target]


class Target:
    """Something that is harmed again and again, by its own dice: what is done depends on the seed alone, when it
    happens on the machine too."""

    def __init__(self, site, name, what, gap_s, faults, dice_seed):
        self.site = site
        self.name = name
        self.what = what
        self.gap_s = gap_s
        self.faults = faults  # (fault, weight, how often in the short form)
        self.dice = random.Random(f"{dice_seed}/{name}")
        self.running = None
        self.due = 0.0
        self.apart_from = []  # targets: nothing of this one while something of those is running
        self.tempo = 1.0  # above 1: more slowly
        self.plan = None  # the faults that are left, in the short form

    def begin_round(self, now, tempo, is_short):
        """The short form does a fixed number of each, in any order."""
        self.tempo = tempo
        self.plan = None
        if is_short:
            self.plan = [fault for fault, _, times in self.faults for _ in range(times)]
            self.dice.shuffle(self.plan)
        self.due = now + self._gap_s()

    def _gap_s(self):
        return min(self.dice.expovariate(1.0 / self.gap_s), 3 * self.gap_s) * self.tempo

    def is_at_rest(self):
        return self.running is None

    def is_done(self):
        return self.running is None and self.plan is not None and not self.plan

    def turn(self, now, may_begin):
        """Does what is due; returns when it wants to be called again."""
        if now < self.due:
            return
        if self.running is None:
            if not may_begin or self.is_done() or not all(each.is_at_rest() for each in self.apart_from):
                return
            if self.plan is not None:
                fault = self.plan.pop()
            else:
                fault = self.dice.choices([each for each, _, _ in self.faults], [each for _, each, _ in self.faults])[0]
            self.running = fault(self.site, self.what, self.dice)
        try:
            self.due = now + next(self.running)
        except StopIteration:
            self.running = None
            self.due = now + self._gap_s()
