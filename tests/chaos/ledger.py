# SPDX-License-Identifier: MIT
"""What the clients know: every message they sent, every receipt they were given, and what must be true in the end.

The ledger knows doc/protocol.md and nothing of the programs. A message is told by its number `n` within its client,
which its content carries; one in seven has no id of its own, so that a repeat of it would be a second row. What a
client does after a lost connection is part of the contract: it sends again, oldest first and before anything new, all
that has an id and no receipt; what has neither id nor receipt is given up, and may be stored or not.

So, per client: every message with a receipt has a row (none lost), no message has two (none doubled), each row is what
was sent (none altered, none invented), and rows come in the order of `n` (none out of order); but what was given up may
come at any place, because the bytes of a lost connection can arrive later than those of the next.
"""

import collections
import json
import time

RANKS = {"accepted": 1, "queued": 2, "stored": 3}
TYPES = ("text", "voice", "video")
HISTORY_EVENTS = 2000  # of one client, for the excerpt
COMPLAINTS_KEPT = 200
KINDS = ("lost", "doubled", "out of order", "altered", "invented", "untrue receipts", "refused", "unserved")


def is_anonymous(number):
    return number % 7 == 3


def type_of(number):
    return TYPES[number % 3]


def padding(index, number):
    """Text that depends on client and number: mostly short, now and then of some kilobytes."""
    mixed = (number * 2654435761 + index * 40503 + 12345) & 0xFFFFFFFF
    length = 3000 if mixed % 97 == 0 else mixed % 200
    return (f"{mixed:08x}" * (length // 8 + 1))[:length]


class Account:
    """One client's part of the ledger."""

    def __init__(self, ledger, index):
        self.ledger = ledger
        self.index = index
        self.name = f"dev-{index}"
        self.known = bytearray()  # by number: the best receipt's rank, 0 for none
        self.rows = bytearray()  # by number: how many were seen
        self.open = {}  # numbers without any receipt, in the order they were sent first
        self.numbers = []  # of the present connection, by seq - 1
        self.told = bytearray()  # likewise: the last receipt's rank
        self.checked = 0  # numbers below it have been compared with the rows
        self.row_last = -1
        self.history = collections.deque(maxlen=HISTORY_EVENTS)

    def note(self, what, number=None, detail=""):
        self.history.append((time.monotonic(), what, number, detail))

    def complain(self, kind, number, text):
        self.note(kind.upper(), number, text)
        self.ledger.complain(kind, self, number, text)

    # Connections and messages.

    def begin(self):
        """A new connection; returns the numbers that are to be sent again, in order."""
        self.numbers = []
        self.told = bytearray()
        for number in [each for each in self.open if is_anonymous(each)]:
            del self.open[number]
        self.note("connected")
        return list(self.open)

    def new_message(self):
        """The next number; sent() follows."""
        number = len(self.known)
        self.known.append(0)
        self.rows.append(0)
        self.open[number] = None
        return number

    def sent(self, number, again):
        self.numbers.append(number)
        self.told.append(0)
        self.note("sent again" if again else "sent", number, len(self.numbers))

    def text(self, number):
        content = f'{{"n":{number},"pad":"{padding(self.index, number)}"}}'
        name = "" if is_anonymous(number) else f',"id":"m{number}"'
        return f'{{"type":"{type_of(number)}","content":{content}{name}}}'

    # Receipts.

    def receipt(self, receipt):
        """Returns the status' rank; 0 when it is not one we expect."""
        rank = RANKS.get(receipt.get("status"), 0)
        seq = receipt.get("seq")
        name = receipt.get("id")
        number = None
        if rank == 0:
            self.complain("untrue receipts", None, f"nothing was sent that deserves {json.dumps(receipt)}")
            return 0
        if seq is not None:
            if not 1 <= seq <= len(self.numbers):
                self.complain("untrue receipts", None, f"{len(self.numbers)} messages were sent: {json.dumps(receipt)}")
                return 0
            number = self.numbers[seq - 1]
            if name != (None if is_anonymous(number) else f"m{number}"):
                self.complain("untrue receipts", number, f"another message had this seq: {json.dumps(receipt)}")
                return 0
            if rank < self.told[seq - 1]:
                self.complain("untrue receipts", number, f"it goes backwards: {json.dumps(receipt)}")
            self.told[seq - 1] = rank
        elif isinstance(name, str) and name[:1] == "m" and name[1:].isdigit() and int(name[1:]) < len(self.known):
            number = int(name[1:])
        else:
            self.complain("untrue receipts", None, f"no such message was sent: {json.dumps(receipt)}")
            return 0
        self.note(receipt["status"], number, seq or "an earlier connection's")
        self.known[number] = max(self.known[number], rank)
        self.open.pop(number, None)
        return rank

    # Rows.

    def row(self, message_id, type_, status, content, in_order):
        number = self._number(content)
        if number is None:
            self.complain("invented", None, f"row {message_id!r}: {content[:80]}")
            return
        expected = f'{{"n": {number}, "pad": "{padding(self.index, number)}"}}'
        name_is_right = bool(message_id) if is_anonymous(number) else message_id == f"m{number}"
        if content != expected or not name_is_right or type_ != type_of(number) or status != "stored":
            self.complain("altered", number, f"row {message_id!r} {type_} {status}: {content[:80]}")
        self.rows[number] = min(255, self.rows[number] + 1)
        if self.rows[number] == 2:
            self.complain("doubled", number, f"another row, {message_id!r}")
        if in_order and (self.known[number] or not is_anonymous(number)):
            if number < self.row_last:
                self.complain("out of order", number, f"its row comes after that of {self.row_last}")
            self.row_last = max(self.row_last, number)

    def _number(self, content):
        head, _, _ = content.partition(", ")
        digits = head[len('{"n": '):]
        if not head.startswith('{"n": ') or not digits.isdigit() or int(digits) >= len(self.known):
            return None
        return int(digits)

    def settle(self):
        """All rows are in: what has a receipt has one."""
        for number in range(self.checked, len(self.known)):
            if self.known[number] and not self.rows[number]:
                self.complain("lost", number, "no row")
            elif not self.known[number] and not is_anonymous(number):
                self.complain("unserved", number, "no receipt, however often it was sent")
        self.checked = len(self.known)
        self.row_last = -1

    def excerpt(self, number):
        """The history of one message, and of its client's connections; without a number its client's last events."""
        if number is None:
            return list(self.history)[-20:]
        return [event for event in self.history if event[2] in (None, number)]


class Ledger:
    def __init__(self, clients):
        self.start = time.monotonic()
        self.accounts = [Account(self, index) for index in range(clients)]
        self.by_name = {account.name: account for account in self.accounts}
        self.complaints = []  # (kind, account or None, number or None, text)
        self.counts = dict.fromkeys(KINDS, 0)
        self.row_count = 0
        self.doings = collections.deque(maxlen=20000)  # (time, what was done to the pipeline)

    def complain(self, kind, account, number, text):
        self.counts[kind] += 1
        if len(self.complaints) < COMPLAINTS_KEPT:
            self.complaints.append((kind, account, number, text))

    def did(self, what):
        self.doings.append((time.monotonic(), what))

    def row(self, client_id, message_id, type_, status, content, in_order):
        """The next row, by rising row id."""
        self.row_count += 1
        account = self.by_name.get(client_id)
        if account is None:
            self.complain("invented", None, None, f"a row of {client_id!r}, {message_id!r}")
        else:
            account.row(message_id, type_, status, content, in_order)

    def settle(self):
        for account in self.accounts:
            account.settle()

    def is_clean(self):
        return not any(self.counts.values())

    def firm_count(self):
        """Messages that have a receipt."""
        return sum(len(account.known) - account.known.count(0) for account in self.accounts)

    def excerpt(self, complaints=5):
        """For a person: the first complaints, each with its client's history and what was done to the pipeline then."""
        lines = []
        for kind, account, number, text in self.complaints[:complaints]:
            client = account.name if account else "?"
            lines.append(f"{kind.upper()}: {client}, message {'?' if number is None else number}: {text}")
            if account is None:
                continue
            told = account.excerpt(number)
            moments = [event[0] for event in told if number is None or event[2] == number]
            if not moments:
                continue
            first, last = moments[0] - 1, moments[-1] + 1
            events = [(moment, f"{client}  {what} {'' if which is None else which} {detail}")
                      for moment, what, which, detail in told]
            events += [(moment, f"          *** {what}") for moment, what in self.doings]
            lines += [f"    {moment - self.start:9.3f}  {what}" for moment, what in sorted(events)
                      if first <= moment <= last]
        if len(self.complaints) > complaints:
            lines.append(f"(and {sum(self.counts.values()) - complaints} more)")
        return "\n".join(lines)
