"""Choose the engine and the precision that computes the masks of a model fastest on this machine.

A choice is made by measuring on the user's first images (see `trials`), and kept in the user's cache folder. This module must
not import an engine: with a choice from the cache, only the library of that engine is loaded.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ConfigError, DataError, ModelFileError, UsageError, nearest
from pixelwise.inference.backend import BACKENDS, Backend, open_backend
from pixelwise.inference.exported import IR, converted_file, engines_cache, model_key
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.trials import Engine, Trial, Trials, fastest
from pixelwise.machine import cores, processor
from pixelwise.models.card import ModelCard
from pixelwise.storage import write_cache
from pixelwise.tiles import Window, padded

AUTO = "auto"
PRECISIONS = ("fp32", "bf16")
# In the order of expected speed.
_CONVERTED = (Engine("openvino", "bf16"), Engine("openvino"), Engine("onnxruntime"))
_TORCH = (Engine("torch", "bf16"), Engine("torch"))
# Larger images without tiles are compared on a part of this size.
_LARGEST = {2: 1024, 3: 96}
# Choices are shared by images whose sides are equal after rounding up.
_ROUNDED = {2: 64, 3: 16}
# A job is measured if it takes so many times as long as converting and measuring, whose seconds are estimated.
_PAYS = 2
_CONVERTING, _MEASURING = 10.0, 3.0
# Jobs of so few passes are not worth a pass for the estimate.
_FEW = 4
_EXAMPLES = 4
# Of passes of the reference over the examples.
_SECONDS = 3.0
# Pixels of an image that takes seconds to read, so that only one is.
_LARGE = 1 << 25
_SMALL = "a small job: not measured"
# Devices by which Linux offers graphics processors, on which torch is used.
_GRAPHICS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")

Read = tuple[NDArray[Any], NDArray[np.bool_] | None]


@dataclass(frozen=True)
class Example:
    """One of the first images of a job: its spatial size *S, and how to read a window of it, with its valid pixels."""

    shape: tuple[int, ...]
    read: Callable[[Window], Read]

    @classmethod
    def of(cls, image: NDArray[Any], valid: NDArray[np.bool_] | None) -> Example:
        """Return the example of an image (C, *S) that has been read."""
        return cls(
            image.shape[1:], lambda window: (image[:, *window.slices], None if valid is None else valid[window.slices])
        )


@dataclass(frozen=True)
class Choice:
    """The engine for a job.

    Args:
        engine: the engine.
        why: the reason, as a phrase.
        shape: size of the images, or of the parts of them, that it was measured on; () if it was not measured.
        trials: what was found out about each engine.
    """

    engine: Engine
    why: str
    shape: tuple[int, ...] = ()
    trials: tuple[Trial, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return what results say about the engine, as plain values."""
        measured = {"shape": list(self.shape)} if self.shape else {}
        return engine_facts(self.engine.name, self.engine.precision) | measured | {"why": self.why}


def engine_facts(name: str, precision: str) -> dict[str, Any]:
    """Return an engine, its version and the processor as plain values."""
    return {"name": name, "precision": precision, "version": _version(name), "processor": processor()[0]}


class Engines:
    """The engines of one model. They are opened when they are first used, and kept.

    Args:
        path: a model folder or an exported file.
        card: of the model.
        backend: name of the engine, or "auto".
        precision: "fp32" or "bf16"; None for any.
        device: for `open_backend`; None for the fastest.

    Raises:
        UsageError: an unknown engine or precision.
        ConfigError: the torch engine for an exported file.
    """

    def __init__(
        self, path: Path, card: ModelCard, backend: str = AUTO, precision: str | None = None, device: str | None = None
    ) -> None:
        names = (AUTO, *BACKENDS)
        if backend not in names:
            raise UsageError(
                "--backend", expected=f"one of {', '.join(names)}", found=backend, do=nearest(backend, names)
            )
        if precision not in (None, *PRECISIONS):
            raise UsageError(
                "--precision", expected=" or ".join(PRECISIONS), found=str(precision), do="Choose one of them."
            )
        self.path, self.card = path, card
        self.backend, self.precision, self.device = backend, precision, device
        self.is_file = path.is_file()
        if self.is_file and backend == "torch":
            do = "Use --backend openvino or onnxruntime, or the model folder."
            raise ConfigError("--backend torch", expected="a model folder", found=path.name, do=do)
        self._opened: dict[Engine, Backend] = {}
        self._read: dict[Path, Choice | None] = {}

    @cached_property
    def candidates(self) -> tuple[Engine, ...]:
        """The engines that may be chosen, those expected to be the fastest first; at least one."""
        converted = [engine for engine in _CONVERTED if self.path.suffix.lower() != IR or engine.name == "openvino"]
        every = [*converted, *(() if self.is_file else _TORCH)]
        if self.device not in (None, "cpu"):
            every = [Engine("onnxruntime") if self.is_file else _TORCH[-1]]
        # The library of an engine that was asked for by name is missed when it is opened.
        wanted = [
            engine
            for engine in every
            if self.backend in (AUTO, engine.name)
            and self.precision in (None, engine.precision)
            and (self.backend != AUTO or importlib.util.find_spec(engine.name) is not None)
        ]
        named = every[0].name if self.backend == AUTO else self.backend
        return tuple(wanted) or (Engine(named, self.precision or "fp32"),)

    @cached_property
    def reference(self) -> Engine:
        """The engine whose masks are right: torch in fp32, or for exported files the first one in fp32."""
        if not self.is_file:
            return _TORCH[-1]
        precise = [engine for engine in self.candidates if engine.precision == "fp32"] or [Engine("openvino")]
        # OpenVINO computes some ONNX files in int8 wrongly.
        quantised = self.path.suffix.lower() != IR and b"QuantizeLinear" in self.path.read_bytes()
        return next((engine for engine in precise if quantised and engine.name == "onnxruntime"), precise[0])

    def default(self, why: str = "not measured") -> Choice:
        """Return the engine that is used without a measurement."""
        if len(self.candidates) == 1:
            requested = (self.backend, self.precision, self.device) != (AUTO, None, None)
            why = "as requested" if requested else "the only one for this model"
        return Choice(self.reference if self.reference in self.candidates else self.candidates[-1], why)

    def open(self, engine: Engine) -> Backend:
        """Open an engine, or return it if it is open.

        Raises:
            ConfigError: its library is not installed, or the network cannot be converted for it.
            ModelFileError: the model is incomplete or not readable.
        """
        if engine not in self._opened:
            options = {"device": self.device} if self.device is not None else {}
            options |= {"precision": engine.precision} if engine.precision != "fp32" else {}
            try:
                backend = open_backend(self.path, engine.name, **options)
            except ModelFileError:
                converted = None if self.is_file or engine.name == "torch" else converted_file(self.card)
                if converted is None or not converted.is_file():
                    raise
                # The file in the cache may be damaged: it is made again.
                converted.unlink(missing_ok=True)
                backend = open_backend(self.path, engine.name, **options)
            self._opened[engine] = backend
        return self._opened[engine]

    def cached(self, shape: Sequence[int], tile: Sequence[int] | None = None) -> Choice | None:
        """Return the choice that was made before for images of about this size (*S); None if there is none that works."""
        file = self._choice_file(self._piece(shape, tile))
        if file is None or len(self.candidates) == 1:
            return None
        if file not in self._read:
            choice = _read_choice(file)
            self._read[file] = (
                choice if choice and choice.engine in self.candidates and self._works(choice.engine) else None
            )
        return self._read[file]

    def again(self, facts: Mapping[str, Any]) -> Choice | None:
        """Return the choice that an earlier job recorded (see `Choice.facts`); None if its engine does not work."""
        engine = Engine(str(facts.get("name")), str(facts.get("precision")))
        shape = tuple(facts.get("shape") or ())
        return Choice(engine, str(facts.get("why") or ""), shape) if self._works(engine) else None

    def _works(self, engine: Engine) -> bool:
        try:
            self.open(engine)
        except Exception:  # those of engines are of any kind
            return False
        return True

    def choose(
        self,
        examples: Iterable[Example],
        count: int,
        tile: Sequence[int] | None = None,
        announce: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Choice:
        """Choose the engine for a job: as measured before, or by a measurement if the job is large enough for one to pay.

        Args:
            examples: the first images of the job, of which as many are read as needed.
            count: number of images in the job.
            tile: size of the tiles (*S), if images are predicted in tiles.
            announce: called before a measurement, which takes seconds.
            clock: returns the time in seconds.
        """
        if len(self.candidates) == 1:
            return self.default()
        source = iter(examples)
        example = next(source, None)
        if example is None:
            return self.default()
        before = self.cached(example.shape, tile)
        if before is not None:
            return before
        piece = self._piece(example.shape, tile)
        passes = count * math.prod(example.shape) / math.prod(piece)
        first = _read_piece(example, piece, self.card.spec.neighbours) if passes > _FEW else None
        if first is None:
            return self.default(_SMALL)
        device = getattr(self.open(self.reference), "device", "cpu")
        if str(device) != "cpu":
            return self.default(f"engines are not measured on {device}")
        predict = self._open_masks(self.reference)
        try:
            mask, seconds = _timed(predict, first, clock)
            if seconds * passes >= self._least_job():  # the first pass is the slowest
                mask, seconds = _timed(predict, first, clock)
        except DataError:  # not an image for this model: the job reports it
            return self.default()
        if seconds * passes < self._least_job():
            return self.default(_SMALL)
        if announce is not None:
            announce()
        pieces, masks = [first], [mask]
        most = 1 if math.prod(example.shape) > _LARGE else min(_EXAMPLES, int(_SECONDS / max(seconds, 1e-9)))
        for further in islice(source, max(most - 1, 0)):
            part = _read_piece(further, self._piece(further.shape, tile), self.card.spec.neighbours)
            with suppress(DataError):
                masks += [] if part is None else [predict(part)]
                pieces += [] if part is None else [part]
        # Some networks are converted without an error, and fail at sizes other than that of the conversion.
        other = _corner(first)
        with suppress(DataError):
            masks.append(predict(other))
            pieces.append(other)
        ignored = self.card.labels.ignore_index
        trials = Trials(self.reference, predict, [seconds], pieces, masks, self._open_masks, ignored, clock)
        return self._keep(trials.run(engine for engine in self.candidates if engine != self.reference), piece)

    def _piece(self, shape: Sequence[int], tile: Sequence[int] | None) -> tuple[int, ...]:
        """Return the size of the part of an image that is compared, with the axes of the network: at most one tile."""
        axes = self.card.spec.dimensions
        return tuple(
            min(size, most) for size, most in zip(shape[-axes:], tile or (_LARGEST[axes],) * axes, strict=True)
        )

    def _open_masks(self, engine: Engine) -> Callable[[Read], NDArray[Any]]:
        return _masks_by(self.open(engine))

    def _least_job(self) -> float:
        """Return the seconds that a job must take for a measurement to pay."""
        converts = not self.is_file and any(engine.name != "torch" for engine in self.candidates)
        file = converted_file(self.card) if converts else None
        return _PAYS * (_MEASURING + (_CONVERTING if converts and not (file and file.is_file()) else 0))

    def _keep(self, trials: tuple[Trial, ...], piece: tuple[int, ...]) -> Choice:
        """Choose by the trials, write the choice to the cache, and close the other engines."""
        engine = fastest(trials, self.candidates, self.default().engine)
        choice = Choice(engine, _reason(engine, trials), piece, trials)
        self._opened = {engine: self.open(engine)}
        file = self._choice_file(piece)
        if file is not None:
            write_cache(file, json.dumps(asdict(choice), indent=1, allow_nan=False).encode())
            self._read[file] = choice
        return choice

    def _choice_file(self, piece: Sequence[int]) -> Path | None:
        """Return the file in the cache for a choice; its name identifies all that the choice depends on."""
        folder = engines_cache()
        if folder is None:
            return None
        facts = {
            "model": model_key(self.card) if not self.is_file else _states(self.path),
            "machine": [*processor(), cores(), [Path(device).exists() for device in _GRAPHICS]],
            "versions": {name: _version(name) for name in (*BACKENDS, "pixelwise")},
            "shape": [padded(size, _ROUNDED[len(piece)]) for size in piece],
            "request": [self.backend, self.precision, self.device],
        }
        return folder / f"{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]}.json"


def _reason(engine: Engine, trials: Sequence[Trial]) -> str:
    """Return why an engine was chosen."""
    reference = trials[0]
    trial = next((trial for trial in trials if trial.engine == engine), Trial(engine))
    equal = "" if trial.equal is None else f"{math.floor(1e4 * trial.equal) / 100:.2f} % equal pixels"
    if engine == reference.engine:
        return "no other engine is faster with the same masks"
    if trial.problem or not trial.seconds or not reference.seconds:
        return f"no engine has the masks of {reference.engine}" + (f"; {equal}" if equal else "")
    return f"{reference.seconds / trial.seconds:.1f} times faster than {reference.engine} on the first images; {equal}"


def _read_piece(example: Example, piece: tuple[int, ...], neighbours: int = 0) -> Read | None:
    """Read the centre of an image, of a volume that of its middle slice, with neighbours, if the piece is one.

    Returns None if it cannot be read or holds no data.
    """
    sizes = (1,) * (len(example.shape) - len(piece)) + piece
    start = tuple((whole - size) // 2 for whole, size in zip(example.shape, sizes, strict=True))
    steps = range(-neighbours, neighbours + 1) if len(sizes) > len(piece) else (0,)
    firsts = [(min(max(start[0] + step, 0), example.shape[0] - sizes[0]), *start[1:]) for step in steps]
    try:
        parts = [
            example.read(Window(first, tuple(a + size for a, size in zip(first, sizes, strict=True))))
            for first in firsts
        ]
    except DataError:
        return None
    part = np.concatenate([image.reshape(len(image), *piece) for image, _ in parts])
    masks = [valid.reshape(piece) for _, valid in parts if valid is not None]
    inside = np.logical_and.reduce(masks) if masks else None
    return (part, inside) if inside is None or inside.any() else None


def _corner(piece: Read) -> Read:
    """Return the upper left part of an image (C, *S), of another shape: 3/4 of its height, 2/3 of its width, and of its depth."""
    image, valid = piece
    shares = (8, 9, 8)[-len(image.shape[1:]) :]
    corner = tuple(slice(max(1, size * share // 12)) for size, share in zip(image.shape[1:], shares, strict=True))
    return np.ascontiguousarray(image[:, *corner]), None if valid is None else np.ascontiguousarray(valid[corner])


def _timed(
    predict: Callable[[Read], NDArray[Any]], piece: Read, clock: Callable[[], float]
) -> tuple[NDArray[Any], float]:
    """Return the mask, and the seconds that it took."""
    started = clock()
    mask = predict(piece)
    return mask, clock() - started


def _masks_by(backend: Backend) -> Callable[[Read], NDArray[Any]]:
    predictor = Predictor(backend, tile=None, flips=False)
    return lambda read: predictor(read[0], None, read[1]).mask


def _read_choice(file: Path) -> Choice | None:
    """Read a choice from the cache; None if there is none, or it is damaged."""
    try:
        plain = json.loads(file.read_bytes())
        engine = _engine_of(plain["engine"])
        trials = tuple(Trial(**{**trial, "engine": _engine_of(trial["engine"])}) for trial in plain["trials"])
        choice = Choice(engine, str(plain["why"]), tuple(map(int, plain["shape"])), trials)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    with suppress(OSError):
        os.utime(file)  # the files used least recently are removed first
    return choice


def _engine_of(plain: Mapping[str, Any]) -> Engine:
    return Engine(str(plain["name"]), str(plain["precision"]))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _states(file: Path) -> list[Any]:
    """Return what tells an exported file from another one: name, size and time of modification, of its weights too."""
    files = [path for path in (file, file.with_suffix(".bin")) if path.exists()]
    return [[str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
