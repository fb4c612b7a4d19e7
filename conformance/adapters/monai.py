"""MONAI: metrics and losses on one-hot masks, array transforms, image reader, sliding windows, networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.apps import extractall
from monai.data import DistributedSampler
from monai.inferers import sliding_window_inference
from monai.losses import DiceLoss, FocalLoss
from monai.metrics import ConfusionMatrixMetric, MeanIoU, do_metric_reduction
from monai.networks import one_hot, save_state
from monai.networks.blocks import UpSample
from monai.networks.nets import BasicUNet, UNet
from monai.transforms import LoadImage, Resize, Rotate, SpatialPad
from numpy.typing import NDArray

from conformance.adapters import Way, Ways
from conformance.buffers import LargestBuffer
from conformance.case import Unsupported

Masks = Sequence[NDArray[Any]]
Size = tuple[int, int]
Network = Callable[[torch.Tensor], torch.Tensor]


def _hot(mask: NDArray[Any], classes: int, ignore_index: int | None = None) -> torch.Tensor:
    """Return a one-hot mask without a class at ignored pixels, as `metrics.utils.create_ignore_mask` documents."""
    valid = mask != ignore_index
    indices = np.where(valid, mask, 0).astype(np.int64)
    return one_hot(torch.from_numpy(indices)[None, None], classes) * torch.from_numpy(valid)


def _miou(
    truths: Masks, predictions: Masks, num_classes: int, ignore_index: int | None = None, **options: Any
) -> float:
    metric = MeanIoU(ignore_index=ignore_index, **options)
    for truth, prediction in zip(truths, predictions, strict=True):
        metric(_hot(prediction, num_classes), _hot(truth, num_classes, ignore_index))
    return _mean(metric)


def _threat(truths: Masks, predictions: Masks, num_classes: int, ignore_index: int | None = None) -> float:
    metric = _threat_score(ignore_index)
    for truth, prediction in zip(truths, predictions, strict=True):
        metric(_hot(prediction, num_classes), _hot(truth, num_classes, ignore_index))
    return _mean(metric)


def _threat_score(ignore_index: int | None = None) -> ConfusionMatrixMetric:
    """Sum the counts over all images before dividing; the threat score is the IoU."""
    return ConfusionMatrixMetric(metric_name="threat score", reduction="sum_batch", ignore_index=ignore_index)


def _mean(metric: MeanIoU | ConfusionMatrixMetric) -> float:
    found: Any = metric.aggregate()
    return float((found[0] if isinstance(found, list) else found).nanmean())


def _batched(
    truths: Masks,
    predictions: Masks,
    num_classes: int,
    batch_size: int,
    *,
    make: Callable[[], MeanIoU | ConfusionMatrixMetric],
) -> float:
    metric = make()
    for k in range(0, len(truths), batch_size):
        pair = [
            torch.cat([_hot(mask, num_classes) for mask in masks[k : k + batch_size]])
            for masks in (predictions, truths)
        ]
        metric(*pair)
    return _mean(metric)


def _right_pixels(truths: Masks, predictions: Masks, num_classes: int) -> int:
    metric = ConfusionMatrixMetric()
    for truth, prediction in zip(truths, predictions, strict=True):
        metric(_hot(prediction, num_classes), _hot(truth, num_classes))
    counts, _ = do_metric_reduction(metric.get_buffer(), "sum_batch")
    return sum(int(found) for found in counts[:, 0])


def _process_indices(images: int, processes: int, **options: Any) -> list[list[int]]:
    dataset: Any = range(images)
    return [
        list(DistributedSampler(dataset, num_replicas=processes, rank=rank, shuffle=False, **options))
        for rank in range(processes)
    ]


def _loss(make: Callable[..., Any], **fixed: Any) -> Callable[..., dict[str, Any]]:
    def call(
        logits: NDArray[Any], masks: NDArray[Any], ignore_index: int | None, class_weights: Any = None
    ) -> dict[str, Any]:
        leaf = torch.from_numpy(logits).requires_grad_()
        value = make(**fixed, ignore_index=ignore_index)(leaf, torch.from_numpy(masks)[:, None])
        (gradient,) = torch.autograd.grad(value, leaf)
        return {"value": float(value.detach()), "gradient": gradient.numpy()}

    return call


def _read_image(path: Path) -> NDArray[Any]:
    read = LoadImage(reader="PILReader", image_only=True, ensure_channel_first=True, reverse_indexing=False)
    return np.asarray(read(path))


def _read_mask(path: Path, ids: Any, ignored: Any) -> NDArray[Any]:
    return np.asarray(LoadImage(reader="PILReader", image_only=True, reverse_indexing=False)(path))


def _resize(mask: NDArray[Any], size: Size, mode: str) -> NDArray[Any]:
    return np.asarray(Resize(size, mode=mode)(mask[None]))[0]


def _resize_pair(image: NDArray[Any], mask: NDArray[Any], size: Size, mode: str) -> tuple[NDArray[Any], NDArray[Any]]:
    return np.asarray(Resize(size, mode="bilinear")(image)), _resize(mask, size, mode)


def _rotate(image: NDArray[Any], mask: NDArray[Any], degrees: float, ignore_index: int, padding: str) -> NDArray[Any]:
    turn = Rotate(np.radians(degrees), mode="nearest", padding_mode=padding)
    return np.asarray(turn(mask[None].astype(np.float32)))[0]


def _pad(image: NDArray[Any], mask: NDArray[Any], size: Size, ignore_index: int, **options: Any) -> NDArray[Any]:
    return np.asarray(SpatialPad(size, **options)(mask[None]))[0]


def _enlarge(logits: NDArray[Any], size: Size, **options: Any) -> NDArray[Any]:
    block = UpSample(2, 1, 1, scale_factor=size[1] // logits.shape[2], mode="nontrainable", pre_conv=None, **options)
    found: NDArray[Any] = block(torch.from_numpy(logits)[None])[0].numpy()
    return found[:, : size[0]]


def _tiled(
    image: NDArray[Any],
    network: Network,
    tile: Size,
    overlap: float,
    batch_size: int,
    *,
    softmax_first: bool = True,
    **options: Any,
) -> NDArray[Any]:
    """Blend probabilities (with `softmax_first`, in the predictor) or logits."""
    predictor = (lambda x: network(x).softmax(1)) if softmax_first else network
    images = torch.from_numpy(image)[None].float()
    found = sliding_window_inference(images, tile, batch_size, predictor, overlap, **options)
    assert isinstance(found, torch.Tensor)
    return (found if softmax_first else found.softmax(1))[0].numpy()


def _decide(image: NDArray[Any], network: Network) -> NDArray[Any]:
    return _tiled(image, network, (128, 128), 0.25, 1, mode="gaussian").argmax(0)


def _largest(size: Size, num_classes: int, tile: Size) -> float:
    with LargestBuffer() as largest:
        _tiled(np.zeros((1, *size), np.uint8), lambda x: torch.zeros(len(x), num_classes, *x.shape[2:]), tile, 0.25, 1)
    return largest.values / (num_classes * size[0] * size[1])


def _any_size(architecture: str, size: Size, *, make: Callable[[], Any]) -> NDArray[Any]:
    if architecture != "unet":
        raise Unsupported(f"there is no {architecture}")
    with torch.no_grad():
        return np.array(make().eval()(torch.rand(1, 3, *size)).shape[2:])


def _unet() -> Any:
    return UNet(2, 3, 2, channels=(8, 16, 32, 64), strides=(2, 2, 2))


def _save(folder: Path) -> None:
    save_state(_unet(), folder / "model.pt")


WAYS: Ways = {
    "miou": (
        Way("metrics.ConfusionMatrixMetric(metric_name='threat score', reduction='sum_batch')", _threat),
        Way("default: metrics.MeanIoU", _miou),
        Way("metrics.MeanIoU(reduction='mean_batch')", partial(_miou, reduction="mean_batch")),
        Way("metrics.MeanIoU(include_background=False)", partial(_miou, include_background=False)),
        Way("metrics.MeanIoU(ignore_empty=False)", partial(_miou, ignore_empty=False)),
    ),
    "miou_batched": (
        Way(
            "metrics.ConfusionMatrixMetric(metric_name='threat score', reduction='sum_batch')",
            partial(_batched, make=_threat_score),
        ),
        Way("metrics.MeanIoU", partial(_batched, make=MeanIoU)),
    ),
    "right_pixels": (Way("metrics.ConfusionMatrixMetric, do_metric_reduction('sum_batch')", _right_pixels),),
    "process_indices": (
        Way("data.DistributedSampler(even_divisible=False)", partial(_process_indices, even_divisible=False)),
        Way("default: data.DistributedSampler", _process_indices),
    ),
    "dice_loss": (
        Way(
            "losses.DiceLoss(softmax=True, to_onehot_y=True, batch=True)",
            _loss(DiceLoss, softmax=True, to_onehot_y=True, batch=True),
        ),
        Way("losses.DiceLoss(softmax=True, to_onehot_y=True)", _loss(DiceLoss, softmax=True, to_onehot_y=True)),
    ),
    "focal_loss": (
        Way(
            "losses.FocalLoss(use_softmax=True, to_onehot_y=True)", _loss(FocalLoss, use_softmax=True, to_onehot_y=True)
        ),
    ),
    "read_image": (Way("transforms.LoadImage(reader='PILReader', reverse_indexing=False)", _read_image),),
    "read_mask": (Way("transforms.LoadImage(reader='PILReader', reverse_indexing=False)", _read_mask),),
    "resize_mask": tuple(
        Way(f"transforms.Resize(mode={m!r})", partial(_resize, mode=m)) for m in ("nearest-exact", "nearest")
    ),
    "resize_pair": tuple(
        Way(f"transforms.Resize(mode={m!r})", partial(_resize_pair, mode=m)) for m in ("nearest-exact", "nearest")
    ),
    "rotate_mask": tuple(
        Way(f"transforms.Rotate(padding_mode={p!r})", partial(_rotate, padding=p))
        for p in ("border", "zeros", "reflection")
    ),
    "pad_mask": (
        Way(
            "transforms.SpatialPad(constant_values=255)",
            lambda **given: _pad(**given, constant_values=given["ignore_index"]),
        ),
        Way("default: transforms.SpatialPad", _pad),
    ),
    "enlarge_logits": (
        Way(
            "networks.blocks.UpSample(mode='nontrainable', align_corners=False)", partial(_enlarge, align_corners=False)
        ),
        Way("default: networks.blocks.UpSample(mode='nontrainable')", _enlarge),
    ),
    "tiled": (
        Way(
            "sliding_window_inference(mode='gaussian', padding_mode='reflect'), softmax in the predictor",
            partial(_tiled, mode="gaussian", padding_mode="reflect"),
        ),
        Way("sliding_window_inference(mode='gaussian'), softmax in the predictor", partial(_tiled, mode="gaussian")),
        Way("default: sliding_window_inference", partial(_tiled, softmax_first=False)),
    ),
    "decide_image": (Way("sliding_window_inference", _decide),),
    "largest_buffer": (Way("sliding_window_inference", _largest),),
    "tiling_settings": (Way("sliding_window_inference", lambda: sliding_window_inference),),
    "any_size": (
        Way(
            "networks.nets.BasicUNet",
            partial(_any_size, make=lambda: BasicUNet(2, 3, 2, features=(8, 8, 16, 32, 64, 8))),
        ),
        Way("networks.nets.UNet", partial(_any_size, make=_unet)),
    ),
    "unpack": (Way("apps.extractall", lambda path, out: extractall(path, out)),),
    "save_model": (Way("networks.save_state", _save),),
}
