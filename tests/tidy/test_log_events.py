# SPDX-License-Identifier: MIT
"""doc/log-events.md has every event that the sources can log, with its levels and fields, and no other."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "doc" / "log-events.md"
LEVELS = {"LOG_ERROR": "error", "LOG_WARN": "warn", "LOG_INFO": "info", "LOG_DEBUG": "debug"}


def arguments_of(text, at):
    """The arguments of the call whose opening parenthesis is at `at`."""
    found, depth, start, index, quoted = [], 0, at + 1, at, False
    while True:
        letter = text[index]
        if letter == '"' and text[index - 1] != "\\":
            quoted = not quoted
        elif not quoted and letter in "([{":
            depth += 1
        elif not quoted and letter in ")]}":
            depth -= 1
        if not quoted and (depth == 0 or (depth == 1 and letter == ",")):
            found.append(text[start:index].strip())
            start = index + 1
            if depth == 0:
                return found
        index += 1


def words(expression, before):
    """The texts an expression can be. What is looked up in an array is found where that array is."""
    found = re.findall(r'"(\w+)"', expression)
    array = re.match(r"(\w+)\[", expression)
    if not found and array:
        body = re.findall(rf"\b{array.group(1)}\[[^]]*\] = {{(.*?)}};", before, re.S)[-1]
        found = re.findall(r'"(\w+)"', body)
    return set(found)


def levels(expression, before):
    """A level, a choice of them, or a variable that was given one of them."""
    found = set(re.findall(r"\bLOG_(?:ERROR|WARN|INFO|DEBUG)\b", expression))
    if not found and re.fullmatch(r"\w+", expression):
        found = set(re.findall(r"\bLOG_(?:ERROR|WARN|INFO|DEBUG)\b",
                               re.findall(rf"\b{expression} = ([^;]*);", before)[-1]))
    return {LEVELS[name] for name in found}


def events_of_sources():
    """{event: (levels, fields)}"""
    events = {}
    for folder in ("src", "port", "processor"):
        for path in sorted((ROOT / folder).rglob("*.c")):
            text = path.read_text("utf-8")
            for call in re.finditer(r"\blog_event\(", text):
                _, level, name, *fields = arguments_of(text, call.end() - 1)
                before = text[:call.start()]
                where = f"{path.relative_to(ROOT)}: log_event of {name}"
                names = words(name, before)
                assert names and levels(level, before), f"{where}: the name or the level is not to be read"
                keys = [re.match(r'LOG_(?:SPAN|TEXT|U64|I64)\("(\w+)"', field) for field in fields]
                assert all(keys), f"{where}: a field is not to be read"
                for each in names:
                    known_levels, known_keys = events.setdefault(each, (set(), set()))
                    known_levels |= levels(level, before)
                    known_keys |= {key.group(1) for key in keys}
    return events


def events_of_document():
    """The same out of the rows | `event` | level | `field` `field` | text |."""
    events = {}
    for line in DOCUMENT.read_text("utf-8").splitlines():
        row = re.match(r"\| `(\w+)` \| ([a-z, ]+) \|([^|]*)\| (.+) \|$", line)
        if row:
            name, level, fields, said = row.groups()
            assert name not in events, f"{name} is there twice"
            assert len(said) > 5, f"{name} says nothing"
            events[name] = (set(level.split(", ")), set(re.findall(r"`(\w+)`", fields)))
    return events


def test_the_document_has_every_event():
    sources, document = events_of_sources(), events_of_document()
    assert len(sources) > 60, "the sources were not read"
    missing, gone = sorted(set(sources) - set(document)), sorted(set(document) - set(sources))
    assert not missing and not gone, f"not in the document: {missing}; not in the sources: {gone}"
    wrong = [f"{name}: the sources have {sources[name]}, the document {document[name]}"
             for name in sources if sources[name] != document[name]]
    assert not wrong, "\n".join(wrong)


def test_no_document_names_an_event_that_is_not():
    known = events_of_sources()
    wrong = [f"{path.relative_to(ROOT)}: {name}" for path in [ROOT / "README.md", *(ROOT / "doc").glob("*.md")]
             for name in re.findall(r"\bevent=(\w+)", path.read_text("utf-8")) if name not in known]
    assert not wrong, wrong
