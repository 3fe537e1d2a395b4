# SPDX-License-Identifier: MIT
"""What integration and end-to-end tests share: one private RabbitMQ and one PostgreSQL for the whole run, and for each
test a vhost and a migrated database of its own.

POSTERN_BUILD names the build under test (default "debug", the one with sanitizers), POSTERN_POLLER the poller of the
integration tests (default "auto"; the end-to-end tests take both).
"""

import faulthandler
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))
sys.dont_write_bytecode = True

import pytest  # noqa: E402
from pipeline import BUILD, Pipeline, heal  # noqa: E402
from programs import find_program  # noqa: E402
from services import Broker, Database, migrate  # noqa: E402

TEST_TIMEOUT_S = 1000  # far beyond what any test waits for itself
_said_on = []  # standard error as it was before pytest took it


def pytest_configure():
    _said_on.append(os.dup(2))


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """A test that hangs, or what comes after it, ends the run and says where it was."""
    faulthandler.dump_traceback_later(TEST_TIMEOUT_S, exit=True, file=_said_on[0])
    yield
    faulthandler.cancel_dump_traceback_later()


def pytest_collection_modifyitems(config, items):
    """Leaves out what is only true of the other kind of build."""
    left_out = [item for item in items if item.get_closest_marker("unsanitized")]
    if left_out and b"__asan_init" in find_program(BUILD, "postern-gateway").read_bytes():
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def servers(request):
    """Both servers, started side by side; a database `template_postern` is migrated once to be copied.

    Their folder is not one of pytest's, which every other run of pytest closes to all but us: PostgreSQL runs as
    another user when we are root. Its logs stay for a look when a test failed."""
    folder = Path(tempfile.mkdtemp(prefix="postern-servers-"))
    folder.chmod(0o755)
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
        leftovers = [folder / "postgresql/data", folder / "rabbitmq/mnesia"] if request.session.testsfailed else [folder]
        for leftover in leftovers:
            shutil.rmtree(leftover, ignore_errors=True)


@pytest.fixture(scope="session")
def poller():
    return os.environ.get("POSTERN_POLLER", "auto")


@pytest.fixture
def pipeline(servers, poller, tmp_path):
    """A pipeline of the test's own, for tests that stop things or need settings."""
    pipeline = Pipeline(*servers, tmp_path, poller)
    yield pipeline
    heal(*servers)
    pipeline.end()
