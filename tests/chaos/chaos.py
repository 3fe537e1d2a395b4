# SPDX-License-Identifier: MIT
"""`./dev chaos`: the whole pipeline with many clients on it, while each of its parts is killed, stopped and cut off at
random; and in the end what the clients know is compared with the rows in PostgreSQL.

A run is made of rounds. In each, faults fall for a while (faults.py); then everything is healed, the clients stop
sending and wait for what is open, the gateway is ended in good order, and the ledger is compared with the rows. With
one processor the rows' order is checked too; two store side by side, so their rows have none. The programs, the servers
and the clients' ledger live on from round to round.
"""

import argparse
import collections
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
sys.dont_write_bytecode = True

import faults  # noqa: E402
import ground  # noqa: E402
from fleet import Fleet  # noqa: E402
from ledger import KINDS, Ledger  # noqa: E402
from process import Failure, wait_until  # noqa: E402
from programs import Gateway, Processor  # noqa: E402
from services import Broker, Database, migrate  # noqa: E402

BUILD = os.environ.get("POSTERN_BUILD", "release")
CLIENTS = 200
ROUND_S = (40.0, 100.0)
QUEUES = ("messages", "messages.dead")
QUIET_S = 240.0  # after all is healed, until each client has its receipts
ROWS_AT_ONCE = 20000
SMALL = {
    "AMQP_HEARTBEAT": 2, "SESSION_POLICY": "takeover", "MAX_CONNECTIONS": 512, "HEARTBEAT_INTERVAL": 5,
    "HEARTBEAT_TIMEOUT": 5, "OUTBOX_MESSAGES": 512, "OUTBOX_BYTES": "512K", "PUBLISH_WINDOW": 256,
    "SPOOL_MAX_BYTES": "8M", "LOG_MAX_BYTES": "512K", "LOG_FILES": 4, "DRAIN_MS": 3000,
}
QUEUE_CRASHES = "RabbitMQ's queue crashed"
SPOOL_DAMAGES = ("spool_lost", "spool_damaged", "spool_header_damaged", "spool_unreadable")
DAMAGES_EVERY_S = 5.0  # often enough that no line is rotated away unseen
KILLS = ("postern-gateway killed", "postern-processor killed", "RabbitMQ killed", "PostgreSQL killed",
         "PostgreSQL session killed")


def damages_in(log_text):
    """The lines of a gateway's log that say that its spool is not as it was left."""
    return [line for line in log_text.splitlines() if any(f"event={each} " in line for each in SPOOL_DAMAGES)]


class Witness:
    """Looks into PostgreSQL for messages that a client has just been told are stored."""

    def __init__(self, ledger, fleet, database):
        self.ledger = ledger
        self.fleet = fleet
        self.database = database
        self.is_ending = False
        self.seen_count = 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        import psycopg2
        while not self.is_ending:
            time.sleep(0.5)
            count = len(self.fleet.samples)
            samples = self.fleet.samples[:count]
            try:
                missing = self._missing(samples) if samples else []
            except psycopg2.Error:
                continue  # it is away; a stored row will be there when it is back
            del self.fleet.samples[:count]
            self.seen_count += count
            for client, name in missing:
                account = self.ledger.by_name[client]
                account.complain("untrue receipts", int(name[1:]), "it was called stored, and there is no row")

    def _missing(self, samples):
        rows = self.database.query(
            "SELECT client_id, message_id FROM messages JOIN unnest(%s, %s) AS told (client, name)"
            " ON client_id = client AND message_id = name",
            ([client for client, _ in samples], [name for _, name in samples]), database="chaos")
        return set(samples) - set(rows)

    def end(self):
        self.is_ending = True
        self.thread.join(60)


class Site:
    """The pipeline, its ground, its clients, and the count of what was done to it."""

    def __init__(self, folder, seed, rate):
        self.folder = folder
        self.counts = collections.Counter()
        self.damages = set()  # lines of the gateway's log
        self.damages_due = 0.0
        self.ledger = Ledger(CLIENTS)
        self.ground = ground.Ground(folder)
        self.disk = ground.Disk(self.ground)
        self.links = self._links()
        addresses = ("127.0.0.1",) if isinstance(self.links, ground.ProxyLinks) else ("127.0.0.1", "127.0.0.2")
        self.broker = Broker(folder / "rabbitmq", addresses=addresses)
        self.database = Database(folder / "postgresql", addresses=addresses)
        self.processors = []
        self.row_last = 0
        self.broker.launch()
        self.database.start()
        database_url = self.database.create("chaos")
        migrate(database_url)
        self.broker.wait_ready()

        def through(name, url, server, address):
            end = self.links.add(name, address, server.port)
            return url.replace(f"127.0.0.1:{server.port}", f"{end[0]}:{end[1]}")
        self.gateway = Gateway(BUILD, self.disk.mount, RABBITMQ_URL=through(
            "gateway-RabbitMQ", self.broker.url(), self.broker, addresses[0]), **SMALL)
        self.processor_settings = {
            "RABBITMQ_URL": through("processor-RabbitMQ", self.broker.url(), self.broker, addresses[-1]),
            "DATABASE_URL": through("processor-PostgreSQL", database_url, self.database, addresses[-1]),
            "AMQP_HEARTBEAT": 2}
        if isinstance(self.links, ground.SilentLinks):
            self.links.add("clients-gateway", "127.0.0.1", self.gateway.port)
        self.all_processors = [Processor(BUILD, folder / f"processor-{number}", **self.processor_settings)
                               for number in (1, 2)]
        self.fleet = Fleet(self.ledger, ("127.0.0.1", self.gateway.port), rate, seed)
        self.witness = Witness(self.ledger, self.fleet, self.database)

    def _links(self):
        if not self.ground.why_not:
            works, said = ground.SilentLinks.works()
            if works:
                return ground.SilentLinks()
            self.ground.skip(f"links that are cut silently: {said}")
        self.ground.skip("cuts of the link between clients and gateway; the other links are reset by a proxy")
        return ground.ProxyLinks()

    # What faults use.

    def did(self, what):
        self.ledger.did(what)

    def count(self, what, do=lambda: None, detail="", times=1):
        """Does one harm, counted and noted."""
        self.did(f"{what} {detail}".rstrip())
        self.counts[what] += times
        do()

    def begin(self, program):
        self.did(f"{program.name} begins")
        program.start()

    def targets(self, seed):
        """All that can be harmed, with the mean pause between two harms in seconds, and each harm's weight."""
        found = [
            faults.Target(self, "gateway", self.gateway, 3.0, [
                (faults.kill_program, 5, 2), (faults.kill_program_again, 1, 1), (faults.stop_program, 2, 1),
                (faults.stop_and_kill_program, 1, 1), (faults.restart_program, 1, 1)], seed),
            faults.Target(self, "broker", self.broker, 10.0, [
                (faults.kill_broker, 2, 1), (faults.stop_broker, 1, 1)], seed),
            faults.Target(self, "database", self.database, 7.0, [
                (faults.kill_database, 3, 1), (faults.stop_database, 2, 1),
                (faults.kill_database_session, 1, 1)], seed),
            faults.Target(self, "clients", self.fleet, 2.0, [(faults.drop_clients, 1, 5)], seed),
        ]
        if self.disk.is_small:
            found.append(faults.Target(self, "disk", self.disk, 8.0, [(faults.fill_disk, 1, 2)], seed))
        for processor in self.processors:
            found.append(faults.Target(self, processor.folder.name, processor, 4.0, [
                (faults.kill_program, 4, 2), (faults.kill_program_again, 1, 1), (faults.stop_program, 2, 1),
                (faults.restart_program, 1, 1)], seed))
        for link in self.links.names():
            found.append(faults.Target(self, link, link, 14.0, [(faults.cut_link, 1, 1)], seed))
        if len(self.processors) == 1:
            whats = (self.broker, self.processors[0], "processor-RabbitMQ")
            faults.keep_apart([target for target in found if target.what in whats])
        return found

    # A round's beginning and end.

    def open_up(self, processor_count):
        self.processors = self.all_processors[:processor_count]
        self.gateway.start()
        for processor in self.processors:
            processor.start()
        wait_until(self.has_lasting_queues, faults.START_S, "the programs to declare the queues", 0.2)
        self.fleet.is_connecting = True
        self.fleet.is_sending = True

    def has_lasting_queues(self):
        return all(self.broker.queue_depth(each) is not None for each in QUEUES) and self.broker.remembers_its_queues()

    def is_answered(self):
        return self.fleet.open_messages() == 0

    def wind_down(self):
        """Everything that was taken comes to rest in PostgreSQL, and the programs end in good order."""
        self.fleet.is_connecting = False
        wait_until(lambda: self.fleet.open_count == 0, 30, "the clients to leave")
        self._end_gateway()
        self.note_damage()
        deadline = time.monotonic() + QUIET_S
        while True:
            wait_until(lambda: self.broker.queue_depth() == 0, max(1, deadline - time.monotonic()),
                       "the processors to empty the queue", 0.2)
            for processor in self.processors:
                self._end(processor)
            if self.broker.queue_depth() == 0:
                return  # what a processor had not acknowledged would be back
            for processor in self.processors:
                processor.start()

    def _end_gateway(self):
        """Its outbox is empty when it has said nothing of what it keeps."""
        for _ in range(30):
            kept = len(self.gateway.log(event="drain_kept"))
            self._end(self.gateway)
            if len(self.gateway.log(event="drain_kept")) == kept:
                return
            self.gateway.start()
            time.sleep(5)
        raise Failure("the gateway does not get rid of what it keeps")

    def note_damage(self):
        """What the gateway says of its spool: no power was lost, so nothing may be missing or damaged."""
        self.damages.update(damages_in(self.gateway.log_text()))
        self.damages_due = time.monotonic() + DAMAGES_EVERY_S

    def is_clean(self):
        return self.ledger.is_clean() and not self.damages

    def note_queue_crashes(self):
        """RabbitMQ 3.10 may crash a quorum queue's process right after a kill -9 (rabbit_fifo cannot read back what it
        hands out). The queue comes back by itself, but what it was handing out waits until that consumer goes, while
        newer messages pass. True when that was so since the last time."""
        text = self.broker.log_path.read_text("utf-8", "replace")
        new = text.count("** State machine '%2F_messages' terminating") - self.counts[QUEUE_CRASHES]
        self.counts[QUEUE_CRASHES] += new
        if new > 0:
            print("RabbitMQ crashed its queue's process: the rows' order is not checked in this round", flush=True)
        return new > 0

    @staticmethod
    def _end(program):
        code = program.end()
        if code != 0:
            raise Failure(f"{program.name} ended with {code} when it was asked to end\n{program.tails()}")

    def compare(self):
        """The rows that are new since the last time, against the ledger."""
        is_crashed = self.note_queue_crashes()
        in_order = len(self.processors) == 1 and not is_crashed
        while True:
            rows = self.database.query(
                "SELECT id, client_id, message_id, type, status, content::text FROM messages WHERE id > %s"
                " ORDER BY id LIMIT %s", (self.row_last, ROWS_AT_ONCE), database="chaos")
            for row in rows:
                self.ledger.row(*row[1:], in_order)
            if not rows:
                break
            self.row_last = rows[-1][0]
        self.ledger.settle()

    def check_alive(self, targets):
        """Nobody ends by himself."""
        harmed = {target.what for target in targets if not target.is_at_rest()}
        for program in [self.gateway, *self.processors]:
            if program not in harmed:
                program.check_alive()
        for server in (self.broker, self.database):
            if server not in harmed:
                server.process.check_alive()
        if time.monotonic() >= self.damages_due:
            self.note_damage()
        if self.fleet.failure:
            raise Failure(f"the clients' thread failed: {self.fleet.failure!r}")

    def end(self):
        self.fleet.end()
        self.witness.end()
        for program in [self.gateway, *self.all_processors]:
            program.kill9()
        self.links.end()
        self.broker.end(quickly=True)
        self.database.end(quickly=True)
        self.disk.end()


class Screen:
    """The live line: rewritten on a terminal, else printed now and then."""

    def __init__(self, site):
        self.site = site
        self.start = time.monotonic()
        self.is_terminal = sys.stdout.isatty()
        self.due = 0.0

    def show(self, round_number, doing):
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + (0.5 if self.is_terminal else 15.0)
        fleet, minutes = self.site.fleet, (now - self.start) / 60
        line = (f"{minutes:6.1f} min  round {round_number}  {doing:<9} kills {kill_count(self.site):<5} "
                f"connected {fleet.open_count:<3}  sent {fleet.sent_count:<8} again {fleet.again_count:<6} "
                f"accepted {fleet.heard['accepted']:<7} queued {fleet.heard['queued']:<8} "
                f"stored {fleet.heard['stored']:<8}")
        print(f"\r{line}" if self.is_terminal else line, end="" if self.is_terminal else "\n", flush=True)


def kill_count(site):
    return sum(site.counts[each] for each in KILLS)


def run_round(site, screen, number, tempo, targets, until=None):
    """One round. `until`: when faults stop; None: when each target has had what the short form does."""
    for target in targets:
        target.begin_round(time.monotonic(), tempo, until is None)
    while True:
        is_over = time.monotonic() >= until if until else all(target.is_done() for target in targets)
        for target in targets:
            target.turn(time.monotonic(), not is_over)
        if is_over and all(target.is_at_rest() for target in targets):
            break
        site.check_alive(targets)
        if not site.is_clean():
            return
        screen.show(number, "harm")
        time.sleep(0.01)
    site.did("all is healed")
    site.fleet.is_sending = False
    deadline = time.monotonic() + QUIET_S
    while not site.is_answered() and time.monotonic() < deadline and site.is_clean():
        site.check_alive(targets)
        screen.show(number, "healed")
        time.sleep(0.05)
    if not site.is_clean() or not site.is_answered():
        site.ledger.settle()
        return
    site.wind_down()
    site.compare()


def summary(site, seed, minutes):
    ledger, fleet = site.ledger, site.fleet
    lines = ["", f"chaos, seed {seed}, {minutes:.1f} minutes, {BUILD} build, {CLIENTS} clients"]
    for what in sorted(site.counts):
        lines.append(f"  {what:<34} {site.counts[what]:>7}")
    lines.append(f"  kills in all                       {kill_count(site):>7}")
    lines.append(f"messages {fleet.sent_count}, sent again {fleet.again_count}, connections lost {fleet.lost_count}; "
                 f"receipts accepted {fleet.heard['accepted']}, queued {fleet.heard['queued']}, "
                 f"stored {fleet.heard['stored']}; busy {fleet.busy_count}")
    lines.append(f"rows {ledger.row_count}, messages with a receipt {ledger.firm_count()}, "
                 f"looked up right after stored {site.witness.seen_count}")
    lines.append("the gateway of its spool: " + ", ".join(
        f"{each} {sum(f'event={each} ' in line for line in site.damages)}" for each in SPOOL_DAMAGES))
    lines.append(", ".join(f"{kind} {ledger.counts[kind]}" for kind in KINDS))
    return "\n".join(lines)


def keep(site):
    """What the gateway left on its disk, which goes with us."""
    try:
        shutil.copytree(site.gateway.folder, site.folder / "gateway", dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns("ballast"))
    except shutil.Error as error:
        print(f"not all of it can be read: {error}", flush=True)
    return site.folder


def play(arguments, folder):
    """Runs rounds; returns the exit code."""
    dice = random.Random(f"{arguments.seed}/rounds")
    start = time.monotonic()
    site = Site(folder, arguments.seed, arguments.rate)
    screen = Screen(site)
    code = 1
    try:
        number = 0
        while site.is_clean():
            number += 1
            site.open_up(1 + number % 2 if arguments.short else dice.choice((1, 1, 2)))
            targets = site.targets(f"{arguments.seed}/{number}")
            print(f"round {number}: {len(site.processors)} processor{'s'[:len(site.processors) - 1]}", flush=True)
            if arguments.short:
                run_round(site, screen, number, 0.5, targets)
            else:
                last = start + arguments.minutes * 60
                run_round(site, screen, number, dice.choice((0.5, 1.0, 1.0, 2.0)), targets,
                          min(last, time.monotonic() + dice.uniform(*ROUND_S)))
            if number == 2 if arguments.short else time.monotonic() >= last:
                break
        code = 0 if site.is_clean() else 1
    except Failure as failure:
        print(f"\nFAILED: {failure}", flush=True)
    finally:
        print(summary(site, arguments.seed, (time.monotonic() - start) / 60), flush=True)
        for what in site.ground.skipped:
            print(f"SKIPPED {what}", flush=True)
        for line in sorted(site.damages):
            print(f"DAMAGED {line}", flush=True)
        if code != 0:
            print(f"\n{site.ledger.excerpt()}", flush=True)
            for program in [site.gateway, *site.processors]:
                print(program.tails(), flush=True)
            print(f"The programs' and servers' logs are in {keep(site)}", flush=True)
        site.end()
    return code


def main():
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long faults fall (10)")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="which faults, and the clients' choices (random)")
    parser.add_argument("--rate", type=float, default=1200.0, help="messages a second, of all clients (1200)")
    parser.add_argument("--short", action="store_true", help="two rounds with a few faults of each kind, as ./dev test")
    arguments = parser.parse_args()
    ground.enter()
    folder = Path(tempfile.mkdtemp(prefix="postern-chaos-"))
    folder.chmod(0o755)
    print(f"chaos, seed {arguments.seed}", flush=True)
    code = 1
    try:
        code = play(arguments, folder)
    finally:
        if code == 0:
            shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
