# SPDX-License-Identifier: MIT
"""What the documents show works as printed."""

import json
import re
import subprocess
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_client_in_the_readme(gateway, client_id):
    text = README.read_text("utf-8")
    script = re.search(r"<!-- client -->\n```python\n(.*?)```\n<!-- /client -->", text, re.S).group(1)
    assert "127.0.0.1:8000/dev-7" in script
    script = script.replace("127.0.0.1:8000/dev-7", f"127.0.0.1:{gateway.port}/{client_id}")

    done = subprocess.run(["/usr/bin/python3", "-c", script], capture_output=True, text=True, timeout=60, check=True)

    greeting, queued, stored = map(json.loads, done.stdout.splitlines())
    assert greeting["type"] == "connected" and greeting["client_id"] == client_id
    assert queued == {"type": "receipt", "seq": 1, "id": "m1", "status": "queued"}
    assert stored == {"type": "receipt", "seq": 1, "id": "m1", "status": "stored"}
