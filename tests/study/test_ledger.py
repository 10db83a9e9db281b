"""The ledger: what is skipped, what is done again, and what a second run is told."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os

import pytest

from smgeo.errors import SmgeoError
from smgeo.files import digest, write_json
from smgeo.study.ledger import Ledger


class Work:
    """Writes its output and counts its calls."""

    def __init__(self, output, text="made"):
        self.output, self.text, self.calls = output, text, 0

    def __call__(self):
        self.calls += 1
        self.output.write_text(self.text)
        return {"calls": self.calls, "pair": (1, 2)}


def records(folder):
    return [json.loads(p.read_text()) for p in (folder / ".stages").glob("*.json") if p.name != "hashes.json"]


def test_unchanged_stage_is_skipped_and_gives_the_same_result(tmp_path):
    work = Work(tmp_path / "out.txt")
    first = Ledger(tmp_path).run("a", {"x": 1}, [work.output], work)
    again = Ledger(tmp_path).run("a", {"x": 1}, [work.output], work)
    assert again.result == first.result == {"calls": 1, "pair": [1, 2]}
    assert work.calls == 1
    assert (first.skipped, again.skipped) == (False, True)
    assert again.record() == first.record()


def test_changed_input_is_run_again(tmp_path):
    work = Work(tmp_path / "out.txt")
    for x, calls in ((1, 1), (2, 2), (2, 2), (1, 3)):
        Ledger(tmp_path).run("a", {"x": x}, [work.output], work)
        assert work.calls == calls


def test_lost_output_is_made_again(tmp_path):
    work = Work(tmp_path / "out.txt")
    Ledger(tmp_path).run("a", {}, [work.output], work)
    work.output.unlink()
    Ledger(tmp_path).run("a", {}, [work.output], work)
    assert work.calls == 2
    assert work.output.read_text() == "made"


def test_changed_output_is_made_again(tmp_path):
    work = Work(tmp_path / "out.txt")
    Ledger(tmp_path).run("a", {}, [work.output], work)
    work.output.write_text("tampered with")
    Ledger(tmp_path).run("a", {}, [work.output], work)
    assert work.output.read_text() == "made"


def test_record_is_written_after_the_work(tmp_path):
    seen = []
    Ledger(tmp_path).run("a", {}, [], lambda: seen.append(records(tmp_path)))
    assert seen == [[]]
    assert [r["stage"] for r in records(tmp_path)] == ["a"]


def test_failed_work_leaves_no_record_not_even_the_old_one(tmp_path):
    work = Work(tmp_path / "out.txt")
    Ledger(tmp_path).run("a", {"x": 1}, [work.output], work)

    def fail():
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        Ledger(tmp_path).run("a", {"x": 2}, [work.output], fail)
    assert records(tmp_path) == []
    Ledger(tmp_path).run("a", {"x": 1}, [work.output], work)
    assert work.calls == 2


def test_stages_whose_names_look_alike_have_records_of_their_own(tmp_path):
    results = [
        Ledger(tmp_path).run(name, {}, [], lambda n=name: n).result for name in ("model a-b", "model a b", "model-a-b")
    ]
    assert results == ["model a-b", "model a b", "model-a-b"]
    assert len(records(tmp_path)) == 3


def hold(folder, entered, leave):
    with Ledger(folder).lock():
        entered.set()
        leave.wait(30)


def test_second_run_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    context = multiprocessing.get_context("spawn")
    entered, leave = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, entered, leave))
    process.start()
    try:
        assert entered.wait(60)
        with pytest.raises(SmgeoError, match="another run"), Ledger(tmp_path).lock():
            pass
    finally:
        process.kill()
        process.join()
    with Ledger(tmp_path).lock():
        assert (tmp_path / ".stages" / "lock").exists()


def test_hash_follows_content_not_name_or_time(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"one")
    b.write_bytes(b"one")
    ledger = Ledger(tmp_path)
    hashes = ledger.hash_files([a, b])
    assert hashes == {str(p): hashlib.sha256(b"one").hexdigest() for p in (a, b)}
    a.write_bytes(b"two")
    os.utime(b, ns=(1, 1))
    again = Ledger(tmp_path).hash_files([a, b])
    assert again == {str(a): hashlib.sha256(b"two").hexdigest(), str(b): hashlib.sha256(b"one").hexdigest()}


def test_digest_ignores_the_order_of_keys_and_sees_every_value():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert len({digest(v) for v in ({"a": 1}, {"a": 2}, {"b": 1}, {"a": "1"}, {"a": [1]}, {})}) == 6


def test_write_json_refuses_not_a_number_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "r.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
