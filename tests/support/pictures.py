# SPDX-License-Identifier: MIT
"""`./dev pictures`: takes the pictures in doc/ anew, from a pipeline that runs and is under load.

Everything is started here, on loopback, and ended again. A picture is a function in PICTURES that is given the browser
and the running system.
"""

import shutil
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

from browser import Browser
from process import Failure, Process, free_port, wait_until
from programs import ROOT, Gateway, Processor
from services import Broker, Database, migrate

LOAD = {"user_count": 60, "spawn_rate": 6, "rate": 5, "message_bytes": 300}
LOAD_S = 45  # how long there is load before a picture is taken


class System:
    """Broker, database, gateway, processor and Locust's page, with users at work."""

    def __init__(self, folder):
        self.broker = Broker(folder / "rabbitmq", management=True)
        self.database = Database(folder / "postgresql", durable=False)
        self.folder = folder
        self.ends = []

    def start(self):
        self.ends = [lambda: self.broker.end(quickly=True), lambda: self.database.end(quickly=True)]
        self.broker.launch()
        self.database.start()
        self.database.create("postern")
        migrate(self.database.url())
        self.broker.wait_ready()
        settings = {"RABBITMQ_URL": self.broker.url(), "DATABASE_URL": self.database.url()}
        self.processor = Processor("release", self.folder / "processor", **settings)
        self.gateway = Gateway("release", self.folder / "gateway", free_port(8000), GATEWAY_ID="gw-1",
                               ADMIN_PORT=free_port(8081), AMQP_HEARTBEAT=1, **settings)
        for program in (self.processor, self.gateway):
            program.start()
            self.ends.append(program.end)
        self.locust_port = free_port(8089)
        self.locust = Process("Locust", [sys.executable, "-B", ROOT / "tests/load/load.py", "--web-port",
                                         self.locust_port, "--host", self.gateway.url("").rstrip("/")],
                              ROOT, {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}, self.folder / "locust.log")
        self.locust.start()
        self.ends.append(lambda: self.locust.end(timeout_s=60))
        wait_until(self._swarm, 60, "Locust's page", 0.5)

    def _swarm(self):
        form = urllib.parse.urlencode({**LOAD, "host": self.gateway.url("").rstrip("/")}).encode()
        try:
            with urllib.request.urlopen(f"{self.locust_url}/swarm", form, timeout=10) as answer:
                return answer.status == 200
        except OSError:
            self.locust.check_alive()
            return False

    @property
    def locust_url(self):
        return f"http://127.0.0.1:{self.locust_port}"

    def end(self):
        for end in reversed(self.ends):
            try:
                end()
            except Failure as failure:
                print(f"  {failure}")


def locust(browser, system, path):
    browser.open(system.locust_url)
    browser.wait("document.querySelectorAll('#stats tbody tr').length > 4")
    browser.picture(path)


def rabbitmq(browser, system, path):
    """The queue, after signing in through the page's own form."""
    browser.open(f"http://127.0.0.1:{system.broker.management_port}/")
    browser.wait("document.querySelector('input[name=username]')")
    browser.run("document.querySelector('input[name=username]').value = 'guest';"
                "document.querySelector('input[name=password]').value = 'guest';"
                "document.querySelector('form input[type=submit]').click();")
    browser.wait("document.querySelector('#logout, #logged-in, #user')")
    browser.open(f"http://127.0.0.1:{system.broker.management_port}/#/queues/%2F/messages")
    browser.wait("document.body.innerText.includes('Message rates')")
    time.sleep(8)  # its curves are drawn anew every five seconds
    browser.picture(path)


def live_page(browser, system, path):
    """After a short outage, with messages of its own client that went through it and came after it."""
    browser.open(system.gateway.admin_url("/"))
    browser.find("#connect-button").click()
    browser.wait("document.getElementById('said').textContent.startsWith('connected')")
    time.sleep(40)
    system.broker.stop()
    browser.until(lambda: browser.text("#state-word") == "Degraded", "the outage")
    browser.find("#send-button").click()
    browser.wait("document.querySelector('#messages li .chip.good')")
    time.sleep(3)
    system.broker.cont()
    browser.until(lambda: browser.text("#state-word") == "Ready", "its end")
    browser.wait("document.querySelectorAll('#messages .chip.good').length === 3")
    for content in ("door open", '["a", 1, null]', '{"temperature": 21.7}'):
        time.sleep(6)
        browser.run("document.getElementById('content').value = arguments[0]", content)
        browser.find("#send-button").click()
    browser.wait("document.querySelectorAll('#messages .chip.good').length === 9")
    time.sleep(20)
    browser.picture(path)


# Each with its height.
PICTURES = {"locust.png": (locust, 450), "rabbitmq.png": (rabbitmq, 760), "live-page.png": (live_page, 1180)}
WIDTH = 1280


def main():
    wanted = sys.argv[1:] or list(PICTURES)
    unknown = [name for name in wanted if name not in PICTURES]
    if unknown:
        print(f"No such picture: {', '.join(unknown)}. There are: {', '.join(PICTURES)}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="postern-pictures-"))
    folder.chmod(0o755)
    system = System(folder)
    try:
        system.start()
        print(f"  load for {LOAD_S} s ...", flush=True)
        time.sleep(LOAD_S)
        for name in wanted:
            take, height = PICTURES[name]
            with Browser(folder / f"browser-{name}", WIDTH, height) as browser:
                take(browser, system, ROOT / "doc" / name)
            print(f"  doc/{name}", flush=True)
    except Failure as failure:
        print(f"It failed: {failure}", file=sys.stderr)
        return 1
    finally:
        system.end()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
