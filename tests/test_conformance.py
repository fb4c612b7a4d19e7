"""Ours answers every case rightly that it has a function for; the committed page says what a run says; the judge can tell wrong from right."""

import pickle
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conformance import table
from conformance.__main__ import PAGE
from conformance.adapters import LIBRARIES, Library
from conformance.case import Case, Refusal, Unsupported, Verdict, judge
from conformance.cases import CASES, CHAPTERS, NOT_ASKED, OURS_LACKS

OURS = LIBRARIES[0]


@pytest.fixture(scope="module")
def ours() -> dict[str, table.Result]:
    return table.run([OURS])["pixelwise"]


def column(library: str) -> dict[str, str]:
    """Read what the committed page says of a library: case → cell."""
    cells: dict[str, str] = {}
    place = None
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| | trap"):
            place = row.index(library)
        elif place is not None and re.match(r"\| [A-I]\d", line):
            cells[row[0]] = row[place]
    return cells


@pytest.mark.parametrize("case", [c for c in CASES if c.id not in OURS_LACKS], ids=lambda case: case.id)
def test_ours_is_right(ours: dict[str, table.Result], case: Case) -> None:
    result = ours[case.id]
    assert result.ways, f"no function for {case.question}"
    assert [verdict.kind for _, verdict in result.ways] == ["right"], result.ways


def test_ours_lacks_exactly_what_the_page_says(ours: dict[str, table.Result]) -> None:
    assert [id for id, result in ours.items() if result.verdict.kind == "absent"] == ["A8a", "H4b"] == list(OURS_LACKS)
    text = PAGE.read_text(encoding="utf-8")
    for id, why in OURS_LACKS.items():
        assert f"- **{id}** {why}" in text


@pytest.mark.parametrize("case", [c for c in CASES if c.lets_refuse], ids=lambda case: case.id)
def test_where_any_error_is_right_a_control_comes_first(case: Case) -> None:
    assert case.control is not None, "a crash would count as a refusal"


def test_hostile_files_do_harm_where_nobody_takes_care(tmp_path: Path) -> None:
    by_id = {case.id: case for case in CASES}
    trap = by_id["H3a"].inputs(tmp_path)
    assert by_id["H3a"].take(trap, []) is False
    with zipfile.ZipFile(trap[0]["path"]) as archive:
        pickle.loads(archive.read("model/data.pkl")).close()
    assert by_id["H3a"].take(trap, []) is True
    trap = by_id["H4b"].inputs(tmp_path)
    with zipfile.ZipFile(trap[0]["path"]) as archive:
        for name in archive.namelist():
            (trap[0]["out"] / name).write_bytes(archive.read(name))
    assert by_id["H4b"].take(trap, []) is True


def test_the_page_says_of_ours_what_a_run_says(ours: dict[str, table.Result]) -> None:
    assert column("pixelwise") == {case.id: ours[case.id].verdict.text for case in CASES}


def test_the_page_holds_every_case_with_its_answer() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for case in CASES:
        assert f"**{case.id} {case.title}.** {case.asks} Right: {table.expected(case)}." in text, case.id
    for name, why in NOT_ASKED.items():
        assert f"- **{name}** {why}" in text


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES[1:], ids=lambda library: library.name)
def test_the_page_says_of_the_others_what_a_run_says(library: Library) -> None:
    if library.version() is None:
        pytest.skip(f"{library.name} is not installed")
    found = table.run([library])[library.name]
    assert column(library.name) == {case.id: found[case.id].verdict.text for case in CASES}


def test_ids_are_unique_and_in_their_chapters() -> None:
    ids = [case.id for case in CASES]
    assert len(set(ids)) == len(ids)
    for chapter, cases in CHAPTERS.items():
        assert {case.id[0] for case in cases} == {chapter[0]}


def one(right: object, **more: object) -> Case:
    given = {"tolerance": 0.0, **more}
    return Case("Z1", "", "", "", lambda _: ({"value": 1},), right, "", "", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "right", "tolerance", "kind", "detail"),
    [
        (0.5, 0.5, 0.0, "right", ""),
        (0.62, 0.5, 0.1, "wrong", "+0.12"),
        (0.3, 0.5, 0.1, "wrong", "−0.2"),
        (0.55, 0.5, 0.1, "right", ""),
        (float("nan"), 0.5, 0.1, "wrong", "NaN"),
        (np.array([1, 2]), np.array([1, 2]), 0.0, "right", ""),
        (np.array([1, 3]), np.array([1, 2]), 0.0, "wrong", "1 of 2 values"),
        (np.array([1.0, 2.5]), np.array([1, 2]), 0.0, "wrong", "by 0.5"),
        (np.zeros((2, 3)), np.zeros((3, 2)), 0.0, "wrong", "shape 2×3 for 3×2"),
        (False, True, 0.0, "wrong", "no"),
        (3, Refusal(), 0.0, "wrong", "accepted, 3"),
    ],
)
def test_the_judge_says_by_how_much(answer: object, right: object, tolerance: float, kind: str, detail: str) -> None:
    verdict = judge(one(right, tolerance=tolerance), lambda value: answer)
    assert (verdict.kind, verdict.detail) == (kind, detail)


def fail(value: int) -> None:
    raise ValueError("a.png is broken\nand more")


def lack(value: int) -> None:
    raise Unsupported("no such option")


def test_the_judge_tells_a_refusal_from_a_failure() -> None:
    assert judge(one(1.0), fail).text == "raises"
    assert judge(one(1.0), fail).detail == "ValueError: a.png is broken"
    assert judge(one(1.0, may_refuse=True), fail).kind == "right"
    assert judge(one(Refusal("a.png")), fail).kind == "right"
    assert judge(one(Refusal("b.png")), fail).detail == "does not name b.png"
    assert judge(one(1.0), lack).kind == judge(one(Refusal()), lack).kind == "absent"


def test_a_refusal_of_everything_is_no_answer() -> None:
    verdict = judge(one(Refusal(), control=lambda _: {"value": 0}), fail)
    assert verdict.kind == "raises"
    assert verdict.detail.startswith("where nothing is wrong: ValueError")

    def picky(value: int) -> None:
        if value:
            raise ValueError("no")

    assert judge(one(Refusal(), control=lambda _: {"value": 0}), picky).kind == "right"


def test_a_wrong_answer_where_nothing_is_wrong_is_wrong() -> None:
    case = one(Refusal(), control=lambda _: {"value": 0}, sound=lambda inputs, answer: answer == inputs["value"])

    def pretend(value: int) -> int:
        if value:
            raise ValueError("no")
        return 7

    assert judge(case, pretend) == Verdict("wrong", "another answer where nothing is wrong")


def test_an_error_after_the_harm_is_no_refusal(tmp_path: Path) -> None:
    case = one(False, looks_after=True, take=lambda inputs, answers: (tmp_path / "harm").exists())

    def harm(value: int) -> None:
        (tmp_path / "harm").touch()
        raise ValueError("too late")

    assert judge(case, fail).kind == "right"
    assert judge(case, harm) == Verdict("wrong", "yes")


def test_one_way_counts_for_all_cases_of_a_question() -> None:
    from conformance.adapters import Way

    cases = [one(1.0), replace(one(1.0), id="Z2"), replace(one(2.0), id="Z3")]
    ways = {"": (Way("default: worse", lambda value: 2.0), Way("better", lambda value: 1.0))}
    found = dict(table._answers(ways, cases))
    assert [name for name, _ in found["Z1"].ways] == ["better", "default: worse"]
    assert [found[key].verdict.kind for key in ("Z1", "Z2", "Z3")] == ["right", "right", "wrong"]


def test_a_library_that_is_not_installed_has_no_version() -> None:
    assert Library("nobody", ("a-distribution-that-nobody-has",), "nobody").version() is None


def test_ultralytics_is_never_required() -> None:
    """Its licence is AGPL-3.0."""
    root = Path(__file__).parents[1]
    assert "ultralytics" not in (root / "pyproject.toml").read_text().lower()
