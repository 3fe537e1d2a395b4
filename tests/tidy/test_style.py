# SPDX-License-Identifier: MIT
"""The source tree keeps to its own rules."""

import json
import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Who may include whom (doc/architecture.md); the build enforces the same by what it puts on the include path.
MAY_INCLUDE = {
    "base": "base",
    "port": "base port",
    "shared": "shared base port",
    "websocket": "websocket base",
    "session": "session shared base",
    "outbox": "outbox shared base port",
    "admin": "admin shared base port",
    "net": "net websocket base port",
    "gateway": "gateway admin net session outbox websocket shared base port",
    "processor": "processor admin shared base port",
}
MAIN_MAY_NAME = {"port_posix.h", "malloc_block.h"}
FOLDERS = {room: ROOT / "src" / room for room in MAY_INCLUDE}
FOLDERS["port"] = ROOT / "port"
FOLDERS["processor"] = ROOT / "processor"

# Libraries, and the only files that may include them.
ADAPTERS = {
    r"(?:rabbitmq-c/)?amqp\w*\.h": {"src/shared/amqp_link.c"},
    r"jsmn\.h": {"src/shared/json.c"},
    r"libpq-fe\.h": {"processor/store_postgres.c"},
    r"wolfssl/.*": {"src/base/digest.c", "src/base/wolfcrypt.h"},
}
STANDARD = set("assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg "
               "stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype "
               .split())
SKIPPED = {"build", ".git", "logs", "__pycache__", "node_modules", ".pytest_cache"}


def files(*suffixes):
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in SKIPPED]
        for name in names:
            path = Path(folder) / name
            if not suffixes or path.suffix in suffixes or name in suffixes:
                yield path


def rel(path):
    return path.relative_to(ROOT).as_posix()


def text(path):
    return path.read_text("utf-8")


def includes(path):
    return re.findall(r'^\s*#\s*include\s+(["<])([^">]+)[">]', text(path), re.M)


def room_of(path):
    """The room a file is in; None for the port's machinery, limits.h and tests."""
    name = rel(path)
    if name.startswith("port/posix/"):
        return None
    for room, folder in FOLDERS.items():
        if path.parent == folder:
            return room
    return None


def headers_of(room):
    return {path.name for path in FOLDERS[room].glob("*.h")}


def test_code_is_formatted():
    sources = sorted(map(rel, files(".c", ".h")))
    done = subprocess.run(["clang-format", "--dry-run", "--Werror", *sources], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, "run ./dev format:\n" + done.stdout[-6000:]


def test_includes_go_along_the_rooms():
    wrong = []
    all_headers = {name: room for room in FOLDERS for name in headers_of(room)}
    for path in files(".c", ".h"):
        room = room_of(path)
        if room is None:
            continue
        allowed = MAY_INCLUDE[room].split()
        for quote, name in includes(path):
            if quote != '"' or name == "limits.h":
                continue
            target = all_headers.get(name)
            if "/" in name:
                wrong.append(f"{rel(path)}: {name}: include by bare name")
            elif target is None and not (path.name == "main.c" and name in MAIN_MAY_NAME):
                wrong.append(f"{rel(path)}: {name} belongs to no room")
            elif target is not None and target not in allowed:
                wrong.append(f"{rel(path)}: {room} may not include {name} of {target}")
    assert not wrong, "\n".join(wrong)


def test_libraries_and_operating_system_stay_behind_their_adapters():
    wrong = []
    for path in files(".c", ".h"):
        name = rel(path)
        if name.startswith(("port/posix/", "tests/")):
            continue
        for quote, header in includes(path):
            if quote != "<" or header[:-2] in STANDARD:
                continue
            owners = next((owners for pattern, owners in ADAPTERS.items() if re.fullmatch(pattern, header)), set())
            if name not in owners:
                wrong.append(f"{name}: <{header}>")
    assert not wrong, "\n".join(wrong)


def test_header_names_are_unique():
    seen = {}
    for path in files(".h"):
        if not rel(path).startswith("tests/"):
            assert path.name not in seen, f"{rel(path)} and {seen[path.name]}: bare include names must be unique"
            seen[path.name] = rel(path)


def test_our_own_code_cannot_allocate():
    """malloc and its like do not compile behind poison.h, and the build puts that before each file of the programs, but
    for those that are the malloc."""
    poison = ROOT / "src/base/poison.h"
    for call in ("malloc(1)", "calloc(1, 1)", "realloc(p, 1)", "reallocarray(p, 1, 1)", "free(p)", "cfree(p)", "strdup(p)",
                 "strndup(p, 1)", "strdupa(p)", "strndupa(p, 1)", "wcsdup(p)", "aligned_alloc(8, 8)",
                 "posix_memalign(p, 8, 8)", "memalign(8, 8)", "valloc(1)", "pvalloc(1)", "asprintf(p, p)",
                 "vasprintf(p, p, p)", "getline(p, p, p)", "getdelim(p, p, 0, p)", "open_memstream(p, p)",
                 "open_wmemstream(p, p)", "fmemopen(p, 1, p)", "tempnam(p, p)",
                 "canonicalize_file_name(p)"):
        done = subprocess.run(["gcc", "-std=c11", "-D_GNU_SOURCE", "-fsyntax-only", "-include", poison, "-x", "c", "-"],
                              input=f"void f(void *p);\nvoid f(void *p) {{ (void)p; {call}; }}\n", text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        assert done.returncode != 0 and "poisoned" in done.stdout, (call, done.stdout)
    database = ROOT / "build" / os.environ.get("POSTERN_BUILD", "debug") / "compile_commands.json"
    own = [entry for entry in json.loads(text(database))
           if not rel(Path(entry["file"])).startswith(("tests/", "port/posix/malloc/"))]
    assert len(own) > 50
    assert not [entry["file"] for entry in own if f"-include {poison}" not in entry["command"]]


def test_every_source_names_its_licence():
    missing = []
    for path in files(".c", ".h", ".py", ".sh", ".cmake", ".js", "CMakeLists.txt", "dev", ".mako"):
        head = text(path).splitlines()[:2]
        if not any("SPDX-License-Identifier: MIT" in line for line in head) and text(path).strip():
            missing.append(rel(path))
    assert not missing, "no SPDX line: " + ", ".join(missing)


def test_nothing_is_left_for_later():
    found = []
    pattern = re.compile(r"\b(TODO|FIXME|XXX|HACK|TBD)\b")
    for path in files(".c", ".h", ".py", ".sh", ".cmake", ".md", "CMakeLists.txt", "dev"):
        if path == Path(__file__):
            continue
        for number, line in enumerate(text(path).splitlines(), 1):
            if pattern.search(line):
                found.append(f"{rel(path)}:{number}: {line.strip()}")
    assert not found, "\n".join(found)


def test_texts_are_clean():
    """UTF-8, no tabs, no blanks at line ends, one newline at the end, no path of somebody's machine."""
    wrong = []
    home = re.compile(r"(?<![\w.])/(?:home/\w|root/\w|Users/\w|work/\w)")
    for path in files(".c", ".h", ".py", ".sh", ".cmake", ".md", ".sql", ".yml", ".toml", ".ini", "CMakeLists.txt",
                      "dev", ".env.template"):
        content = text(path)
        if path == Path(__file__):
            continue
        if content and not content.endswith("\n"):
            wrong.append(f"{rel(path)}: no newline at the end")
        for number, line in enumerate(content.splitlines(), 1):
            if line != line.rstrip() or "\t" in line:
                wrong.append(f"{rel(path)}:{number}: tab or trailing blank")
            if home.search(line):
                wrong.append(f"{rel(path)}:{number}: a path of one machine: {line.strip()}")
    assert not wrong, "\n".join(wrong[:40])


def test_source_files_stay_readable():
    """Not a limit to be clever about: a file far over 600 lines is several files."""
    long = {rel(path): len(text(path).splitlines()) for path in files(".c", ".h", ".py")}
    # A test file is a list that is read one by one, so it may be longer.
    long = {name: lines for name, lines in long.items() if lines > (1000 if name.startswith("tests/") else 800)}
    assert not long, long


def test_asserts_stay_on():
    """CHECK() is not assert(): it stays in a release build, so assert() has no place in our code."""
    wrong = [rel(path) for path in files(".c", ".h")
             if not rel(path).startswith("tests/") and re.search(r"\bassert\s*\(|<assert\.h>", text(path))]
    assert not wrong, wrong


def anchors(document):
    """The headings of a document, as a link names them."""
    plain = re.sub(r"^```.*?^```", "", text(document), flags=re.S | re.M)
    titles = re.findall(r"^#+ (.+)$", plain, re.M)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_documents_link_to_what_exists():
    missing = []
    for path in files(".md"):
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text(path)):
            if re.match(r"[a-z]+:", target):
                continue
            to = path.parent / target if target else path
            if not to.exists() or (anchor and anchor not in anchors(to)):
                missing.append(f"{rel(path)}: {target}{'#' if anchor else ''}{anchor}")
    assert not missing, "\n".join(missing)
