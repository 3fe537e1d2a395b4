# SPDX-License-Identifier: MIT
"""One test's pipeline on the shared servers: a vhost and a database of its own, and the programs it starts on them."""

import itertools
import os

from clients import Bystander, Client
from process import Failure
from programs import Gateway, Processor

BUILD = os.environ.get("POSTERN_BUILD", "debug")
_numbers = itertools.count(1)


def heal(broker, server):
    """Both servers running and unhindered, whatever a test did to them."""
    for process_owner in (broker, server):
        if process_owner.process.alive():
            process_owner.cont()
        else:
            process_owner.start()
    if broker.alarm_on:
        broker.memory_alarm(False)


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

    def lock_messages(self):
        """Nobody else gets at the table of messages until what this returns is closed."""
        connection = self.server.connect(self.name)
        connection.autocommit = False
        connection.cursor().execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")
        return connection

    def wait_connected(self, gateway):
        """Waits until the whole path from this gateway to PostgreSQL and back works."""
        with Client(gateway.url("path-check")) as client:
            client.store()

    @staticmethod
    def wait_connected_to_broker(gateway):
        """Waits until the gateway's messages are confirmed; needs no processor."""
        with Client(gateway.url("path-check")) as client:
            client.send({"type": "text", "content": "are you there?"})
            client.expect(status="queued")

    def bystander(self, gateway):
        self.bystander_ = Bystander(gateway)
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
