# SPDX-License-Identifier: MIT
"""A running `./dev run`, started as the README says."""

import os
import re
import signal

import pytest
from process import Process, wait_until
from programs import ROOT


class DevRun:
    """Its output says where everything is."""

    def __init__(self, folder):
        environment = {**os.environ, "GATEWAY_ID": "gw-1", "NO_COLOR": "1"}
        self.process = Process("./dev run", [ROOT / "dev", "run"], ROOT, environment, folder / "output.log",
                               death_signal="TERM")

    def output(self):
        return self.process.output.read_text("utf-8", "replace")

    def start(self):
        self.process.start()
        wait_until(lambda: "Ctrl-C ends everything" in self.output() or not self.process.alive(), 600, "./dev run")
        if "runs already in this folder" in self.output():
            pytest.skip("./dev run runs already in this folder: the documents' commands are NOT run")
        self.process.check_alive()

    def found(self, pattern):
        return re.search(pattern, self.output()).group(1)

    @property
    def port(self):
        return int(self.found(r"ws://127\.0\.0\.1:(\d+)/"))

    @property
    def gateway_pages_port(self):
        return int(self.found(r"metrics +http://127\.0\.0\.1:(\d+)/"))

    @property
    def processor_pages_port(self):
        return int(self.found(r"metrics +\S+\n +http://127\.0\.0\.1:(\d+)/"))

    def end(self):
        """As a user does."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(120)


@pytest.fixture(scope="module")
def dev_run(tmp_path_factory):
    run = DevRun(tmp_path_factory.mktemp("run"))
    try:
        run.start()
        yield run
        assert run.end() == 0, run.output()
    finally:
        run.process.kill9()
