# SPDX-License-Identifier: MIT
"""The shell commands that the documents show: README.md and doc/*.md, blocks of ```sh.

A mark above a block says where it is run:

    (none)             here, from the repository's root, while ./dev run runs
    <!-- run: box -->  on a box: with a system's folders of its own, as root
    <!-- run: FILE --> by that file, which every run of all tests runs too
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Command(NamedTuple):
    document: str
    where: str  # "here", "box", or a file
    text: str


def without_comment(line):
    """What stands behind a # and two blanks is for the reader."""
    return re.sub(r"\s+# .*$", "", line).strip()


def commands():
    found = []
    for path in [ROOT / "README.md", *sorted((ROOT / "doc").glob("*.md"))]:
        blocks = re.findall(r"(?:<!-- run: (\S+) -->\n)?^```sh\n(.*?)^```", path.read_text("utf-8"), re.S | re.M)
        for where, block in blocks:
            lines = map(without_comment, block.replace("\\\n", " ").splitlines())
            found += [Command(path.relative_to(ROOT).as_posix(), where or "here", line) for line in lines if line]
    return found
