# SPDX-License-Identifier: MIT
"""The short form of ./dev chaos: a few kills of each kind, with a fresh seed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT_S = 960
HARMS = ["postern-gateway killed", "postern-gateway stopped", "postern-gateway restarted", "postern-processor killed",
         "postern-processor stopped", "postern-processor restarted", "RabbitMQ killed", "RabbitMQ stopped",
         "PostgreSQL killed", "PostgreSQL stopped", "PostgreSQL session killed", "link gateway-RabbitMQ cut",
         "link processor-RabbitMQ cut", "link processor-PostgreSQL cut"]
PRIVILEGED = ["link clients-gateway cut", "disk full"]


@pytest.fixture(scope="module")
def output():
    """What the short form printed; it ended well."""
    done = subprocess.run(["setpriv", "--pdeathsig", "TERM", "--", sys.executable, "-B",
                           Path(__file__).with_name("chaos.py"), "--short"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def count(output, what):
    found = re.search(rf"^  {re.escape(what)} +([0-9]+)$", output, re.M)
    return int(found[1]) if found else 0


def test_nothing_is_lost_doubled_or_out_of_order(output):
    assert "\nlost 0, doubled 0, out of order 0, " in output, output
    assert "\nthe gateway of its spool: spool_lost 0, spool_damaged 0, spool_header_damaged 0, spool_unreadable 0\n" \
        in output, output
    assert all(count(output, what) > 0 for what in HARMS), output


def test_disk_and_cables_too(output):
    skipped = re.findall(r"^SKIPPED (.*)$", output, re.M)
    if skipped:
        pytest.skip("; ".join(dict.fromkeys(skipped)))
    assert all(count(output, what) > 0 for what in PRIVILEGED), output
