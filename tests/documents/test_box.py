# SPDX-License-Identifier: MIT
"""doc/operations.md's way from a build to programs that run, on a box.

The box is this machine with /etc, /usr/local and /var/lib that take changes for themselves and forget them (overlays in
a mount namespace). What is printed is run as printed, but for the address of the database and the build, which is the
release of this machine; and there is a systemctl that starts the program as its unit says: as that user, in that folder.
"""

import os
import shlex
import subprocess
import sys

import pytest
from commands import ROOT, commands
from process import free_port

SYSTEMCTL = r"""#!/bin/sh
# enable --now NAME, of a unit in /usr/local/lib/systemd/system
[ "$1 $2" = "enable --now" ] || exit 0
unit=/usr/local/lib/systemd/system/$3.service
value() { sed -n "s/^$1=//p" "$unit"; }
cd "$(value WorkingDirectory)" || exit 1
setpriv --reuid="$(value User)" --regid="$(value User)" --clear-groups -- "$(value ExecStart)" > out.log 2>&1 &
echo $! >> "$BOX/pids"
"""
CLIENT = r"""
import sys; sys.path.insert(0, sys.argv[1])
from clients import Client, connects
from process import wait_until
url = f"ws://127.0.0.1:{sys.argv[2]}/dev-7"
wait_until(lambda: connects(url), 60, "the gateway on the box")
with Client(url) as client:
    client.store({"t": 21.5}, "m1")
"""
LOGGED = r"""
timeout 60 sh -c 'until grep -q event=message_stored /var/lib/postern-gateway/logs/*.log &&
    grep -q event=stored /var/lib/postern-processor/logs/*.log; do sleep 0.1; done'
"""
DATABASE_IN_PRINT = "postgresql://postern:postern@127.0.0.1:5432/postern"


def in_namespace(script, folder, **environment):
    return subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-eux", script], cwd=ROOT,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=300, check=False, env={**os.environ, "BOX": str(folder), **environment})


MOUNT = r"""
mount -t tmpfs none "$BOX/upper"
for folder in etc usr/local var/lib; do
    mkdir -p "$BOX/upper/$folder" "$BOX/upper/work/$folder"
    mount -t overlay overlay -o "lowerdir=/$folder,upperdir=$BOX/upper/$folder,workdir=$BOX/upper/work/$folder" "/$folder"
done
"""


@pytest.fixture
def box(tmp_path):
    """A folder for the box; skips where there can be none."""
    folder = tmp_path / "box"
    (folder / "upper").mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin/systemctl").write_text(SYSTEMCTL)
    (folder / "bin/systemctl").chmod(0o755)
    (folder / "client.py").write_text(CLIENT)
    script = folder / "mount.sh"
    script.write_text(MOUNT)
    if os.geteuid() != 0 or in_namespace(script, folder).returncode != 0:
        pytest.skip("no root, or no mount namespaces with overlays here: the deployment in doc/operations.md is NOT run")
    return folder


def steps(database_url, port, settings):
    """The printed commands, and between them what the reader is told to do."""
    tools = shlex.quote(str(ROOT / "tests/support"))
    for command in [each.text for each in commands() if each.where == "box"]:
        if "postern-gateway --check" in command or "postern-processor --check" in command:
            name = "postern-gateway" if "gateway" in command else "postern-processor"
            for line in settings:
                yield f"echo {shlex.quote(line)} >> /var/lib/{name}/.env"
        if command.startswith("grep -hE 'client=dev-7( |$)'"):
            yield f'{sys.executable} -B "$BOX/client.py" {tools} {port}'
            yield LOGGED  # the logs are written once a turn
        command = command.replace(DATABASE_IN_PRINT, database_url).replace("build/aarch64", "build/release")
        yield f"({command})" if command.startswith("cd ") else command


def test_from_the_build_to_the_rows(servers, box):
    broker, server = servers
    database = f"box_{os.getpid()}"
    database_url = server.create(database)
    vhost = f"box_{os.getpid()}"
    port = free_port()
    settings = [f"RABBITMQ_URL={broker.add_vhost(vhost)}", f"DATABASE_URL={database_url}", f"PORT={port}",
                "LISTEN_ADDRESS=127.0.0.1", "GATEWAY_ID=box", "LOG_MESSAGES=1", "ADMIN_PORT=0", "PROCESSOR_ADMIN_PORT=0"]
    script = box / "all.sh"
    script.write_text(MOUNT + 'trap \'kill $(cat "$BOX/pids")\' EXIT\ntouch "$BOX/pids"\n'
                      + "\n".join(steps(database_url, port, settings)) + "\n"
                      + 'cp -r /var/lib/postern-gateway /var/lib/postern-processor "$BOX"\n')
    try:
        done = in_namespace(script, box, PATH=f"{box}/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        assert done.returncode == 0, done.stdout[-6000:]
        rows = server.query("SELECT client_id, message_id, gateway FROM messages", database=database)
        assert rows == [("dev-7", "m1", "box")], "after a dump and its restoring"
    finally:
        server.drop(database)
        broker.delete_vhost(vhost)
    for event in ("client_connected", "message_taken", "message_queued", "stored", "message_stored"):
        assert f"event={event} client=dev-7 " in done.stdout, done.stdout[-6000:]
    assert f"PORT={port} # .env:" in done.stdout, "--check shows what is in force"
    assert not os.path.exists("/var/lib/postern-gateway"), "the machine itself is as it was"


def test_the_server_is_the_one_of_the_tests():
    """What is printed names a database that a reader may have: none of these commands may reach it."""
    assert DATABASE_IN_PRINT not in "\n".join(steps("postgresql://elsewhere", 1, []))
