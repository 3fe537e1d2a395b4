# SPDX-License-Identifier: MIT
"""The settings that are in force in a folder: its .env, our environment, and the programs' defaults."""

import os
import re
import shlex
import subprocess

from programs import ROOT, find_program

# --check wants them; the ones that are used are those of whoever asks.
SERVERS = {"RABBITMQ_URL": "amqp://127.0.0.1", "DATABASE_URL": "postgresql://127.0.0.1/postern"}


class WrongSetting(Exception):
    """A program's one line about .env or the environment."""


def settings_of_environment():
    """Our environment's; the programs read .env themselves."""
    names = re.findall(r"^#?\s?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.template").read_text("utf-8"), re.M)
    return {name: os.environ[name] for name in names if name in os.environ and name not in SERVERS}


def settings_in_effect(given, folder=ROOT, build="release"):
    """What both programs' --check print: the value of each setting, and where it is from."""
    found = {}
    for name in ("postern-gateway", "postern-processor"):
        done = subprocess.run([find_program(build, name), "--check"], cwd=folder, stdin=subprocess.DEVNULL,
                              env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **given, **SERVERS},
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise WrongSetting(done.stderr.strip())
        for setting, value, origin in re.findall(r"^([A-Z_]+)=(.*) # (\S+)$", done.stdout, re.M):
            found[setting] = ((shlex.split(value) or [""])[0], origin)
    return found
