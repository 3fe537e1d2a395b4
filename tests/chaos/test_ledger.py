# SPDX-License-Identifier: MIT
"""The ledger finds what it is there to find: each kind of fault is planted once."""

import sys
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest  # noqa: E402
from chaos import SPOOL_DAMAGES, Site  # noqa: E402
from ledger import KINDS, Ledger, is_anonymous, padding, type_of  # noqa: E402

COUNT = 20
ANONYMOUS = next(number for number in range(COUNT) if is_anonymous(number))


def send(ledger, count=COUNT):
    account = ledger.accounts[0]
    account.begin()
    for _ in range(count):
        account.sent(account.new_message(), again=False)
    return account


def receipt(number, status, seq=None):
    name = {} if is_anonymous(number) else {"id": f"m{number}"}
    return {"type": "receipt", "seq": number + 1 if seq is None else seq, "status": status, **name}


def row(number, **changes):
    found = {"client_id": "dev-0", "message_id": f"made-{number}" if is_anonymous(number) else f"m{number}",
             "type_": type_of(number), "status": "stored",
             "content": f'{{"n": {number}, "pad": "{padding(0, number)}"}}', "in_order": True}
    return {**found, **changes}


def settled(ledger, rows):
    for each in rows:
        ledger.row(**each)
    ledger.settle()
    return {kind: count for kind, count in ledger.counts.items() if count}


@pytest.fixture
def ledger():
    return Ledger(1)


def told_all(ledger, status="queued"):
    account = send(ledger)
    for number in range(COUNT):
        account.receipt(receipt(number, status))
    return account


def test_all_is_well(ledger):
    told_all(ledger)
    assert settled(ledger, [row(number) for number in range(COUNT)]) == {}
    assert ledger.is_clean() and ledger.excerpt() == ""


@pytest.mark.parametrize("status", ["accepted", "queued", "stored"])
def test_a_lost_message(ledger, status):
    told_all(ledger, status)
    assert settled(ledger, [row(number) for number in range(COUNT) if number != 5]) == {"lost": 1}
    assert "LOST: dev-0, message 5" in ledger.excerpt()


def test_a_lost_message_without_an_id(ledger):
    told_all(ledger)
    assert settled(ledger, [row(number) for number in range(COUNT) if number != ANONYMOUS]) == {"lost": 1}


def test_a_doubled_message(ledger):
    told_all(ledger)
    rows = [row(number) for number in range(COUNT)]
    assert settled(ledger, [*rows, row(ANONYMOUS, message_id="made-anew", in_order=False)]) == {"doubled": 1}


def test_rows_out_of_order(ledger):
    told_all(ledger)
    numbers = [*range(5), 6, 5, *range(7, COUNT)]
    assert settled(ledger, [row(number) for number in numbers]) == {"out of order": 1}


def test_the_order_of_two_processors_is_not_looked_at(ledger):
    told_all(ledger)
    assert settled(ledger, [row(number, in_order=False) for number in reversed(range(COUNT))]) == {}


@pytest.mark.parametrize("changes", [{"content": '{"n": 5, "pad": "?"}'}, {"message_id": "m6"}, {"type_": "picture"},
                                     {"status": "rejected"}])
def test_an_altered_message(ledger, changes):
    told_all(ledger)
    rows = [row(number, **(changes if number == 5 else {})) for number in range(COUNT)]
    assert settled(ledger, rows) == {"altered": 1}


@pytest.mark.parametrize("changes", [{"client_id": "dev-9"}, {"content": '"x"'}, {"content": '{"n": 20, "pad": ""}'}])
def test_an_invented_message(ledger, changes):
    told_all(ledger)
    rows = [row(number) for number in range(COUNT)]
    assert settled(ledger, [*rows, row(5, **changes)]) == {"invented": 1}


def test_a_message_that_never_gets_a_receipt(ledger):
    account = send(ledger)
    for number in range(COUNT):
        if number not in (5, ANONYMOUS):
            account.receipt(receipt(number, "queued"))
    assert settled(ledger, [row(number) for number in range(COUNT)]) == {"unserved": 1}


@pytest.mark.parametrize("changes", [
    {"seq": COUNT + 1}, {"seq": 0}, {"id": "m6"}, {"id": None}, {"status": "rejected"}, {"status": "dead"},
    {"seq": None, "id": "m99"}, {"seq": None, "id": None}])
def test_an_untrue_receipt(ledger, changes):
    account = send(ledger)
    account.receipt({key: value for key, value in {**receipt(5, "queued"), **changes}.items() if value is not None})
    assert ledger.counts["untrue receipts"] == 1


def test_a_receipt_that_goes_backwards(ledger):
    account = send(ledger)
    account.receipt(receipt(5, "stored"))
    account.receipt(receipt(5, "queued"))
    assert ledger.counts["untrue receipts"] == 1


def test_what_is_sent_again_after_a_lost_connection(ledger):
    account = send(ledger, 10)
    for number in (0, 1, 2, 3, 4):
        account.receipt(receipt(number, "accepted"))
    again = account.begin()
    assert again == [number for number in range(5, 10) if not is_anonymous(number)]
    for number in again:
        account.sent(number, again=True)
    account.receipt({"type": "receipt", "id": "m6", "status": "stored"})  # of the earlier connection
    account.receipt(receipt(6, "queued", seq=again.index(6) + 1))  # the repeat has receipts of its own
    for number in again:
        account.receipt(receipt(number, "stored", seq=again.index(number) + 1))
    assert settled(ledger, [row(number) for number in range(10)]) == {}


def test_what_was_given_up_may_be_stored_late_or_never(ledger):
    for rows in ([0, 1, 2, 4, 5], [0, 1, 2, 4, 5, 3]):
        ledger = Ledger(1)
        account = send(ledger, 6)
        for seq, number in enumerate(account.begin(), 1):
            account.sent(number, again=True)
            account.receipt(receipt(number, "queued", seq=seq))
        assert settled(ledger, [row(number) for number in rows]) == {}


@pytest.mark.parametrize("event", [*SPOOL_DAMAGES, "spool_tail_cut"])
def test_a_damaged_spool(ledger, event):
    site = types.SimpleNamespace(ledger=ledger, damages=set(), gateway=types.SimpleNamespace(
        log_text=lambda: f"ts=1 level=info event=started\nts=2 level=warn event={event} segment=3\n"))
    Site.note_damage(site)
    Site.note_damage(site)  # a line is one finding, however often it is read
    assert site.damages == ({f"ts=2 level=warn event={event} segment=3"} if event in SPOOL_DAMAGES else set())
    assert Site.is_clean(site) == (event not in SPOOL_DAMAGES)


def test_every_kind_is_planted_here_or_seen_by_the_clients():
    planted = {"lost", "doubled", "out of order", "altered", "invented", "untrue receipts", "unserved"}
    assert planted | {"refused"} == set(KINDS)
