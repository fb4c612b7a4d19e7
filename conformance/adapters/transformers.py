"""transformers: image processors, networks, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    Mask2FormerImageProcessor,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    SegformerImageProcessorPil,
)
from transformers.image_utils import load_image
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.models.mask2former.modeling_mask2former import Mask2FormerForUniversalSegmentationOutput
from transformers.utils import logging

from conformance.adapters import Way, Ways
from conformance.case import Unsupported
from conformance.disk import full_disk

Size = tuple[int, int]
logging.disable_progress_bar()


def _read_image(path: Path) -> NDArray[Any]:
    return np.moveaxis(np.asarray(load_image(str(path))), -1, 0)


def _labels(mask: NDArray[Any], make: Callable[..., Any] = SegformerImageProcessor, **options: Any) -> NDArray[Any]:
    """Return the labels that a processor makes from a segmentation map."""
    image = np.zeros((*mask.shape, 3), np.uint8)
    return np.asarray(make(**options)(images=image, segmentation_maps=mask, return_tensors="np")["labels"][0])


def _resize(mask: NDArray[Any], size: Size, make: Callable[..., Any] = SegformerImageProcessor) -> NDArray[Any]:
    return _labels(mask, make, size={"height": size[0], "width": size[1]})


def _resize_pair(image: NDArray[Any], mask: NDArray[Any], size: Size) -> tuple[NDArray[Any], NDArray[Any]]:
    processor = SegformerImageProcessor(
        size={"height": size[0], "width": size[1]}, do_normalize=False, do_rescale=False
    )
    found = processor(images=np.moveaxis(image, 0, -1), segmentation_maps=mask, return_tensors="np")
    return found["pixel_values"][0], found["labels"][0]


def _post(logits: torch.Tensor, size: Size | None) -> NDArray[Any]:
    sizes = None if size is None else [size]
    outputs = SemanticSegmenterOutput(logits=logits)
    found: NDArray[Any] = (
        SegformerImageProcessor().post_process_semantic_segmentation(outputs, target_sizes=sizes)[0].numpy()
    )
    return found


def _queries(logits: NDArray[Any], size: Size) -> NDArray[Any]:
    """Post-process the same logits as query masks, one query per class, as in Mask2Former."""
    classes = torch.full((1, len(logits), len(logits) + 1), -60.0)
    classes[0, range(len(logits)), range(len(logits))] = 60.0
    outputs = Mask2FormerForUniversalSegmentationOutput(
        class_queries_logits=classes, masks_queries_logits=torch.from_numpy(logits)[None]
    )
    found: NDArray[Any] = (
        Mask2FormerImageProcessor().post_process_semantic_segmentation(outputs, target_sizes=[size])[0].numpy()
    )
    return found


def _decide_image(image: NDArray[Any], network: Callable[..., torch.Tensor], **options: Any) -> NDArray[Any]:
    processor = SegformerImageProcessor(do_normalize=False, do_rescale=False, **options)
    inputs = processor(images=np.moveaxis(image, 0, -1), return_tensors="pt")["pixel_values"]
    return _post(network(inputs), image.shape[1:])


def _train_and_serve(image: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Resize with both implementations of the processor."""
    options: dict[str, Any] = {"size": {"height": 32, "width": 32}, "do_normalize": False, "do_rescale": False}
    pixels = np.moveaxis(image, 0, -1)
    first, second = (
        np.asarray(make(**options)(images=pixels, return_tensors="np")["pixel_values"][0])
        for make in (SegformerImageProcessor, SegformerImageProcessorPil)
    )
    return first, second


def _network() -> Any:
    config = SegformerConfig(num_labels=2, depths=[1, 1, 1, 1], hidden_sizes=[16, 16, 16, 16], decoder_hidden_size=16)
    return SegformerForSemanticSegmentation(config)


def _any_size(architecture: str, size: Size, post: bool) -> NDArray[Any]:
    if architecture != "segformer":
        raise Unsupported(f"there is no {architecture} here")
    with torch.no_grad():
        logits = _network().eval()(torch.rand(1, 3, *size)).logits
    return np.array(_post(logits, size).shape if post else logits.shape[2:])


def _save(folder: Path) -> None:
    _network().save_pretrained(folder / "model")


def _fail(folder: Path) -> bool:
    network = _network()
    network.save_pretrained(folder / "model")
    weights = folder / "model" / "model.safetensors"
    try:
        with full_disk(weights.stat().st_size // 2):
            network.save_pretrained(folder / "model")
    except Exception:  # only the state of the previous file matters
        pass
    try:
        SegformerForSemanticSegmentation.from_pretrained(folder / "model")
    except Exception:
        return False
    return True


WAYS: Ways = {
    "read_image": (Way("image_utils.load_image", _read_image),),
    "reduce_labels": (
        Way(
            "SegformerImageProcessor(do_reduce_labels=True)",
            lambda ids: _labels(ids, do_reduce_labels=True, do_resize=False),
        ),
        Way(
            "SegformerImageProcessorPil(do_reduce_labels=True)",
            lambda ids: _labels(ids, SegformerImageProcessorPil, do_reduce_labels=True, do_resize=False),
        ),
    ),
    "resize_mask": (
        Way("SegformerImageProcessor", _resize),
        Way("SegformerImageProcessorPil", partial(_resize, make=SegformerImageProcessorPil)),
    ),
    "resize_pair": (Way("SegformerImageProcessor", _resize_pair),),
    "mask_to_tensor": (Way("SegformerImageProcessor(do_resize=False)", lambda mask: _labels(mask, do_resize=False)),),
    "decide": (
        Way(
            "SegformerImageProcessor.post_process_semantic_segmentation(target_sizes=…)",
            lambda logits, size: _post(torch.from_numpy(logits)[None], size),
        ),
        Way(
            "default: SegformerImageProcessor.post_process_semantic_segmentation",
            lambda logits, size: _post(torch.from_numpy(logits)[None], None),
        ),
        Way("Mask2FormerImageProcessor.post_process_semantic_segmentation(target_sizes=…)", _queries),
    ),
    "decide_image": (
        Way("SegformerImageProcessor(do_resize=False)", partial(_decide_image, do_resize=False)),
        Way("default: SegformerImageProcessor", _decide_image),
    ),
    "train_and_serve": (Way("SegformerImageProcessor and SegformerImageProcessorPil, to 32×32", _train_and_serve),),
    "any_size": (
        Way(
            "SegformerForSemanticSegmentation, post_process_semantic_segmentation(target_sizes=…)",
            partial(_any_size, post=True),
        ),
        Way("default: SegformerForSemanticSegmentation", partial(_any_size, post=False)),
    ),
    "save_model": (Way("SegformerForSemanticSegmentation.save_pretrained", _save),),
    "fail_while_saving": (Way("SegformerForSemanticSegmentation.save_pretrained", _fail),),
}
