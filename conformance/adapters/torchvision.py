"""torch and torchvision: decoding, transforms v2, losses, networks, data sets, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from torchvision import datasets, models, transforms, tv_tensors
from torchvision.datasets.utils import extract_archive
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from conformance.adapters import Way, Ways
from conformance.case import Unsupported
from conformance.disk import full_disk

Size = tuple[int, int]
_UNCHANGED = ImageReadMode.UNCHANGED


def _read_image(path: Path, mode: ImageReadMode = _UNCHANGED, orient: bool = False) -> NDArray[Any]:
    found: NDArray[Any] = decode_image(str(path), mode, apply_exif_orientation=orient).numpy()
    return found


def _read_mask(path: Path, ids: Any, ignored: Any) -> NDArray[Any]:
    """Read with Pillow and PILToTensor, as in the segmentation references."""
    found: NDArray[Any] = v2.PILToTensor()(Image.open(path))[0].numpy()
    return found


def _decode_mask(path: Path, ids: Any, ignored: Any) -> NDArray[Any]:
    found = decode_image(str(path), _UNCHANGED).numpy()
    return found[0] if len(found) == 1 else found


def _loss(
    logits: NDArray[Any], masks: NDArray[Any], ignore_index: int | None, class_weights: Any = None
) -> dict[str, Any]:
    leaf = torch.from_numpy(logits).requires_grad_()
    options: dict[str, Any] = {} if ignore_index is None else {"ignore_index": ignore_index}
    if class_weights is not None:
        options["weight"] = torch.tensor(class_weights)
    value = functional.cross_entropy(leaf, torch.from_numpy(masks), **options)
    (gradient,) = torch.autograd.grad(value, leaf)
    return {"value": float(value.detach()), "gradient": gradient.numpy()}


def _accumulated(
    micro_batches: Sequence[tuple[NDArray[Any], NDArray[Any]]], class_weights: list[float], ignore_index: int
) -> float:
    return sum(_loss(a, b, ignore_index, class_weights)["value"] / len(micro_batches) for a, b in micro_batches)


def _accumulated_sum(
    micro_batches: Sequence[tuple[NDArray[Any], NDArray[Any]]], class_weights: list[float], ignore_index: int
) -> float:
    """Divide the sum by the total weight of all labelled pixels: the documented weighted mean."""
    weights, sums, total = torch.tensor(class_weights), 0.0, 0.0
    for a, b in micro_batches:
        logits, masks = torch.from_numpy(a), torch.from_numpy(b)
        sums += float(
            functional.cross_entropy(logits, masks, weight=weights, ignore_index=ignore_index, reduction="sum")
        )
        total += float(weights[masks[masks != ignore_index]].sum())
    return sums / total


def _process_indices(images: int, processes: int, **options: Any) -> list[list[int]]:
    """Return the indices of each process, unshuffled, as in the validation of the segmentation references."""
    dataset: Any = range(images)
    return [
        list(DistributedSampler(dataset, num_replicas=processes, rank=rank, shuffle=False, **options))
        for rank in range(processes)
    ]


def _load(path: Path) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in torch.load(path).items()}


def _mask(mask: NDArray[Any]) -> tv_tensors.Mask:
    return tv_tensors.Mask(torch.from_numpy(mask))


def _resize_pair(image: NDArray[Any], mask: NDArray[Any], size: Size) -> tuple[NDArray[Any], NDArray[Any]]:
    resized, truth = v2.Resize(size)(tv_tensors.Image(torch.from_numpy(image)), _mask(mask))
    return resized.numpy(), truth.numpy()


def _resize_pair_exactly(image: NDArray[Any], mask: NDArray[Any], size: Size) -> tuple[NDArray[Any], NDArray[Any]]:
    resized = F.resize(torch.from_numpy(image), list(size))
    return resized.numpy(), _resize_image(mask, size, InterpolationMode.NEAREST_EXACT)


def _resize_image(mask: NDArray[Any], size: Size, mode: InterpolationMode) -> NDArray[Any]:
    found: NDArray[Any] = F.resize(torch.from_numpy(mask)[None], list(size), interpolation=mode)[0].numpy()
    return found


def _fills(ignore_index: int | None) -> Any:
    return 0 if ignore_index is None else {tv_tensors.Image: 0, tv_tensors.Mask: ignore_index}


def _rotate(image: NDArray[Any], mask: NDArray[Any], degrees: float, ignore_index: int | None) -> NDArray[Any]:
    turn = v2.RandomRotation((degrees, degrees), fill=_fills(ignore_index))
    found: NDArray[Any] = turn(tv_tensors.Image(torch.from_numpy(image)), _mask(mask))[1].numpy()
    return found


def _pad(image: NDArray[Any], mask: NDArray[Any], size: Size, ignore_index: int | None) -> NDArray[Any]:
    pad = v2.Pad([(size[1] - mask.shape[1]) // 2, (size[0] - mask.shape[0]) // 2], fill=_fills(ignore_index))
    found: NDArray[Any] = pad(tv_tensors.Image(torch.from_numpy(image)), _mask(mask))[1].numpy()
    return found


def _default(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **given: function(**{**given, "ignore_index": None})


def _enlarge(logits: NDArray[Any], size: Size, **options: Any) -> NDArray[Any]:
    found: NDArray[Any] = functional.interpolate(torch.from_numpy(logits)[None], size, mode="bilinear", **options)[
        0
    ].numpy()
    return found


def _train_and_serve(image: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Resize a Pillow image, as in training, and a tensor, as in deployment."""
    resize = v2.Resize((32, 32))
    resized = resize(Image.fromarray(np.ascontiguousarray(np.moveaxis(image, 0, -1))))
    return np.moveaxis(np.asarray(resized), -1, 0), resize(torch.from_numpy(image)).numpy()


def _batch_sizes(folder: Path, images: int, batch_size: int, count: int, **options: Any) -> NDArray[Any]:
    loader = DataLoader(TensorDataset(torch.zeros(images, 1)), batch_size, **options)
    sizes = [len(batch[0]) for _ in range(2) for batch in loader]
    return np.array(sizes[:count])


def _network(architecture: str) -> Any:
    return {"deeplabv3": models.segmentation.deeplabv3_resnet50}[architecture](
        weights=None, weights_backbone=None, num_classes=2
    )


def _any_size(architecture: str, size: Size) -> NDArray[Any]:
    if architecture != "deeplabv3":
        raise Unsupported(f"there is no {architecture}")
    with torch.no_grad():
        return np.array(_network(architecture).eval()(torch.rand(1, 3, *size))["out"].shape[2:])


def _train_on_one(architecture: str) -> bool:
    out = _network(architecture).train()(torch.rand(1, 3, 64, 64))["out"]
    return bool(torch.isfinite(functional.cross_entropy(out, torch.zeros(1, 64, 64).long())))


def _auxiliary() -> int:
    build = models.segmentation.deeplabv3_resnet50
    network = build(weights=None, weights_backbone=None, num_classes=4, aux_loss=True).train()
    return len([name for name in network(torch.rand(2, 3, 64, 64)) if name != "out"])


def _read_listed(folder: Path) -> list[Any]:
    images = datasets.VOCSegmentation(str(folder), year="2012", image_set="train", download=False)
    return [np.asarray(images[k][0]) for k in range(len(images))]


def _save(folder: Path) -> None:
    torch.save(torch.nn.Conv2d(3, 2, 3).state_dict(), folder / "model.pth")


def _fail(folder: Path) -> bool:
    state = {"weights": torch.zeros(100_000)}
    path = folder / "checkpoint.pt"
    torch.save(state, path)
    try:
        with full_disk(path.stat().st_size // 2):
            torch.save(state, path)
    except (OSError, RuntimeError):
        pass
    try:
        return bool(len(torch.load(path)["weights"]) == 100_000)
    except Exception:
        return False


WAYS: Ways = {
    "read_image": (
        Way("io.decode_image(mode=UNCHANGED, apply_exif_orientation=True)", partial(_read_image, orient=True)),
        Way("default: io.decode_image", _read_image),
        Way("io.decode_image(mode=RGB)", partial(_read_image, mode=ImageReadMode.RGB)),
    ),
    "read_mask": (Way("v2.PILToTensor of a Pillow image", _read_mask), Way("io.decode_image", _decode_mask)),
    "ce_loss": (Way("torch.nn.functional.cross_entropy", _loss),),
    "accumulated_ce": (
        Way(
            "cross_entropy(reduction='sum') per micro-batch, divided by the total weight of the labelled pixels",
            _accumulated_sum,
        ),
        Way(
            "cross_entropy per micro-batch, divided by their number (torch.amp examples, gradient accumulation)",
            _accumulated,
        ),
    ),
    "resize_mask": (
        Way(
            "default: v2.functional.resize of tv_tensors.Mask",
            lambda mask, size: F.resize(_mask(mask), list(size)).numpy(),
        ),
        Way(
            "v2.functional.resize(interpolation=NEAREST_EXACT) of a plain tensor",
            partial(_resize_image, mode=InterpolationMode.NEAREST_EXACT),
        ),
    ),
    "resize_pair": (
        Way("default: v2.Resize of Image and Mask", _resize_pair),
        Way("v2.functional.resize, NEAREST_EXACT for the mask as a plain tensor", _resize_pair_exactly),
    ),
    "rotate_mask": (
        Way("v2.RandomRotation(fill={Mask: 255})", _rotate),
        Way("default: v2.RandomRotation", _default(_rotate)),
    ),
    "pad_mask": (Way("v2.Pad(fill={Mask: 255})", _pad), Way("default: v2.Pad", _default(_pad))),
    "mask_to_tensor": (
        Way("tv_tensors.Mask", lambda mask: _mask(mask).numpy()),
        Way("v2.PILToTensor", lambda mask: v2.PILToTensor()(Image.fromarray(mask))[0].numpy()),
        Way("transforms.ToTensor", lambda mask: transforms.ToTensor()(Image.fromarray(mask))[0].numpy()),
    ),
    "enlarge_logits": (
        Way("default: torch.nn.functional.interpolate(mode='bilinear')", _enlarge),
        Way(
            "torch.nn.functional.interpolate(mode='bilinear', align_corners=True)",
            partial(_enlarge, align_corners=True),
        ),
    ),
    "train_and_serve": (Way("v2.Resize of a Pillow image and of a tensor, to 32×32", _train_and_serve),),
    "batch_sizes": (
        Way("torch.utils.data.DataLoader(drop_last=True)", partial(_batch_sizes, drop_last=True)),
        Way("default: torch.utils.data.DataLoader", _batch_sizes),
    ),
    "any_size": (Way("models.segmentation.deeplabv3_resnet50", _any_size),),
    "train_on_one": (Way("models.segmentation.deeplabv3_resnet50", _train_on_one),),
    "auxiliary_outputs": (Way("deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=True)", _auxiliary),),
    "read_listed": (Way("datasets.VOCSegmentation", _read_listed),),
    "load_weights": (Way("torch.load", _load),),
    "unpack": (Way("datasets.utils.extract_archive", lambda path, out: extract_archive(path, out)),),
    "process_indices": (
        Way("default: torch.utils.data.DistributedSampler", _process_indices),
        Way("torch.utils.data.DistributedSampler(drop_last=True)", partial(_process_indices, drop_last=True)),
    ),
    "save_model": (Way("torch.save(state_dict)", _save),),
    "fail_while_saving": (Way("torch.save", _fail),),
}
