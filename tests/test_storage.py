import errno
import json
import os
from pathlib import Path

import pytest

from pixelwise import storage
from pixelwise.errors import OutputExistsError, ResourceError
from pixelwise.storage import atomic_path, claim_folder, write_atomic, write_json


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_parent_folders_are_created(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b" / "c.txt", "grün")
    assert (tmp_path / "a/b/c.txt").read_bytes() == "grün".encode()
    write_atomic(tmp_path / "a/b/c.txt", b"\x00\xff")
    assert (tmp_path / "a/b/c.txt").read_bytes() == b"\x00\xff"
    assert names(tmp_path / "a/b") == ["c.txt"]


@pytest.mark.parametrize("where", ["writing", "flushing", "renaming"])
def test_a_full_disk_leaves_the_old_file_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "model.bin"
    write_atomic(path, b"old")
    monkeypatch.setattr(
        *{"writing": (Path, "write_bytes"), "flushing": (os, "fsync"), "renaming": (Path, "replace")}[where], full
    )
    with pytest.raises(ResourceError) as error:
        write_atomic(path, b"new and longer")
    assert str(error.value) == (
        f"{path}: expected a writable disk with free space, found No space left on device. "
        "Free disk space or choose another --out. Existing files are unchanged."
    )
    assert error.value.exit_code == 4
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["model.bin"]


def test_files_are_flushed_before_they_are_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bool]] = []
    flush = storage._flush

    def watched(path: Path) -> None:
        seen.append((path.is_dir(), (tmp_path / "a").exists()))
        flush(path)

    monkeypatch.setattr(storage, "_flush", watched)
    write_atomic(tmp_path / "a", b"x")
    # First the content under the temporary name, then the folder entry.
    assert seen == [(False, False), (True, True)]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_any_exception_leaves_the_old_file(tmp_path: Path, kind: type[BaseException]) -> None:
    write_atomic(tmp_path / "a", b"old")
    with pytest.raises(kind), atomic_path(tmp_path / "a") as temporary:  # noqa: PT012 - half written is the point
        temporary.write_bytes(b"half")
        raise kind
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_leftovers_of_a_killed_process_are_replaced(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a") as temporary:
        raise KeyboardInterrupt
    temporary.write_bytes(b"left by kill -9")
    write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="expected a writable disk"):
        write_atomic(tmp_path / "file" / "a", b"")
    with pytest.raises(ResourceError, match="expected a writable disk"):
        claim_folder(tmp_path / "file" / "a", overwrite=False)


def test_json_is_indented_and_rejects_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ü": [1, None]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "ü": [\n  1,\n  null\n ]\n}\n'
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"ü": [1, None]}


def test_file_names_that_are_not_utf8_survive_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    write_json(tmp_path / "a.json", [name])
    assert json.loads((tmp_path / "a.json").read_bytes()) == [name]


def test_new_and_empty_folders_can_be_claimed(tmp_path: Path) -> None:
    claim_folder(tmp_path / "a" / "b", overwrite=False)
    claim_folder(tmp_path / "a" / "b", overwrite=False)
    assert names(tmp_path / "a") == ["b"]


def test_existing_files_are_not_replaced_without_overwrite(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    with pytest.raises(OutputExistsError) as error:
        claim_folder(tmp_path, overwrite=False)
    assert str(error.value) == (
        f"{tmp_path}: expected a new or empty folder, found files in it. "
        "Choose another --out, or add --overwrite to replace it."
    )
    assert names(tmp_path) == ["config.yaml"]


def test_overwrite_removes_an_earlier_result(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "1").touch()
    for name in ("config.yaml", "request.json", ".config.yaml.tmp", ".model.previous"):
        (tmp_path / name).touch()
    claim_folder(tmp_path, overwrite=True)
    assert names(tmp_path) == []


@pytest.mark.parametrize("results", [None, ("masks",)])
def test_overwrite_removes_only_results(tmp_path: Path, results: tuple[str, ...] | None) -> None:
    # --out my_images --overwrite
    for name in ("images", "masks", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").touch()
    with pytest.raises(OutputExistsError, match=r"expected only an earlier result to replace, found images, m"):
        claim_folder(tmp_path, True, *([results] if results else []))
    assert len(list(tmp_path.rglob("*.png"))) == 3


def test_a_result_requires_its_marker(tmp_path: Path) -> None:
    # A folder of annotated masks, and a folder with a copied model.
    for held, marker, results in (("masks", "predictions.json", ("predictions.json", "masks")), ("model", None, None)):
        folder = tmp_path / held
        (folder / held).mkdir(parents=True)
        (folder / held / "a.png").touch()
        given = (results, marker) if results and marker else ()
        with pytest.raises(OutputExistsError, match=rf"expected only an earlier result to replace, found {held}\."):
            claim_folder(folder, True, *given)
        assert (folder / held / "a.png").exists()


@pytest.mark.skipif(os.name == "nt", reason="names end earlier there")
def test_a_file_name_of_maximum_length(tmp_path: Path) -> None:
    name = "ä" * 120 + "a" * 15
    assert len(os.fsencode(name)) == 255
    write_atomic(tmp_path / name, b"whole")
    assert (tmp_path / name).read_bytes() == b"whole"
    assert len(names(tmp_path)) == 1


def test_overwrite_does_not_remove_a_file(tmp_path: Path) -> None:
    (tmp_path / "thesis.pdf").write_text("years")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match=r"found a file\. Choose another --out"):
            claim_folder(tmp_path / "thesis.pdf", overwrite)
    assert (tmp_path / "thesis.pdf").read_text() == "years"


def test_overwrite_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "precious").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(tmp_path / "far")
    (tmp_path / "run" / "request.json").touch()
    claim_folder(tmp_path / "run", overwrite=True)
    assert names(tmp_path / "run") == []
    assert names(tmp_path / "far") == ["precious"]


def test_a_cache_is_trimmed_to_the_files_used_last(tmp_path: Path) -> None:
    for age, name in enumerate("edcba"):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    (tmp_path / "folder").mkdir()
    storage.trim_cache(tmp_path, 35)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "folder"]
    storage.trim_cache(tmp_path, 5)  # the latest file is kept in any case
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "folder"]
    storage.trim_cache(tmp_path / "none", 5)
