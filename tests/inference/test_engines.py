"""The choice of the engine: when it is measured, when it is not, and what it depends on. The engines are fakes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pixelwise import storage
from pixelwise.errors import ConfigError, ImageError, ModelFileError, UsageError
from pixelwise.inference import backend as backends
from pixelwise.inference import engines as module
from pixelwise.inference.engines import Choice, Engine, Engines, Example
from pixelwise.labels import Labels
from pixelwise.machine import processor
from pixelwise.models.card import ModelCard
from pixelwise.tiles import Window
from pixelwise.types import ModelSpec

LABELS = Labels(("dark", "bright"))
TORCH, FAST = Engine("torch"), Engine("openvino", "bf16")
SECONDS = {TORCH: 0.1, Engine("torch", "bf16"): 0.06, FAST: 0.02, Engine("openvino"): 0.04, Engine("onnxruntime"): 0.05}


@dataclass
class Fakes:
    """Engines that need given seconds per pass."""

    seconds: dict[Engine, float] = field(default_factory=lambda: dict(SECONDS))
    wrong: set[Engine] = field(default_factory=set)
    errors: dict[Engine, Exception] = field(default_factory=dict)
    one_size: set[Engine] = field(default_factory=set)
    device: str = "cpu"
    now: float = 0.0
    opened: list[Engine] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def open(self, engine: Engine) -> Any:
        self.opened.append(engine)
        if engine in self.errors:
            raise self.errors[engine]

        class Fake:
            spec = ModelSpec(LABELS, 3)
            device = self.device

            def __call__(fake, images: NDArray[Any], /) -> NDArray[np.float32]:  # noqa: N805
                self.now += self.seconds[engine]
                self.shapes.append(images.shape)
                if engine in self.one_size and images.shape[2:] != self.shapes[0][2:]:
                    raise RuntimeError("expected the size of the conversion")
                bright = images[:, 0].astype(np.float32) - (128 if engine not in self.wrong else 64)
                return np.stack([-bright, bright], 1)

        return Fake()


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fakes:
    """Fake engines and an empty cache folder."""
    found = Fakes()

    def opener(name: str) -> Callable[..., Any]:
        return lambda folder, precision="fp32", device=None: found.open(Engine(name, precision))

    for name in backends.BACKENDS:
        monkeypatch.setattr(f"{__name__}.open_{name}", opener(name), raising=False)
        monkeypatch.setitem(backends.BACKENDS, name, f"{__name__}:open_{name}")
    monkeypatch.setattr("pixelwise.inference.trials._PAUSE", 0)
    monkeypatch.setattr(storage, "user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr("importlib.import_module", lambda _: __import__("sys").modules[__name__])
    return found


def card(**facts: Any) -> ModelCard:
    given = {"architecture": {"name": "unet"}, "spec": ModelSpec(LABELS, 3), "sha256": "a"}
    return ModelCard(**(given | facts))


def engines(tmp_path: Path, of: ModelCard | None = None, **options: Any) -> Engines:
    (tmp_path / "model").mkdir(exist_ok=True)
    return Engines(tmp_path / "model", of or card(), **options)


def image(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)


def choose(fakes: Fakes, of: Engines, count: int = 1000, shape: tuple[int, ...] = (64, 64), **options: Any) -> Choice:
    examples = [Example.of(image(*shape), None) for _ in range(5)]
    return of.choose(examples, count, clock=lambda: fakes.now, **options)


def test_a_large_job_is_measured_and_the_choice_is_kept(fakes: Fakes, tmp_path: Path) -> None:
    announced: list[None] = []
    chosen = choose(fakes, engines(tmp_path), announce=lambda: announced.append(None))
    assert chosen.engine == FAST
    assert chosen.why == "5.0 times faster than torch fp32 on the first images; 100.00 % equal pixels"
    assert len(announced) == 1
    assert set(fakes.opened) == set(SECONDS)
    facts = chosen.facts()
    assert (facts["name"], facts["precision"], facts["shape"]) == ("openvino", "bf16", [64, 64])
    fakes.opened.clear()
    assert choose(fakes, engines(tmp_path)) == chosen
    assert choose(fakes, engines(tmp_path), count=1) == chosen
    assert engines(tmp_path).cached((64, 64)) == chosen
    assert set(fakes.opened) == {FAST}
    assert not list((tmp_path / "model").iterdir())


def test_a_small_job_is_not_measured(fakes: Fakes, tmp_path: Path) -> None:
    for count, passes in ((4, 0), (20, 1)):
        fakes.shapes.clear()
        chosen = choose(fakes, engines(tmp_path), count=count)
        assert (chosen.engine, chosen.why) == (TORCH, "a small job: not measured")
        assert len(fakes.shapes) == passes
    assert set(fakes.opened) == {TORCH}
    assert not (tmp_path / "cache").exists()


def test_a_job_pays_earlier_when_the_network_is_converted(fakes: Fakes, tmp_path: Path) -> None:
    converted = module.converted_file(card())
    assert choose(fakes, engines(tmp_path), count=150).engine == TORCH
    assert converted is not None
    converted.parent.mkdir(parents=True)
    converted.touch()
    assert choose(fakes, engines(tmp_path), count=150).engine == FAST


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cores", lambda: 99),
        ("processor", lambda: ("Z80", ())),
        ("processor", lambda: (processor()[0], ("amx_bf16",))),
        ("_version", lambda name: "99"),
    ],
)
def test_on_another_machine_and_with_other_versions_it_is_measured_again(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    choose(fakes, engines(tmp_path))
    monkeypatch.setattr(module, name, value)
    fakes.opened.clear()
    choose(fakes, engines(tmp_path))
    assert TORCH in fakes.opened


@pytest.mark.parametrize("other", [{"of": card(sha256="b")}, {"precision": "fp32"}, {"shape": (64, 65)}])
def test_for_another_model_request_and_size_it_is_measured_again(
    fakes: Fakes, tmp_path: Path, other: dict[str, Any]
) -> None:
    choose(fakes, engines(tmp_path))
    fakes.opened.clear()
    choose(
        fakes, engines(tmp_path, **{k: v for k, v in other.items() if k != "shape"}), shape=other.get("shape", (64, 64))
    )
    assert TORCH in fakes.opened


@pytest.mark.parametrize("shape", [(60, 64), (1, 33), (3, 60, 50)])
def test_nearly_equal_sizes_share_a_choice(fakes: Fakes, tmp_path: Path, shape: tuple[int, ...]) -> None:
    choose(fakes, engines(tmp_path))
    fakes.opened.clear()
    assert choose(fakes, engines(tmp_path), shape=shape).engine == FAST
    assert fakes.opened == [FAST]


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"{}", b'{"engine": {"name": "abacus", "precision": "fp32"}, "why": "", "shape": [], "trials": []}',
     b'{"engine": {"name": "openvino"}, "why": "", "shape": [], "trials": []}', b"\xff\x00"],
)  # fmt: skip
def test_damaged_choices_are_made_again(fakes: Fakes, tmp_path: Path, content: bytes) -> None:
    choose(fakes, engines(tmp_path))
    (file,) = (tmp_path / "cache" / "pixelwise" / "engines").glob("*.json")
    file.write_bytes(content)
    assert choose(fakes, engines(tmp_path)).engine == FAST
    assert json.loads(file.read_bytes())["engine"] == {"name": "openvino", "precision": "bf16"}


@pytest.mark.parametrize("place", ["/proc/none", None])
def test_without_a_cache_folder_it_is_measured_each_time(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str | None
) -> None:
    monkeypatch.setattr(storage, "user_cache_path", lambda name: Path(place or "~none") / name)
    for _ in range(2):
        fakes.opened.clear()
        assert choose(fakes, engines(tmp_path)).engine == FAST
        assert TORCH in fakes.opened


def test_a_chosen_engine_that_does_not_open_any_more_is_not_used(fakes: Fakes, tmp_path: Path) -> None:
    chosen = choose(fakes, engines(tmp_path))
    fakes.errors[FAST] = RuntimeError("the library was removed")
    assert engines(tmp_path).cached((64, 64)) is None
    assert engines(tmp_path).again(chosen.facts()) is None
    assert choose(fakes, engines(tmp_path)).engine == Engine("openvino")


def test_engines_with_other_masks_are_not_chosen(fakes: Fakes, tmp_path: Path) -> None:
    fakes.wrong = {FAST, Engine("openvino")}
    assert choose(fakes, engines(tmp_path)).engine == Engine("onnxruntime")


def test_the_reference_is_the_answer_if_nothing_else_is_right(fakes: Fakes, tmp_path: Path) -> None:
    fakes.wrong = set(SECONDS) - {TORCH}
    chosen = choose(fakes, engines(tmp_path))
    assert (chosen.engine, chosen.why) == (TORCH, "no other engine is faster with the same masks")


REQUESTS = [
    ({"precision": "fp32"}, 1000, Engine("openvino")),
    ({"precision": "bf16"}, 1000, FAST),
    ({"precision": "bf16"}, 1, Engine("torch", "bf16")),
    ({"backend": "openvino"}, 1000, FAST),
    ({"backend": "openvino"}, 1, Engine("openvino")),
    ({"backend": "onnxruntime"}, 1000, Engine("onnxruntime")),
    ({"backend": "torch"}, 1000, Engine("torch", "bf16")),
    ({"backend": "torch", "precision": "fp32"}, 1000, TORCH),
    ({"backend": "openvino", "precision": "bf16"}, 1, FAST),
    ({"device": "cuda"}, 1000, TORCH),
]


@pytest.mark.parametrize(("request_", "count", "expected"), REQUESTS)
def test_requests_restrict_the_choice(
    fakes: Fakes, tmp_path: Path, request_: dict[str, str], count: int, expected: Engine
) -> None:
    assert choose(fakes, engines(tmp_path, **request_), count=count).engine == expected


def test_what_leaves_no_choice_is_not_measured(fakes: Fakes, tmp_path: Path) -> None:
    chosen = choose(fakes, engines(tmp_path, backend="torch", precision="fp32"))
    assert chosen.why == "as requested"
    assert not fakes.opened


def test_an_engine_asked_for_raises_its_error(fakes: Fakes, tmp_path: Path) -> None:
    problem = ConfigError("backend openvino", expected="the library openvino", found="none", do="Install it.")
    fakes.errors = {FAST: problem, Engine("openvino"): problem}
    found = engines(tmp_path, backend="openvino")
    with pytest.raises(ConfigError, match="expected the library openvino"):
        found.open(choose(fakes, found).engine)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"backend": "openvin"}, "Did you mean 'openvino'"), ({"precision": "int8"}, "expected fp32 or bf16, found int8")],
)
def test_unknown_engines_and_precisions_are_refused(tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        engines(tmp_path, **options)


def test_on_a_graphics_processor_nothing_is_measured(fakes: Fakes, tmp_path: Path) -> None:
    fakes.device = "cuda:0"
    chosen = choose(fakes, engines(tmp_path))
    assert (chosen.engine, chosen.why) == (TORCH, "engines are not measured on cuda:0")


def test_large_images_are_compared_on_a_part(fakes: Fakes, tmp_path: Path) -> None:
    choose(fakes, engines(tmp_path), count=1000, shape=(3000, 500))
    assert set(fakes.shapes) == {(1, 3, 1024, 500), (1, 3, 768, 333)}
    fakes.shapes.clear()
    choose(fakes, engines(tmp_path), count=1000, shape=(300, 500), tile=(128, 256))
    assert set(fakes.shapes) == {(1, 3, 128, 256), (1, 3, 96, 170)}


def test_an_engine_that_computes_images_of_one_size_only_is_not_chosen(fakes: Fakes, tmp_path: Path) -> None:
    fakes.one_size = {FAST}
    assert choose(fakes, engines(tmp_path)).engine == Engine("openvino")


@pytest.mark.parametrize(
    ("name", "content", "reference"),
    [
        ("a.onnx", b"", "openvino"),
        ("a.xml", b"QuantizeLinear", "openvino"),
        ("a.onnx", b"..QuantizeLinear", "onnxruntime"),
    ],
)
def test_quantised_onnx_files_are_compared_with_onnx_runtime(
    tmp_path: Path, name: str, content: bytes, reference: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert Engines(tmp_path / name, card()).reference == Engine(reference)


def test_one_large_image_is_a_large_job(fakes: Fakes, tmp_path: Path) -> None:
    fakes.seconds = {engine: 10 * seconds for engine, seconds in SECONDS.items()}
    assert choose(fakes, engines(tmp_path), count=1, shape=(600, 600), tile=(64, 64)).engine == FAST


def test_images_that_cannot_be_read_or_predicted_are_left_to_the_job(fakes: Fakes, tmp_path: Path) -> None:
    def unreadable(_: Any) -> Any:
        raise ImageError("a.png", expected="an image", found="none", do="Restore it.")

    def choice(*examples: Example) -> Engine:
        return engines(tmp_path).choose(examples, 1000, clock=lambda: fakes.now).engine

    good, grey = Example.of(image(64, 64), None), Example.of(np.zeros((4, 64, 64), np.uint8), None)
    assert choice() == TORCH
    assert choice(Example((64, 64), unreadable)) == TORCH
    assert choice(grey) == TORCH
    assert choice(Example.of(image(64, 64), np.zeros((64, 64), bool))) == TORCH
    assert choice(good, Example((64, 64), unreadable), grey) == FAST


def test_pixels_without_data_do_not_count(fakes: Fakes, tmp_path: Path) -> None:
    fakes.wrong = {FAST}
    values = np.full((3, 64, 64), 100, np.uint8)  # which the wrong engine takes for bright
    valid = np.ones((64, 64), bool)
    valid[:, 32:] = False
    values[:, :, :32] = 10
    chosen = engines(tmp_path).choose([Example.of(values, valid)], 1000, clock=lambda: fakes.now)
    assert chosen.engine == FAST


def test_networks_with_three_dimensions_are_measured_on_blocks(fakes: Fakes, tmp_path: Path) -> None:
    deep = engines(tmp_path, replace(card(), spec=ModelSpec(LABELS, 3, dimensions=3)))
    assert {engine.name for engine in deep.candidates} == {"torch", "openvino", "onnxruntime"}
    read: list[Window] = []

    def window(place: Window) -> Any:
        read.append(place)
        return np.full((3, *place.shape), 100, np.uint8), None

    deep.choose([Example((200, 120, 60), window)], 1000, clock=lambda: fakes.now)
    assert [place.shape for place in read] == [(96, 96, 60)]
    assert read[0].start == (52, 12, 0)


def test_a_damaged_conversion_is_made_again(fakes: Fakes, tmp_path: Path) -> None:
    converted = module.converted_file(card())
    assert converted is not None
    converted.parent.mkdir(parents=True)
    converted.write_bytes(b"damaged")
    fakes.errors[FAST] = ModelFileError("m", expected="a model", found="another", do="Do it again.")
    with pytest.raises(ModelFileError):
        engines(tmp_path).open(FAST)
    assert fakes.opened == [FAST, FAST]
    assert not converted.exists()


def test_a_choice_says_what_was_found_out_about_each_engine(fakes: Fakes, tmp_path: Path) -> None:
    fakes.errors[Engine("onnxruntime")] = RuntimeError("no such\noperator")
    choose(fakes, engines(tmp_path))
    (file,) = (tmp_path / "cache" / "pixelwise" / "engines").glob("*.json")
    trials = {tuple(one["engine"].values()): one for one in json.loads(file.read_bytes())["trials"]}
    assert set(trials) == {(engine.name, engine.precision) for engine in SECONDS}
    assert trials["onnxruntime", "fp32"]["problem"] == "no such operator"
    assert math.isclose(trials["openvino", "bf16"]["seconds"], 0.02)
