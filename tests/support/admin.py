# SPDX-License-Identifier: MIT
"""The programs' admin pages, for tests.

    fetch(gateway.admin_url("/readyz"))         (200, headers, body)
    Metrics(gateway)["postern_receipts_total", {"status": "stored"}]
"""

import http.client
import json
import subprocess
from urllib.parse import urlsplit

from process import Failure


def fetch(url, method="GET", timeout_s=30):
    """(status, headers, body as text)."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
    try:
        connection.request(method, parts.path)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def readiness(program):
    """(is it ready, codes of the reasons, codes of the warnings); the status is held against what the body says."""
    status, _, body = fetch(program.admin_url("/readyz"))
    said = json.loads(body)
    assert status == (200 if said["ready"] else 503), (status, body)
    assert said["ready"] == (not said["reasons"]), body
    return said["ready"], [each["code"] for each in said["reasons"]], [each["code"] for each in said["warnings"]]


class Metrics:
    """One look at /metrics, read by Prometheus's own client library."""

    def __init__(self, program):
        from prometheus_client.parser import text_string_to_metric_families
        status, headers, self.text = fetch(program.admin_url("/metrics"))
        assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4"), (status, headers)
        self.families = {}
        self.samples = {}
        for family in text_string_to_metric_families(self.text):
            name = family.name + ("_total" if family.type == "counter" else "")
            assert name not in self.families, f"{name} twice"
            self.families[name] = family
            for sample in family.samples:
                key = sample.name, tuple(sorted(sample.labels.items()))
                assert key not in self.samples, f"{key} twice"
                self.samples[key] = sample.value

    def __getitem__(self, key):
        name, labels = key if isinstance(key, tuple) else (key, {})
        return self.samples[name, tuple(sorted(labels.items()))]

    def check(self):
        """Prometheus's own judgement of the text: its grammar, and the conventions for names."""
        done = subprocess.run(["promtool", "check", "metrics"], input=self.text, capture_output=True, text=True,
                              timeout=60, check=False)
        if done.returncode != 0 or done.stdout or done.stderr:
            raise Failure(f"promtool: {done.stdout}{done.stderr}")
