# SPDX-License-Identifier: MIT
"""Compares json.c with Python's parser, made strict, document by document: the corpus, every short text over JSON's own
characters, and mutations of the corpus. Both must take the same documents and see the same values.

    compare_json.py json_judge [seed]
"""

import itertools
import json
import random
import struct
import subprocess
import sys
import threading
from pathlib import Path

CORPUS = Path(__file__).parent / "json"
DEPTH_MAX = 32
MUTATIONS = 60000


class Refused(Exception):
    pass


class Number(str):
    pass


class Pairs(list):
    pass


def refuse(_):
    raise Refused


def pairs(items):
    if len({name for name, _ in items}) != len(items):
        raise Refused
    return Pairs(items)


DECODER = json.JSONDecoder(object_pairs_hook=pairs, parse_int=Number, parse_float=Number, parse_constant=refuse)


def shown(value, depth=0):
    """The value as json_judge prints it."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, str):
        return '"' + value.encode("utf-8").hex()  # refuses lone surrogates
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if depth == DEPTH_MAX:
        raise Refused
    if isinstance(value, Pairs):
        parts = [shown(part, depth + 1) for item in value for part in item]
        return "{%d:%s}" % (len(value), "".join(part + "," for part in parts))
    return "[%d:%s]" % (len(value), "".join(shown(part, depth + 1) + "," for part in value))


def has_nul(value):
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, Pairs):
        return any(has_nul(part) for item in value for part in item)
    return isinstance(value, list) and any(map(has_nul, value))


def python_says(data):
    try:
        value = DECODER.decode(data.decode("utf-8"))
        return f"+ {shown(value)} {int(has_nul(value))}"
    except (ValueError, RecursionError, Refused):
        return "-"


def short_texts():
    for characters in ('[]{},:"0', "[0-.1eE+, ]", '"\\u0d8c/n', "[truefalsn]"):
        length = 6 if len(characters) <= 8 else 5 if len(characters) <= 10 else 4
        for count in range(length + 1):
            for text in itertools.product(characters, repeat=count):
                yield "".join(text).encode()


def mutate(generator, documents):
    pieces = [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"0", b"-", b".", b"e", b" ", b"\n", b"\0", b"true",
              b"null", b'"a"', b'"a":1', b"\xc3", b"\xa9", b"\xed\xa0\x80", b"\\ud83d", b"\\ude00", b"\\u0061", b"\xff"]
    for _ in range(MUTATIONS):
        data = bytearray(generator.choice(documents))
        for _ in range(generator.randint(1, 3)):
            at = generator.randint(0, len(data))
            what = generator.randrange(5)
            if what == 0:
                data[at:at] = generator.choice(pieces)
            elif what == 1:
                del data[at:at + generator.randint(1, 3)]
            elif what == 2:
                data[at:at + 1] = bytes([generator.randrange(256)])
            elif what == 3:
                other = generator.choice(documents)
                start = generator.randint(0, len(other))
                data[at:at] = other[start:start + generator.randint(1, 12)]
            else:
                end = generator.randint(at, min(len(data), at + 20))
                data[at:at] = data[at:end]
        yield bytes(data)


def main():
    seed = int(sys.argv[-1]) if sys.argv[-1].isdigit() else random.SystemRandom().randrange(1 << 32)
    command = [argument for argument in sys.argv[1:] if not argument.isdigit()]
    sys.setrecursionlimit(5000)
    corpus = [path.read_bytes() for path in sorted(CORPUS.glob("*.json"))]
    small = [data for data in corpus if len(data) <= 400]
    documents = corpus + list(short_texts()) + list(mutate(random.Random(seed), small))
    judge = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def feed():
        for data in documents:
            judge.stdin.write(struct.pack("<I", len(data)) + data)
        judge.stdin.close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    taken = 0
    wrong = 0
    for data in documents:
        ours = judge.stdout.readline().decode().rstrip("\n")
        theirs = python_says(data)
        taken += theirs != "-"
        if (ours[:1] == "-") != (theirs == "-") or (theirs != "-" and ours != theirs):
            wrong += 1
            if wrong <= 10:
                print(f"{data!r}\n  json.c: {ours}\n  Python: {theirs}")
    feeder.join()
    print(f"{len(documents)} documents, {taken} of them right, {wrong} judged differently (seed {seed})")
    return 1 if judge.wait() != 0 or wrong else 0


sys.exit(main())
