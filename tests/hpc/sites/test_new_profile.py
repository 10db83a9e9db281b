"""`smgeo systems new` on a terminal: however its questions end, no answer is lost."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time

import pytest
import yaml

from smgeo.errors import SmgeoError
from smgeo.hpc.sites.new_profile import Draft, check_new, describe_site, read_last_draft, write_site
from smgeo.hpc.sites.profile import load_site


class Terminal:
    """`smgeo systems new ours` on a terminal of its own, without SLURM."""

    def __init__(self, folder) -> None:
        self._master, slave = pty.openpty()
        environment = {**os.environ, "PATH": str(folder), "TERM": "dumb", "NO_COLOR": "1"}
        environment.pop("SLURM_CONF", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "smgeo", "systems", "new", "ours", "--out", str(folder / "ours.yaml")],
            stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
            preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(slave)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        """Read until the terminal shows `text`, and forget what it showed."""
        while text not in self.shown:
            read = self._read()
            assert read, f"ended before {text!r}: {self.shown}"
            self.shown += read
        self.shown = self.shown.partition(text)[2]

    def _read(self) -> str:
        try:
            return os.read(self._master, 4096).decode(errors="replace")
        except OSError:  # the process has ended
            return ""

    def type(self, *lines: str) -> None:
        """Answer the next questions, one by one."""
        for line in lines:
            self.wait_for(": ")
            os.write(self._master, f"{line}\n".encode())

    def interrupt(self) -> str:
        """Type Ctrl-C at a question, and return what is shown until the end."""
        self.wait_for(": ")
        time.sleep(0.5)  # between a question and the reading of its answer Python heeds no signal
        os.write(self._master, b"\x03")
        return self.end()

    def end(self) -> str:
        """Return what is shown until the end."""
        while read := self._read():
            self.shown += read
        self.process.wait(30)
        os.close(self._master)
        return self.shown

    def close(self) -> None:
        """Close the terminal at a question."""
        self.wait_for(": ")
        os.close(self._master)
        self.process.wait(30)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_answers_of_questions_that_are_interrupted_are_the_next_defaults(tmp_path):
    first = Terminal(tmp_path)
    first.type("Our cluster", "y", "GCC Python")
    told = first.interrupt()
    draft = tmp_path / "ours.yaml.draft"
    assert first.process.returncode == 130
    assert f"your answers so far are kept in {draft}" in " ".join(told.split())
    kept = yaml.safe_load(draft.read_text())
    assert (kept["title"], kept["account_required"], kept["modules"]) == ("Our cluster", True, ["GCC Python"])

    second = Terminal(tmp_path)
    # A modules line is cleared by a space, the others are taken over.
    second.type("", "", " ", "/venv", "i", "")
    assert "profile: " in second.end()
    site = load_site(tmp_path / "ours.yaml")
    assert (site.title, site.account_required, site.modules) == ("Our cluster", True, ())
    assert (site.venv, site.network.host_suffix, site.scratch) == ("/venv", "i", None)
    # The second run's own draft is gone, and the first one's is as it was.
    assert [f.name for f in sorted(tmp_path.iterdir())] == ["ours.yaml", "ours.yaml.draft"]
    assert yaml.safe_load(draft.read_text()) == kept


@pytest.mark.parametrize("how", ["the terminal is closed", "SIGTERM", "SIGKILL"])
def test_answers_of_questions_that_end_otherwise_are_kept(how, tmp_path):
    terminal = Terminal(tmp_path)
    terminal.type("Our cluster", "n", "GCC")
    if how == "the terminal is closed":
        terminal.close()
    else:
        terminal.wait_for(": ")
        terminal.process.send_signal(signal.Signals[how])
        terminal.end()
    assert terminal.process.returncode
    assert not (tmp_path / "ours.yaml").exists()
    assert yaml.safe_load((tmp_path / "ours.yaml.draft").read_text())["modules"] == ["GCC"]


def test_a_draft_never_takes_the_place_of_another(tmp_path):
    path = tmp_path / "ours.yaml"
    for number, venv in enumerate(("~/first", "~/second", "~/third"), 1):
        name = f"ours.yaml.draft{number if number > 1 else ''}"
        with pytest.raises(SmgeoError, match=rf"your answers are kept in .*/{name}: correct it"):
            write_site(describe_site("ours", {}, {"venv": venv}), path)
    assert [yaml.safe_load(f.read_text())["venv"] for f in sorted(tmp_path.iterdir())] == [
        "~/first",
        "~/second",
        "~/third",
    ]
    assert read_last_draft(path) == (tmp_path / "ours.yaml.draft3", {"title": "ours", "venv": "~/third"})


def test_answers_are_kept_where_a_profile_appeared_meanwhile(tmp_path):
    path = tmp_path / "ours.yaml"
    draft = Draft(path)
    draft.write(describe_site("ours", {}, {"modules": "GCC"}))
    path.write_text("name: ours\n")
    with pytest.raises(SmgeoError, match=r"exists already.*your answers are kept in .*ours.yaml.draft"):
        write_site(describe_site("ours", {}, {"modules": "GCC", "scratch": "/s"}), path, draft)
    assert path.read_text() == "name: ours\n"
    assert yaml.safe_load((tmp_path / "ours.yaml.draft").read_text())["scratch"] == "/s"


def test_a_name_that_no_profile_may_have_is_refused_before_the_questions(tmp_path):
    with pytest.raises(SmgeoError, match="'x y' cannot be the name of a system"):
        check_new("x y", tmp_path / "x y.yaml")


def test_every_answer_comes_back_from_a_draft(tmp_path):
    partitions = {"a": {"nodes": 1}, "b": {"nodes": 2}}
    answers = {
        "title": "Ours",
        "default_partition": "b",
        "account_required": "yes",
        "modules": "GCC Python",
        "venv": "/venv",
        "host_suffix": "i",
        "scratch": "/scratch",
        "internet": "yes",
    }
    file = Draft(tmp_path / "ours.yaml").write(describe_site("ours", partitions, answers))
    assert read_last_draft(tmp_path / "ours.yaml") == (file, answers)
    file.write_text("[changed: by hand")
    assert read_last_draft(tmp_path / "ours.yaml") == (None, {})
