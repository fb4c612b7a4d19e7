"""The catalogue of networks, and `build_model`. Libraries are imported only when one of their networks is built."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from pixelwise.errors import ConfigError, nearest
from pixelwise.models.base import SegmentationModel
from pixelwise.models.licenses import NVIDIA, license_of_encoder

SMP_ARCHITECTURES = (
    "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "deeplabv3", "deeplabv3plus", "pan", "upernet",
    "segformer", "dpt",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A network of the catalogue.

    Args:
        name: for `--model`.
        source: library with its code.
        parameters: number of parameters with three bands and two classes; 0 if unknown.
        stride: pixels per side of a cell of the coarsest feature map.
        paper: reference.
        weights: (name for `--weights`, licence) of pretrained weights.
        license: licence of the code.
        no_export: why `pixelwise export` refuses it; empty if it does not.
    """

    name: str
    source: str
    parameters: int
    stride: int
    paper: str
    weights: tuple[tuple[str, str], ...] = ()
    license: str = "Apache-2.0"
    no_export: str = ""


_COCO = (("coco", "BSD-3-Clause"), ("imagenet", "BSD-3-Clause"))
_MIT = (("ade20k", NVIDIA), ("cityscapes", NVIDIA), ("imagenet", NVIDIA))
_DEEPLAB, _SEGFORMER = "Chen et al. 2017, arXiv:1706.05587", "Xie et al. 2021, arXiv:2105.15203"
_FCN, _LRASPP = "Long et al. 2015, arXiv:1411.4038", "Howard et al. 2019, arXiv:1905.02244"
_FPN = "Lin et al. 2017, arXiv:1612.03144; Kirillov et al. 2019, arXiv:1901.02446"
_VISION, _HUGGING = "torchvision", "transformers"

ENTRIES = (
    Entry("unet", "pixelwise", 31_037_698, 16, "Ronneberger et al. 2015, arXiv:1505.04597"),
    Entry("fpn", "pixelwise", 3_322_912, 32, _FPN, (("imagenet", "Apache-2.0"),)),
    Entry("deeplabv3-resnet50", _VISION, 41_994_308, 8, _DEEPLAB, _COCO, "BSD-3-Clause"),
    Entry("deeplabv3-resnet101", _VISION, 60_986_436, 8, _DEEPLAB, _COCO, "BSD-3-Clause"),
    Entry("deeplabv3-mobilenetv3", _VISION, 11_024_236, 16, _DEEPLAB, _COCO, "BSD-3-Clause"),
    Entry("fcn-resnet50", _VISION, 35_307_588, 8, _FCN, _COCO, "BSD-3-Clause"),
    Entry("fcn-resnet101", _VISION, 54_299_716, 8, _FCN, _COCO, "BSD-3-Clause"),
    Entry("lraspp-mobilenetv3", _VISION, 3_218_308, 16, _LRASPP, _COCO, "BSD-3-Clause"),
    Entry("segformer-b0", _HUGGING, 3_714_658, 32, _SEGFORMER, _MIT),
    Entry("segformer-b1", _HUGGING, 13_677_762, 32, _SEGFORMER, _MIT),
    Entry("segformer-b2", _HUGGING, 27_348_162, 32, _SEGFORMER, _MIT),
    Entry("segformer-b3", _HUGGING, 47_224_002, 32, _SEGFORMER, _MIT),
    Entry("segformer-b4", _HUGGING, 63_994_562, 32, _SEGFORMER, _MIT),
    Entry("segformer-b5", _HUGGING, 84_594_882, 32, _SEGFORMER, _MIT),
)
# Popular checkpoints for `--model OWNER/NAME`, which include the weights.
_FIXED_SIZE = "transformers converts sizes to Python numbers, so that an exported file accepts only one size"
CHECKPOINTS = tuple(
    Entry(name, "transformers, from the Hub", 0, 32, paper, weights, no_export=why)
    for name, paper, weights, why in (
        ("openmmlab/upernet-convnext-tiny", "Xiao et al. 2018, arXiv:1807.10221", (("ade20k", "MIT"),), ""),
        ("openmmlab/upernet-swin-tiny", "Xiao et al. 2018, arXiv:1807.10221", (("ade20k", "MIT"),), ""),
        ("Intel/dpt-large-ade", "Ranftl et al. 2021, arXiv:2103.13413", (("ade20k", "Apache-2.0"),), ""),
        (
            "microsoft/beit-base-finetuned-ade-640-640",
            "Bao et al. 2021, arXiv:2106.08254",
            (("ade20k", "Apache-2.0"),),
            _FIXED_SIZE,
        ),
        (
            "apple/deeplabv3-mobilevit-small",
            "Mehta and Rastegari 2021, arXiv:2110.02178",
            (("voc", "Apple's own terms: see its page"),),
            _FIXED_SIZE,
        ),
    )
)
# Networks of pixelwise itself: name and module → class.
_OWN = {"unet": "UNet", "fpn": "FPN"}
_MAX_COUNTED = 24
_ENTRY = {entry.name: entry for entry in ENTRIES}


def search(word: str = "") -> tuple[Entry, ...]:
    """Return the networks whose name contains a word, if given also combinations of segmentation_models.pytorch.

    Parameters of combinations are counted if there are at most 24 of them.
    """
    word = word.lower()
    found = [entry for entry in (*ENTRIES, *CHECKPOINTS) if word in entry.name.lower()]
    if not word:
        return tuple(found)
    from pixelwise.models.smp import encoders

    pairs = [f"{a}/{e}" for a in SMP_ARCHITECTURES for e in encoders() if word in f"{a}/{e}"]
    return (*found, *(_combination(name, len(pairs) <= _MAX_COUNTED) for name in pairs))


def _combination(name: str, count: bool) -> Entry:
    encoder = split_name(name)[1]
    license = license_of_encoder(encoder).replace("unknown", "") or "see its page"
    weights = (("imagenet", license),)
    source = "segmentation_models.pytorch"
    if not count:
        return Entry(name, source, 0, 0, "", weights, "MIT")
    try:
        model = build_empty(name)
    except ConfigError:  # e.g. DPT with a convolutional encoder
        return Entry(name, source, 0, 0, "incompatible", (), "MIT")
    return Entry(name, source, sum(p.numel() for p in model.parameters()), model.stride, "", weights, "MIT")


def table() -> str:
    """Return the catalogue as a Markdown table, as in docs/models.md."""
    lines = ["| `--model` | code | parameters | stride | `--weights` | described in |", "|---" * 6 + "|"]
    for e in (*ENTRIES, *CHECKPOINTS):
        weights = ", ".join(word for word, _ in e.weights) or "–"
        weights += " (non-commercial)" if e.weights and e.weights[0][1] == NVIDIA else ""
        weights += f", included ({e.weights[0][1]})" if e in CHECKPOINTS else ""
        lines.append(f"| {e.name} | {e.source}, {e.license} | {_millions(e)} | {e.stride} | {weights} | {e.paper} |")
    return "\n".join(lines)


def export_table() -> str:
    """Return which networks can be exported, as a Markdown table, as in docs/export.md."""
    lines = ["| `--model` | export |", "|---|---|"]
    lines += [f"| {e.name} | {'no: ' + e.no_export if e.no_export else 'yes'} |" for e in (*ENTRIES, *CHECKPOINTS)]
    return "\n".join(lines)


def _millions(entry: Entry) -> str:
    return f"{entry.parameters / 1e6:.1f} M" if entry.parameters else "–"


def available() -> tuple[str, ...]:
    """Return the names of `ENTRIES`, sorted; ARCHITECTURE/ENCODER of segmentation_models.pytorch are valid, too."""
    return tuple(sorted(_ENTRY))


def build_model(name: str, **arguments: Any) -> SegmentationModel:
    """Build a network with random weights, drawn from torch's global generator.

    Args:
        name: one of `available()`, ARCHITECTURE/ENCODER, or "transformers" with a `config`.
        arguments: in_channels, num_classes, mean, std, and further parameters of the network.

    Raises:
        ConfigError: an unknown name or argument (the message names the nearest valid one), an invalid value, or a library
            that is not installed.
    """
    builder = _builder(name)
    for key in arguments:
        if key not in parameters(name):
            raise _unknown(f"model {name}", "argument", key, parameters(name))
    return builder(**arguments)


def build_empty(name: str, **arguments: Any) -> SegmentationModel:
    """Build a network on the meta device, which allocates no memory, before weights are loaded into it.

    Networks that need values in their constructor, or have buffers that are not saved, are built with random weights; the
    state of torch's generator is restored.
    """
    try:
        with torch.device("meta"):
            model = build_model(name, **arguments)
        if {key for key, buffer in model.named_buffers() if buffer.is_meta} <= model.state_dict().keys():
            return model
    except ConfigError as error:
        if not isinstance(error.__cause__, RuntimeError):
            raise
    except RuntimeError:
        pass
    with torch.random.fork_rng(devices=()):
        return build_model(name, **arguments)


def parameters(name: str) -> tuple[str, ...]:
    """Return the names of the arguments of a network.

    Raises:
        ConfigError: an unknown name.
    """
    return tuple(key for key in inspect.signature(_builder(name)).parameters if key != "name")


def origin(name: str) -> str:
    """Return the library that provides a network.

    Raises:
        ConfigError: an unknown name.
    """
    module = _place(name)[0]
    return "pixelwise" if module in _OWN else {"smp": "segmentation_models.pytorch"}.get(module, module)


def split_name(name: str) -> tuple[str, str]:
    """Return architecture and encoder of ARCHITECTURE/ENCODER; the encoder of other names is empty."""
    architecture, _, encoder = name.partition("/")
    return architecture, encoder


def _builder(name: str) -> Callable[..., SegmentationModel]:
    module, class_name = _place(name)
    cls = getattr(importlib.import_module(f"pixelwise.models.{module}"), class_name)
    return cls if module in _OWN else partial(cls, name)


def _place(name: str) -> tuple[str, str]:
    """Return module and class of a network."""
    architecture, slash, encoder = name.partition("/")
    if slash and encoder and architecture in SMP_ARCHITECTURES:
        return "smp", "SmpModel"
    if name in _OWN:
        return name, _OWN[name]
    if name == "transformers" or (name in _ENTRY and _ENTRY[name].source == _HUGGING):
        return "transformers", "TransformersModel"
    if name in _ENTRY:
        return "torchvision", "TorchvisionModel"
    if slash:
        raise _unknown("model.name", "architecture", name, [f"{a}/{encoder or 'ENCODER'}" for a in SMP_ARCHITECTURES])
    raise _unknown("model.name", "model", name, [*available(), "ARCHITECTURE/ENCODER"])


def _unknown(where: str, kind: str, found: str, valid: Iterable[str]) -> ConfigError:
    names = list(valid)
    return ConfigError(
        where, expected=f"one of {', '.join(names)}", found=f"unknown {kind} {found!r}", do=nearest(found, names)
    )
