"""pixelwise passes every case that it supports, the committed page matches a run, and answers are assessed correctly."""

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
from conformance.case import Case, ExpectedError, Unsupported, Verdict, assess
from conformance.cases import CASES, CHAPTERS, NOT_COVERED, UNSUPPORTED

OURS = LIBRARIES[0]


@pytest.fixture(scope="module")
def ours() -> dict[str, table.Result]:
    return table.run([OURS])["pixelwise"]


def column(library: str) -> dict[str, str]:
    """Return the cells of a library in the committed page: case id → cell."""
    cells: dict[str, str] = {}
    index = None
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| | pitfall"):
            index = row.index(library)
        elif index is not None and re.match(r"\| [A-I]\d", line):
            cells[row[0]] = row[index]
    return cells


@pytest.mark.parametrize("case", [c for c in CASES if c.id not in UNSUPPORTED], ids=lambda case: case.id)
def test_pixelwise_is_right(ours: dict[str, table.Result], case: Case) -> None:
    result = ours[case.id]
    assert result.ways, f"no function for {case.capability}"
    assert [verdict.kind for _, verdict in result.ways] == ["right"], result.ways


def test_unsupported_cases_are_listed_on_the_page(ours: dict[str, table.Result]) -> None:
    assert [id for id, result in ours.items() if result.verdict.kind == "absent"] == ["A8a", "H4b"] == list(UNSUPPORTED)
    text = PAGE.read_text(encoding="utf-8")
    for id, reason in UNSUPPORTED.items():
        assert f"- **{id}** {reason}" in text


@pytest.mark.parametrize("case", [c for c in CASES if c.accepts_any_error], ids=lambda case: case.id)
def test_cases_that_accept_any_error_have_a_control(case: Case) -> None:
    assert case.control is not None, "any failure would count as right"


def test_malicious_files_are_effective(tmp_path: Path) -> None:
    by_id = {case.id: case for case in CASES}
    inputs = by_id["H3a"].inputs(tmp_path)
    assert by_id["H3a"].extract(inputs, []) is False
    with zipfile.ZipFile(inputs[0]["path"]) as archive:
        pickle.loads(archive.read("model/data.pkl")).close()
    assert by_id["H3a"].extract(inputs, []) is True
    inputs = by_id["H4b"].inputs(tmp_path)
    with zipfile.ZipFile(inputs[0]["path"]) as archive:
        for name in archive.namelist():
            (inputs[0]["out"] / name).write_bytes(archive.read(name))
    assert by_id["H4b"].extract(inputs, []) is True


def test_the_page_matches_a_run(ours: dict[str, table.Result]) -> None:
    assert column("pixelwise") == {case.id: ours[case.id].verdict.text for case in CASES}


def test_the_page_describes_every_case() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for case in CASES:
        assert f"**{case.id} {case.title}.** {case.task} Right: {table.expected(case)}." in text, case.id
    for name, reason in NOT_COVERED.items():
        assert f"- **{name}** {reason}" in text


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES[1:], ids=lambda library: library.name)
def test_the_page_matches_a_run_of_other_libraries(library: Library) -> None:
    if library.version() is None:
        pytest.skip(f"{library.name} is not installed")
    found = table.run([library])[library.name]
    assert column(library.name) == {case.id: found[case.id].verdict.text for case in CASES}


def test_ids_are_unique_and_match_their_chapter() -> None:
    ids = [case.id for case in CASES]
    assert len(set(ids)) == len(ids)
    for chapter, cases in CHAPTERS.items():
        assert {case.id[0] for case in cases} == {chapter[0]}


def make_case(right: object, **options: object) -> Case:
    return Case("Z1", "", "", "", lambda _: ({"value": 1},), right, "", "", **options)  # type: ignore[arg-type]


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
        (3, ExpectedError(), 0.0, "wrong", "accepted, 3"),
    ],
)
def test_the_deviation_is_described(answer: object, right: object, tolerance: float, kind: str, detail: str) -> None:
    verdict = assess(make_case(right, tolerance=tolerance), lambda value: answer)
    assert (verdict.kind, verdict.detail) == (kind, detail)


def fail(value: int) -> None:
    raise ValueError("a.png is broken\nand more")


def lack_option(value: int) -> None:
    raise Unsupported("no such option")


def test_expected_errors_are_distinguished_from_failures() -> None:
    assert assess(make_case(1.0), fail).text == "raises"
    assert assess(make_case(1.0), fail).detail == "ValueError: a.png is broken"
    assert assess(make_case(1.0, may_refuse=True), fail).kind == "right"
    assert assess(make_case(ExpectedError("a.png")), fail).kind == "right"
    assert assess(make_case(ExpectedError("b.png")), fail).detail == "does not name b.png"
    assert assess(make_case(1.0), lack_option).kind == assess(make_case(ExpectedError()), lack_option).kind == "absent"


def test_an_error_on_valid_input_is_not_right() -> None:
    verdict = assess(make_case(ExpectedError(), control=lambda _: {"value": 0}), fail)
    assert verdict.kind == "raises"
    assert verdict.detail.startswith("on valid input: ValueError")

    def reject_bad(value: int) -> None:
        if value:
            raise ValueError("no")

    assert assess(make_case(ExpectedError(), control=lambda _: {"value": 0}), reject_bad).kind == "right"


def test_a_wrong_answer_on_valid_input_is_wrong() -> None:
    case = make_case(
        ExpectedError(),
        control=lambda _: {"value": 0},
        control_is_right=lambda inputs, answer: answer == inputs["value"],
    )

    def answer_wrongly(value: int) -> int:
        if value:
            raise ValueError("no")
        return 7

    assert assess(case, answer_wrongly) == Verdict("wrong", "wrong answer on valid input")


def test_side_effects_count_despite_an_error(tmp_path: Path) -> None:
    case = make_case(False, checks_side_effects=True, extract=lambda inputs, answers: (tmp_path / "touched").exists())

    def write_and_fail(value: int) -> None:
        (tmp_path / "touched").touch()
        raise ValueError("too late")

    assert assess(case, fail).kind == "right"
    assert assess(case, write_and_fail) == Verdict("wrong", "yes")


def test_the_same_way_counts_for_all_cases_of_a_capability() -> None:
    from conformance.adapters import Way

    cases = [make_case(1.0), replace(make_case(1.0), id="Z2"), replace(make_case(2.0), id="Z3")]
    ways = {"": (Way("default: worse", lambda value: 2.0), Way("better", lambda value: 1.0))}
    found = dict(table._answers(ways, cases))
    assert [name for name, _ in found["Z1"].ways] == ["better", "default: worse"]
    assert [found[key].verdict.kind for key in ("Z1", "Z2", "Z3")] == ["right", "right", "wrong"]


def test_a_library_that_is_not_installed_has_no_version() -> None:
    assert Library("missing", ("a-distribution-that-does-not-exist",), "missing").version() is None


def test_ultralytics_is_not_a_dependency() -> None:
    """Its licence is AGPL-3.0, that of pixelwise is Apache-2.0."""
    root = Path(__file__).parents[1]
    assert "ultralytics" not in (root / "pyproject.toml").read_text().lower()
