"""Files and folders appear complete or not at all."""

from __future__ import annotations

import os

import pytest

from smgeo.errors import SmgeoError
from smgeo.files import folder_beside, written_beside


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_takes_its_place_when_it_is_complete(tmp_path, shared):
    path = tmp_path / "new" / "a.txt"
    for text in ("first", "second"):
        with written_beside(path, shared=shared) as part:
            assert part.name == (f"a.txt.{os.getpid()}.part" if shared else "a.txt.part")
            part.write_text(text)
            assert path.exists() == (text == "second")
        assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), written_beside(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_takes_its_place_when_it_is_complete(tmp_path):
    path = tmp_path / "model"
    left = tmp_path / "model.part" / "of a killed write"
    left.mkdir(parents=True)
    for text in ("first", "second"):
        with folder_beside(path, "model.json") as part:
            assert list(part.iterdir()) == []
            (part / "model.json").write_text(text)
        assert (path / "model.json").read_text() == text
    with pytest.raises(ZeroDivisionError), folder_beside(path, "model.json"):
        raise ZeroDivisionError
    assert (path / "model.json").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_folder_of_another_kind_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with (
        pytest.raises(SmgeoError, match=r"no model.json in it\); give another path"),
        folder_beside(tmp_path, "model.json"),
    ):
        pytest.fail("the body must not run")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
