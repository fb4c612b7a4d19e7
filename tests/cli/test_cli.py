import csv
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import typer

import pixelwise
from pixelwise import api, cli, errors
from pixelwise.cli import terminal
from pixelwise.errors import DataError, PixelwiseError

# The command line: arguments, then options. Everything else is a configuration key (--set).
FROZEN = {
    "demo": "--json --out --overwrite --time-limit",
    "check": "DATA --json --model --out --set",
    "train": (
        "DATA --accept-license --epochs --freeze --json --model --out --overwrite --seed --set --skip-bad --steps "
        "--time-limit --weights"
    ),
    "export": "MODEL --data --format --json --out --overwrite --precision --set --with-mask",
    "evaluate": "MODEL|MASKS DATA --backend --convention --json --metrics --out --overwrite --precision --set --split",
    "compare": "RUN… --data --json --set --split",
    "report": "RUN --json --out",
    "measure": (
        "MASKS --answers --estimator --fail --ground-plane --json --out --overwrite --sample --scale-bar --set --spacing "
        "--truth --zones"
    ),
    "predict": (
        "MODEL SOURCE… --backend --every --flips --from --json --no-overlays --out --overlays --overwrite --precision "
        "--probabilities --set --to --watch"
    ),
    "convert": "DATA --json --out --set --to",
    "models": "--json --search",
    "import-weights": "FILE --json --out --overwrite",
    "push": "MODEL OWNER/NAME --json --public",
}
REQUIRED = {"check": ["d"], "train": ["d"], "evaluate": ["m", "d"], "predict": ["m", "s", "--out", "o"], "demo": []}
REQUIRED |= {
    "export": ["m", "--format", "onnx", "--out", "o"],
    "models": [],
    "import-weights": ["f", "--out", "o"],
    "push": ["m", "a/b"],
    "compare": ["a", "b"],
    "report": ["r"],
    "measure": ["p"],
    "convert": ["d", "--to", "masks", "--out", "o"],
}


class Result(NamedTuple):
    code: int
    out: str
    err: str


Invoke = Callable[..., Result]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Run the command line in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["pixelwise", *map(str, arguments)])
        # Do not wrap messages.
        monkeypatch.setenv("COLUMNS", "300")
        monkeypatch.setenv("TERMINAL_WIDTH", "300")
        with pytest.raises(SystemExit) as end:
            cli.main()
        code = end.value.code
        return Result(code if isinstance(code, int) else 0 if code is None else 1, *capsys.readouterr())

    return run


def surface() -> dict[str, str]:
    """Return the arguments and options of each command."""
    group = typer.main.get_command(cli.app)
    commands = {}
    for name, verb in group.commands.items():  # type: ignore[attr-defined]
        parameters = [p for p in verb.params if p.name != "help"]
        arguments = [p.metavar for p in parameters if p.param_type_name == "argument"]
        options = sorted(o for p in parameters if p.param_type_name == "option" for o in (*p.opts, *p.secondary_opts))
        commands[name] = " ".join([*arguments, *options])
    return commands


def test_verbs_and_options_are_frozen() -> None:
    assert surface() == FROZEN


def test_options_are_long_and_spelled_with_hyphens() -> None:
    options = " ".join(FROZEN.values()).split()
    assert all(o.startswith("--") and "_" not in o and o.islower() for o in options if o.startswith("-"))


def test_every_command_has_a_function() -> None:
    # `pixelwise.models` is the package of the networks; the list is `pixelwise.api.models`.
    for verb in set(FROZEN) - {"demo", "models"}:
        assert callable(getattr(pixelwise, verb.replace("-", "_")))
    assert callable(api.models)


# Help


def test_every_help_answers_without_torch() -> None:
    code = f"""
import sys
from pixelwise.cli import main
for arguments in [["--help"], ["-h"], ["--version"], *([verb, "--help"] for verb in {list(FROZEN)})]:
    sys.argv = ["pixelwise", *arguments]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
heavy = {{"torch", "torchvision", "numpy", "scipy", "PIL", "tifffile"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert f"pixelwise {pixelwise.__version__}\n" in done.stdout
    for verb in FROZEN:
        assert f"Usage: pixelwise {verb} " in done.stdout


@pytest.mark.parametrize("verb", FROZEN)
def test_help_describes_every_option(invoke: Invoke, verb: str) -> None:
    result = invoke(verb, "--help")
    assert result.code == 0
    for word in FROZEN[verb].split():
        line = next(line for line in result.out.splitlines() if word in line.split())
        assert len(line.replace("│", "").split()) >= 4, line


def test_no_arguments_show_the_help_and_are_a_usage_error(invoke: Invoke) -> None:
    result = invoke()
    assert result.code == 2
    assert all(verb in result.out + result.err for verb in FROZEN)


def test_it_can_be_called_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "pixelwise", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"pixelwise {pixelwise.__version__}\n"


# Usage errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian", "d"], ["No such command 'trian'", "train"]),
        (["evalute"], ["No such command 'evalute'", "evaluate"]),
        (["train", "d", "--tme-limit", "3"], ["No such option: --tme-limit", "--time-limit"]),
        (["predict", "m", "s", "--out", "o", "--flip"], ["No such option: --flip", "--flips"]),
        (["train", "d", "--steps", "0"], ["--steps", "greater than or equal to 1"]),
        (["train", "d", "--steps", "many"], ["--steps", "integer"]),
        (["train", "d", "--seed", "-1"], ["--seed"]),
        (["train"], ["Missing argument 'DATA'"]),
        (["evaluate", "m"], ["Missing argument 'DATA'"]),
        (["predict", "m", "--out", "o"], ["expected SOURCE… or --watch DIR, found neither"]),
        (["predict", "m", "s"], ["Missing option '--out'"]),
        (["check", "a", "b"], ["unexpected extra argument"]),
    ],
)
def test_usage_errors_name_the_nearest_valid_name(invoke: Invoke, arguments: list[str], words: list[str]) -> None:
    result = invoke(*arguments)
    assert (result.code, result.out) == (2, "")
    text = " ".join(result.err.replace("│", " ").split())
    assert all(word in text for word in words), text


@pytest.mark.parametrize("verb", FROZEN)
def test_an_unknown_option_of_any_verb_is_code_2(invoke: Invoke, verb: str) -> None:
    assert invoke(verb, *REQUIRED[verb], "--qqq").code == 2


# Errors and exit codes

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PixelwiseError)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_error_is_its_message_on_standard_error_and_its_code(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, kind: type[PixelwiseError], options: tuple[str, ...]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("a.png", expected="this", found="[that]", do="Fix it.")

    monkeypatch.setattr(api, "check", fail)
    message = str(kind("a.png", expected="this", found="[that]", do="Fix it."))
    assert invoke("check", "d", *options) == (kind.exit_code, "", f"{message}\n")


@pytest.mark.parametrize("verb", ["check", "train", "evaluate", "predict"])
def test_a_missing_path_is_reported(invoke: Invoke, verb: str, tmp_path: Path) -> None:
    here = str(tmp_path / "none")
    arguments = {
        "check": [here],
        "train": [here, "--out", tmp_path / "o"],
        "evaluate": [here, here],
        "predict": [here, here, "--out", tmp_path / "o"],
    }
    result = invoke(verb, *arguments[verb])
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith(f"{here}: expected a ")
    assert result.err.endswith(", found nothing. Check the path.\n")
    assert not (tmp_path / "o").exists()


def test_a_wrong_override_is_code_2(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("check", tmp_path, "--set", "train.stepps=3")
    assert (result.code, result.out) == (2, "")
    assert "found unknown key `train.stepps`. Did you mean 'steps'?" in result.err


def test_only_one_limit_is_allowed(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("train", tmp_path, "--steps", 3, "--epochs", 2)
    assert result.code == 2
    assert result.err == "train: expected one of time_limit, steps, epochs, found steps and epochs. Keep one of them.\n"


def test_ctrl_c_is_130(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(api, "check", stop)
    # In background processes the signal may be ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = invoke("check", "d")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (result.code, result.out) == (130, "")


def test_a_closed_pipe_is_not_an_error(tmp_path: Path) -> None:
    code = (
        "import sys, pixelwise.api as a, pixelwise.cli as c\n"
        "a.check = lambda *_, **__: a.Checkup('d', {}, (), (), 0.0); c.main()"
    )
    plain = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code, "check", "d"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        env=plain,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_pipe_is_not_an_error_for_long_output(tmp_path: Path) -> None:
    code = (
        "import pixelwise.api as a, pixelwise.cli as c\n"
        "from pixelwise.checking import Finding\n"
        "one = Finding('long', 'notice', 'x' * 200_000, (), 1, 1, '', '')\n"
        "a.check = lambda *_, **__: a.Checkup('d', {}, (one,), (), 0.0); c.main()"
    )
    for options in ((), ("--json",)):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [sys.executable, "-c", code, "check", "d", *options],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(write)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_standard_error_does_not_stop_the_work(discs: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "pixelwise", "check"]
    done = subprocess.run([*command, str(discs)], stdout=subprocess.PIPE, stderr=write, check=False)
    assert done.returncode == 0
    assert done.stdout.endswith(b"in 20 images: ready for training\n")
    done = subprocess.run([*command, str(discs / "none")], stdout=subprocess.PIPE, stderr=write, check=False)
    os.close(write)
    assert (done.returncode, done.stdout) == (3, b"")


# Results


def document(result: Result) -> Any:
    """Parse the JSON document on standard output."""
    assert result.out.endswith("}\n")
    return json.loads(result.out)


def test_check_of_valid_data_is_code_0(invoke: Invoke, discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = invoke("check", discs)
    assert result.code == 0
    assert "warning  val has 4 images" in result.out
    assert result.out.endswith("in 20 images: ready for training\n")
    assert not any(line.endswith(" ") for line in result.out.splitlines())
    assert "checking 20 of 20" in result.err
    plain = document(invoke("check", discs, "--json"))
    assert plain["parts"] == {"train": 12, "val": 4, "test": 4}
    assert [one["name"] for one in plain["classes"]] == ["background", "disc"]
    assert sum(plain["classes"][1]["pictures"].values()) == 20
    monkeypatch.setattr(api, "check", lambda *_, **__: api.Checkup("d", {}, (), (), 0.0))
    assert invoke("check", discs).out == "no problems found: ready for training\n"


def test_check_writes_a_page(invoke: Invoke, discs: Path, tmp_path: Path) -> None:
    result = invoke("check", discs, "--out", tmp_path / "check.html")
    assert result.err.endswith(f"page: {tmp_path / 'check.html'}\n")
    assert "val has 4 images" in (tmp_path / "check.html").read_text()


def test_check_of_invalid_data_is_code_1_and_names_the_file(invoke: Invoke, discs: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(discs, tmp_path / "d")
    bad = sorted((tmp_path / "d" / "train" / "images").iterdir())[0]
    bad.write_text("no image")
    result = invoke("check", tmp_path / "d")
    assert result.code == 1
    assert result.out.startswith("error  ")
    assert result.out.endswith("in 19 images: training would fail or be useless\n")
    assert bad.name in result.out
    plain = invoke("check", tmp_path / "d", "--json")
    findings = document(plain)["findings"]
    assert plain.code == 1
    keys = {"kind", "severity", "what", "where", "count", "of", "why", "fix", "examples", "paired"}
    assert set(findings[0]) == keys
    assert findings[0]["severity"] == "error"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model."""
    import torch

    from pixelwise.labels import Labels
    from pixelwise.models.card import ModelCard
    from pixelwise.models.catalogue import build_model
    from pixelwise.models.weights import save_model
    from pixelwise.types import ModelSpec

    torch.manual_seed(0)
    arguments: dict[str, Any] = {"in_channels": 3, "num_classes": 2, "features": [4, 8], "up": "bilinear", "stem": 1}
    card = ModelCard({"name": "unet", "arguments": arguments}, ModelSpec(Labels(("background", "disc")), 3))
    folder = tmp_path_factory.mktemp("model")
    save_model(folder / "model", build_model("unet", **arguments), card)
    return folder / "model"


def test_evaluate_prints_a_table_or_json(invoke: Invoke, model: Path, discs: Path) -> None:
    result = invoke("evaluate", model, discs)
    assert result.code == 0
    assert all(word in result.out for word in ("background", "disc", "mIoU", "pixel accuracy", "test, 4 images"))
    plain = document(invoke("evaluate", model, discs, "--split", "val", "--json"))
    assert (plain["model"], plain["data"], plain["split"], plain["images"]) == (str(model), str(discs), "val", 4)
    assert {"miou", "miou_low", "miou_high", "pixel_accuracy", "frequency_weighted_iou", "convention"} <= set(plain)
    assert [c["name"] for c in plain["classes"]] == ["background", "disc"]


def test_check_of_a_data_set_that_cannot_be_opened_is_a_problem_found(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_text("no image")
    result = invoke("check", tmp_path)
    assert result.code == 1
    assert "expected " in result.err
    plain = document(result := invoke("check", tmp_path, "--json"))
    assert result.code == 1
    [finding] = plain["findings"]
    assert (finding["kind"], finding["severity"]) == ("cannot-be-opened", "error")
    assert finding["what"] in result.err
    assert finding["fix"]
    assert invoke("check", tmp_path / "missing").code == 3


def test_evaluate_names_the_existing_splits(invoke: Invoke, model: Path, discs: Path) -> None:
    result = invoke("evaluate", model, discs, "--split", "tset")
    assert result.code == 3
    assert result.err == f"{discs}: expected a split 'tset', found train, val, test. Choose --split test.\n"


def test_predict_writes_masks_and_prints_a_summary(invoke: Invoke, model: Path, discs: Path, tmp_path: Path) -> None:
    images = discs / "test" / "images"
    result = invoke("predict", model, images, "--out", tmp_path / "o")
    assert result.code == 0
    assert result.out.endswith(f"\n4 predicted, 0 failed: {tmp_path / 'o'}\n")
    assert len(list((tmp_path / "o" / "masks").iterdir())) == 4
    result = invoke("predict", model, images, "--out", tmp_path / "o")
    assert result.code == 2
    assert "Choose another --out, or add --overwrite to replace it." in result.err
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    arguments = ("predict", model, images, bad, "--out", tmp_path / "o", "--overwrite", "--no-overlays", "--json")
    result = invoke(*arguments)
    plain = document(result)
    assert result.code == 3
    assert (len(plain["images"]), [f["file"] for f in plain["failed"]]) == (4, [str(bad)])
    assert f"{bad}: expected " in result.err
    assert not (tmp_path / "o" / "overlays").exists()


def test_export_prints_agreement_or_json(invoke: Invoke, model: Path, discs: Path, tmp_path: Path) -> None:
    arguments = ("export", model, "--format", "onnx", "--data", discs, "--out")
    result = invoke(*arguments, tmp_path / "o")
    assert result.code == 0, result.err
    first, *engines, last = result.out.splitlines()
    assert first.startswith("LICENSES.txt, README.md, model.json, model.onnx, parity.json: ")
    assert first.endswith(f"compared with torch on 4 images of the val split of {discs.name}")
    assert engines[0].startswith("onnxruntime  fp32          equal pixels ")
    assert all("(for information)" in line for line in engines if "bf16" in line)
    assert last == f"next     pixelwise predict {tmp_path / 'o'} IMAGES --out DIR"
    assert "comparing: 4 of 4" in result.err
    plain = document(invoke(*arguments[:3], "torch-export", "--out", tmp_path / "o.pt2", "--json"))
    assert (plain["out"], plain["files"]) == (str(tmp_path / "o.pt2"), ["o.pt2"])
    assert plain["parity"]["engines"][0]["within_tolerance"] is True
    again = invoke(*arguments, tmp_path / "o")
    assert (again.code, again.out) == (2, "")
    refused = invoke("export", model, "--format", "onnx", "--precision", "int8", "--out", tmp_path / "p")
    assert refused.code == 3
    assert "Name a data set with the same classes with --data, or use --precision fp16." in refused.err


def test_an_export_with_other_masks_is_code_1(
    invoke: Invoke, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pixelwise.exporting import parity

    monkeypatch.setattr(parity, "SHARES", {"fp32": -0.5})
    result = invoke("export", model, "--format", "torch-export", "--out", tmp_path / "o")
    assert (result.code, result.out) == (1, "")
    assert "% equal pixels instead of " in result.err
    assert not (tmp_path / "o").exists()


def test_train_prints_json(invoke: Invoke, discs: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    overrides = [word for text in tiny for word in ("--set", text)]
    result = invoke("train", discs, "--out", tmp_path / "run", "--steps", 2, "--json", *overrides)
    assert result.code == 0, result.err
    plain = document(result)
    assert plain["run"] == str(tmp_path / "run")
    assert plain["scores"]["images"] == 4
    assert "step 2/2" in result.err
    again = invoke("train", discs, "--out", tmp_path / "run", "--steps", 2, *overrides)
    assert (again.code, again.out) == (2, "")


@pytest.mark.parametrize("test_part", [True, False])
def test_the_suggested_next_command_works(
    invoke: Invoke, discs: Path, tiny: tuple[str, ...], tmp_path: Path, test_part: bool
) -> None:
    import shutil

    data = tmp_path / "data"
    shutil.copytree(discs, data) if test_part else shutil.copytree(discs / "train", data)
    shutil.copy(discs / "labels.yaml", data)
    overrides = [word for text in tiny for word in ("--set", text)]
    result = invoke("train", data, "--out", tmp_path / "run", "--steps", 1, *overrides)
    assert result.code == 0, result.err
    following = result.out.splitlines()[-1].split()
    assert following[:3] == ["next", "pixelwise", "evaluate"]
    scored = invoke(*following[2:])
    assert scored.code == 0, scored.err
    assert ("run · test," if test_part else "run · val,") in scored.out


def test_evaluate_reports_skipped_files(invoke: Invoke, model: Path, discs: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(discs, tmp_path / "d")
    bad = sorted((tmp_path / "d" / "test" / "images").iterdir())[0]
    bad.write_bytes(bad.read_bytes()[:-200])
    result = invoke("evaluate", model, tmp_path / "d", "--set", "data.skip_bad=true", "--json")
    assert result.code == 0
    assert any(bad.name in notice for notice in document(result)["notices"])
    assert f"note: {bad}: expected a complete PNG" in result.err


# Output


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1:00 min"),
        (187, "3:07 min"),
        (3599.7, "1:00:00 h"),
        (3723, "1:02:03 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert terminal.duration(seconds) == text


def test_percentages() -> None:
    assert [terminal.percent(v) for v in (None, 0, 0.12345, 1)] == ["–", "0.0 %", "12.3 %", "100.0 %"]


SPREAD = {
    "miou": 0.5,
    "miou_low": 0.25,
    "miou_high": None,
    "mean_dice": None,
    "mean_dice_low": None,
    "mean_dice_high": None,
}


def test_brackets_in_names_are_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    row = {f"{name}{end}": 0.5 for name in ("iou", "dice", "precision", "recall") for end in ("", "_low", "_high")}
    plain = {
        "classes": [row | {"name": "car [parked]", "pixels": 1234567}, row | {"name": "[/]", "pixels": 0}],
        **SPREAD,
        "pixel_accuracy": 0.9,
        "pixel_accuracy_low": 0.8,
        "pixel_accuracy_high": 1.0,
        "convention": "left out: [red]",
        "interval": "[i]",
    }
    terminal.print_scores(plain, title="runs/[x]/a", baseline={"answer": "[b]", "pixel_accuracy": 0.8, "miou": 0.2})
    result = capsys.readouterr().out
    for text in ("car [parked]", "[/]", "runs/[x]/a", "[red]", "[i]", "'[b]'", "1,234,567", "80.0 – 100.0"):
        assert text in result


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_json_is_valid_in_any_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    plain = {"straße": "道", "file": os.fsdecode(b"\xff.png")}
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    terminal.print_json(plain)
    sys.stdout.flush()
    assert json.loads(raw.getvalue().decode(encoding)) == plain


def test_json_rejects_nan() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        terminal.print_json({"miou": float("nan")})


def test_messages_are_escaped_for_limited_encodings() -> None:
    code = (
        "import pixelwise.api as a, pixelwise.cli as c\n"
        "from pixelwise.errors import DataError\n"
        "def fail(*_, **__): raise DataError('\\udcff.png', expected='ids 0–4', found='道', do='Fix it.')\n"
        "a.check = fail; c.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "check", "d"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr == rb"\udcff.png: expected ids 0\u20134, found \u9053. Fix it." + os.linesep.encode()


def test_progress_without_a_terminal_is_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 101.0, 102.0, 115.0, 116.0])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    progress = terminal.Progress()
    for done in range(1, 6):
        progress.line(f"{done} of 5", last=done == 5)
    assert capsys.readouterr() == ("", "1 of 5\n4 of 5\n5 of 5\n")


def test_progress_on_a_terminal_is_one_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Screen())
    progress = terminal.Progress()
    progress.line("1 of 2")
    progress.say("note")
    progress.line("2 of 2", last=True)
    progress.say("done")
    assert sys.stderr.getvalue() == "\r\033[K1 of 2\r\033[Knote\n\r\033[K2 of 2\ndone\n"  # type: ignore[attr-defined]


def test_a_step_shows_rate_score_and_remaining_time(capsys: pytest.CaptureFixture[str]) -> None:
    listen = terminal.training_listener(terminal.Progress())
    step = {"event": "step", "step": 50, "steps": 100, "seconds": 20.0, "loss": 0.25, "eta": 20.0, "miou": 0.5}
    listen(step)
    assert capsys.readouterr().err == (
        "━━━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌ step 50/100 · loss 0.250 · best mIoU 50.0 % · 2.5 steps/s · 20 s left\n"
    )
    listen(step | {"step": 100, "seconds": 200.0, "miou": None, "eta": 0.0})
    assert capsys.readouterr().err == "━" * 24 + " step 100/100 · loss 0.250 · 2.0 s/step · 0 s left\n"


def test_unexpected_exceptions_are_not_hidden(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(api, "check", fault)
    monkeypatch.setattr(sys, "argv", ["pixelwise", "check", "d"])
    with pytest.raises(ZeroDivisionError):
        cli.main()
    assert not issubclass(ZeroDivisionError, DataError)


def test_the_suggested_next_command_is_quoted(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = SimpleNamespace(folder=tmp_path / "my run", scores={"images": 4}, splits=("train", "val"))
    monkeypatch.setattr(api, "train", lambda *_, **__: done)
    monkeypatch.setattr(cli.train, "print_scores", lambda *_, **__: None)
    words = shlex.split(invoke("train", "d").out.splitlines()[-1])
    folder, config = str(done.folder), str(done.folder / "config.yaml")
    assert words == ["next", "pixelwise", "evaluate", folder, config, "--split", "val"]


def test_an_interrupted_demo_names_the_command_to_resume(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise errors.Interrupted("run", found="checkpoint saved")

    monkeypatch.setattr(api, "draw_demo_data", lambda *_, **__: None)
    monkeypatch.setattr(api, "check", lambda *_: api.Checkup("d", {}, (), (), 0.0))
    monkeypatch.setattr(api, "train", stop)
    result = invoke("demo", "--out", tmp_path / "demo", "--time-limit", "7s")
    assert result.code == 130
    data, run = tmp_path / "demo" / "data", tmp_path / "demo" / "run"
    assert result.err.endswith(f"To resume: pixelwise train {data} --model unet --time-limit 7s --out {run}\n")


def test_a_demo_without_enough_time_names_its_own_option(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise errors.ResourceError("--time-limit", expected="time", found="none", do="Use --set model.features=[4].")

    monkeypatch.setattr(api, "draw_demo_data", lambda *_, **__: None)
    monkeypatch.setattr(api, "check", lambda *_: api.Checkup("d", {}, (), (), 0.0))
    monkeypatch.setattr(api, "train", refuse)
    result = invoke("demo", "--out", tmp_path / "demo", "--time-limit", "7s")
    assert result.code == 4
    assert result.err.endswith("--time-limit: expected time, found none. Allow more time, such as --time-limit 90s.\n")


def test_a_demo_replaces_only_a_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pixelwise.demo import synthetic

    monkeypatch.setattr(synthetic, "write_road_scenes", lambda folder, **_: folder.mkdir())
    (tmp_path / "project" / "data").mkdir(parents=True)
    with pytest.raises(errors.OutputExistsError, match=r"found data\. Choose another --out"):
        api.draw_demo_data(tmp_path / "project", overwrite=True)
    for _ in range(2):
        api.draw_demo_data(tmp_path / "demo", overwrite=True)


# Networks


def test_models_are_listed(invoke: Invoke) -> None:
    result = invoke("models")
    assert result.code == 0
    line = next(line for line in result.out.splitlines() if line.startswith("segformer-b0 "))
    assert all(word in line for word in ("3.7 M", "stride 32", "transformers", "ade20k", "non-commercial"))
    assert "--search resnet34" in result.out
    plain = document(invoke("models", "--json"))["models"]
    assert {"name", "source", "parameters", "stride", "paper", "weights", "license", "no_export"} == set(plain[0])
    assert [m["name"] for m in plain] == [line.split()[0] for line in result.out.split("\n\n")[0].splitlines()]


def test_models_can_be_searched(invoke: Invoke) -> None:
    result = invoke("models", "--search", "unet/resnet18")
    assert any(line.startswith("unet/resnet18 ") for line in result.out.splitlines())
    assert invoke("models", "--search", "nothing so called").out == "no name contains 'nothing so called'\n"


def test_pickles_are_converted_with_a_note(invoke: Invoke, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save({"state_dict": {"module.a": torch.ones(3)}}, tmp_path / "a.pt")
    out = tmp_path / "b" / "a.safetensors"
    result = invoke("import-weights", tmp_path / "a.pt", "--out", out)
    assert (result.code, result.out.splitlines()[0]) == (0, f"1 tensors in {out}")
    assert "a.pt is a pickle" in result.err
    assert load_file(out)["a"].tolist() == [1, 1, 1]
    assert invoke("import-weights", tmp_path / "a.pt", "--out", out).code == 2
    assert document(invoke("import-weights", tmp_path / "a.pt", "--out", out, "--overwrite", "--json"))["tensors"] == 1


def test_push_requires_a_repository_name(invoke: Invoke, model: Path) -> None:
    result = invoke("push", model, "nowhere")
    assert (result.code, result.err) == (2, "push: expected OWNER/NAME, found 'nowhere'. Correct the name.\n")


def test_sizes_are_printed_with_units_and_intervals(
    invoke: Invoke, discs: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    run = pixelwise.train(
        discs, out=tmp_path / "run", steps=2, overrides=[*tiny, "train.validations=1", "evaluate.metrics=[]"]
    )
    pixelwise.predict(run.folder, discs / "train" / "images", out=tmp_path / "predictions")
    result = invoke("measure", tmp_path / "predictions", "--spacing", "1cm", "--out", tmp_path / "sizes")
    assert result.code == 0
    assert "mm²" in result.out
    assert "7 more images" in result.out
    assert "the sizes of this model are not calibrated" in " ".join(result.out.split())
    assert (tmp_path / "sizes" / "classes.csv").is_file()
    plain = json.loads(invoke("measure", tmp_path / "predictions", "--json").out)
    assert len(plain["classes"]) == 24
    for line in (["--scale-bar", "3,3,3,53=10cm"], ["--ground-plane", "5,60=-2,5;58,60=2,5;40,30=2,18;23,30=-2,18"]):
        result = invoke("measure", tmp_path / "predictions", *line)
        assert (result.code, line[0][2:].replace("-", " ") in result.out) == (0, True)
        assert "one of them" in invoke("measure", tmp_path / "predictions", *line, "--sample", "9").err
    labelled = shutil.copytree(discs / "train", tmp_path / "labelled")
    shutil.copy(discs / "labels.yaml", labelled)
    refused = invoke("measure", tmp_path / "predictions", "--truth", labelled)
    assert refused.code == 3
    assert "neither trained nor validated on" in refused.err


def test_a_map_is_sampled_and_its_areas_estimated(invoke: Invoke, model: Path, discs: Path, tmp_path: Path) -> None:
    image = sorted((discs / "train" / "images").iterdir())[0]
    predictions, survey = tmp_path / "predictions", tmp_path / "survey"
    pixelwise.predict(model, image, out=predictions)
    assert invoke("measure", predictions, "--sample", "40").err.startswith("--sample: expected a folder for the points")
    result = invoke("measure", predictions, "--sample", "40", "--out", survey)
    assert (result.code, result.out.splitlines()[0]) == (0, "40 points in 1 stratum")
    assert (survey / "index.html").is_file()
    with (survey / "sample.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    names = json.loads((predictions / "predictions.json").read_text())["labels"]["names"]
    for number, row in enumerate(rows[1:]):
        row[-1] = names[number % 4 == 0]
    with (survey / "sample.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    result = invoke("measure", predictions, "--answers", survey, "--out", tmp_path / "areas")
    assert result.code == 0
    assert "areas from 40 answers" in result.out
    assert "overall accuracy" in result.out
    assert {path.name for path in (tmp_path / "areas").iterdir()} == {"areas.csv", "areas.json", "error_matrix.csv"}
    plain = document(invoke("measure", predictions, "--answers", survey, "--estimator", "olofsson", "--json"))
    assert [each["share"]["value"] for each in plain["classes"]][:2] == pytest.approx([0.75, 0.25])
    refused = invoke("measure", predictions, "--answers", survey, "--estimator", "olofson")
    assert (refused.code, refused.err.split(".")[0]) == (
        2,
        "--estimator: expected stratified or olofsson, found olofson",
    )
    assert invoke("measure", predictions, "--answers", survey, "--truth", discs).err.startswith(
        "--truth --answers: expected one of them"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.01234567, "0.01235"), (999.96, "1,000"), (36468.0, "36,470"), (1.2345678e7, "12,350,000")],
)
def test_sizes_have_four_digits(value: float, text: str) -> None:
    from pixelwise.cli.measure import _number

    assert _number(value) == text
