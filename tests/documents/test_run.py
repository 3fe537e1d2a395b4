# SPDX-License-Identifier: MIT
"""`./dev run --once` where something is in its way: it ends soon, and says what it was."""

import os
import re
import socket
import subprocess

import pytest
from process import free_port, port_is_free
from programs import ROOT


def dev_run_once(**settings):
    """(exit code, everything it said)"""
    done = subprocess.run([ROOT / "dev", "run", "--once"], cwd=ROOT, env={**os.environ, "NO_COLOR": "1", **settings},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=600, check=False)
    if "runs already in this folder" in done.stdout:
        pytest.skip("./dev run runs already in this folder: what stops it is NOT tried")
    return done.returncode, done.stdout


@pytest.mark.parametrize("name, value", [("PORT", "http"), ("PROCESSOR_BATCH", "-1"), ("MEMORY_LIMIT", "1M")])
def test_a_wrong_setting_ends_it_before_any_server_starts(name, value):
    code, said = dev_run_once(**{name: value})
    assert code == 2 and f"{name}=" in said.splitlines()[-1], said
    assert "migrate" not in said and "Traceback" not in said, said


def test_a_processor_that_cannot_start_is_shown():
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        code, said = dev_run_once(PROCESSOR_ADMIN_PORT=str(port))
    assert code == 1 and f"postern-processor: PROCESSOR_ADMIN_PORT={port}" in said, said
    assert "One message" not in said, said


def test_a_port_that_is_taken_is_said_and_replaced():
    taken = socket.create_server(("127.0.0.1", 8000)) if port_is_free(8000) else None
    try:
        code, said = dev_run_once(LOG_LEVEL="error")
    finally:
        if taken:
            taken.close()
    instead = re.search(r"8000 is taken: (\d+) instead", said)
    assert code == 0 and instead and f"ws://127.0.0.1:{instead.group(1)}/" in said, said
    assert '"status":"stored"' in said, said
