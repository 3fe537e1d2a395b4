# SPDX-License-Identifier: MIT
"""What integration and end-to-end tests share: one private RabbitMQ and one PostgreSQL for the whole run, and for each
test a vhost and a migrated database of its own.

POSTERN_BUILD names the build under test (default "debug", the one with sanitizers).
"""

import itertools
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))
sys.dont_write_bytecode = True

import pytest  # noqa: E402
from clients import Bystander, Client  # noqa: E402
from process import Failure  # noqa: E402
from programs import Gateway, Processor  # noqa: E402
from services import Broker, Database, migrate  # noqa: E402

BUILD = os.environ.get("POSTERN_BUILD", "debug")
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Both servers, started side by side; a database `template_postern` is migrated once to be copied."""
    folder = tmp_path_factory.mktemp("servers")
    folder.chmod(0o755)
    for parent in (folder.parent, folder.parent.parent):
        if parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o011)  # PostgreSQL runs as another user when we are root
    broker = Broker(folder / "rabbitmq", management=True)
    database = Database(folder / "postgresql", durable=False)
    try:
        broker.launch()
        database.start()
        migrate(database.create("template_postern"))
        broker.wait_ready()
        yield broker, database
    finally:
        broker.end(quickly=True)
        database.end(quickly=True)


def heal(broker, server):
    """Both servers running and unhindered, whatever a test did to them."""
    for process_owner in (broker, server):
        if process_owner.process.alive():
            process_owner.cont()
        else:
            process_owner.start()
    if broker.alarm_on:
        broker.memory_alarm(False)


@pytest.fixture(scope="session")
def poller():
    return "auto"


class Pipeline:
    """A vhost, a migrated database, and the programs that a test starts on them."""

    def __init__(self, broker, server, folder, poller="auto"):
        self.broker = broker
        self.server = server
        self.folder = folder
        self.poller = poller
        self.name = f"t{os.getpid()}_{next(_numbers)}"
        self.vhost = self.name
        self.rabbitmq_url = broker.add_vhost(self.vhost)
        server.query(f'CREATE DATABASE "{self.name}" TEMPLATE template_postern', database="postgres")
        self.database_url = server.url(self.name)
        self.programs = []
        self.bystander_ = None

    def gateway(self, **settings):
        """A started gateway; POLLER and the broker are the test's unless named."""
        defaults = {"RABBITMQ_URL": self.rabbitmq_url, "POLLER": self.poller, "LOG_LEVEL": "debug",
                    "DRAIN_MS": "500"}
        gateway = Gateway(BUILD, self.folder / f"gateway-{len(self.programs)}", **{**defaults, **settings})
        self.programs.append(gateway)
        return gateway.start()

    def processor(self, **settings):
        defaults = {"RABBITMQ_URL": self.rabbitmq_url, "DATABASE_URL": self.database_url, "LOG_LEVEL": "debug"}
        processor = Processor(BUILD, self.folder / f"processor-{len(self.programs)}", **{**defaults, **settings})
        self.programs.append(processor)
        return processor.start()

    def query(self, sql, arguments=None):
        return self.server.query(sql, arguments, database=self.name)

    def row_count(self, client_id=None):
        """Rows in `messages`, of one client or of all."""
        if client_id is None:
            return self.query("SELECT count(*) FROM messages")[0][0]
        return self.query("SELECT count(*) FROM messages WHERE client_id = %s", (client_id,))[0][0]

    def message_ids(self, client_id):
        """The stored ids of one client in the order of storing."""
        return [row[0] for row in self.query("SELECT message_id FROM messages WHERE client_id = %s ORDER BY id",
                                             (client_id,))]

    def channel(self):
        return self.broker.channel(self.vhost)

    def queue_depth(self, queue="messages"):
        return self.broker.queue_depth(queue, self.vhost)

    def wait_connected(self, gateway):
        """Waits until the whole path from this gateway to PostgreSQL and back works."""
        with Client(gateway.url("path-check")) as client:
            client.store()

    def bystander(self, gateway, **options):
        self.bystander_ = Bystander(gateway.url("bystander"), **options)
        return self.bystander_

    def end(self):
        """Ends everything in order; complains about crashes, sanitizer findings and exit codes other than 0."""
        complaints = []
        if self.bystander_:
            try:
                self.bystander_.end()
            except AssertionError as error:
                complaints.append(str(error))
        for program in self.programs:
            ended_by_test = program.popen is None or not program.alive()
            try:
                program.cont()
                code = program.end()
                if not ended_by_test and code != 0:
                    complaints.append(f"{program.name} ended with {code}\n{program.tails()}")
            except Failure as error:
                complaints.append(f"{error}\n{program.tails()}")
        self.server.drop(self.name)
        self.broker.delete_vhost(self.vhost)
        assert not complaints, "\n".join(complaints)


@pytest.fixture
def pipeline(servers, poller, tmp_path):
    """A pipeline of the test's own, for tests that stop things or need settings."""
    pipeline = Pipeline(*servers, tmp_path, poller)
    yield pipeline
    heal(*servers)
    pipeline.end()
