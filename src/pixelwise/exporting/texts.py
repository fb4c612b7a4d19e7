"""The texts of an export folder: `README.md` with an example in plain library code, and `LICENSES.txt`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from pixelwise.exporting.files import Settings
from pixelwise.exporting.parity import Agreement
from pixelwise.models.card import ModelCard
from pixelwise.models.catalogue import ENTRIES, origin
from pixelwise.types import ModelSpec

_MAX_CLASSES = 50
_BF16 = """On processors with bf16 instructions, OpenVINO computes in bf16, unless `compile_model` gets `{"EXECUTION_MODE_HINT": "ACCURACY"}`
as its third argument.

"""
_PREDICT = """With pixelwise: `pixelwise predict FOLDER IMAGES --out MASKS`, where FOLDER is this folder. It also predicts large images, in tiles.

"""


def readme(card: ModelCard, settings: Settings, agreements: Sequence[Agreement], source: str) -> str:
    """Return the README of an export folder."""
    spec = card.spec
    names = spec.labels.names
    classes = "\n".join(f"{index} {_one_line(name)}" for index, name in enumerate(names[:_MAX_CLASSES]))
    more = f"\n… {len(names) - _MAX_CLASSES} more: see model.json" if len(names) > _MAX_CLASSES else ""
    mask = (
        "\n- `mask` (batch, height, width): the index of the class with the largest logit."
        if settings.with_mask
        else ""
    )
    rows = "\n".join(
        f"| {each.engine} | {each.precision} | {100 * (1 - each.different_pixels):.4f} % | {each.largest_logit_difference:.2g} "
        f"| {_percent(each.miou)} | {each.reference_seconds / each.seconds:.2f} |"
        for each in agreements
    )
    return f"""# {card.architecture["name"]}: {settings.format}, {settings.precision}

A segmentation model with {len(names)} classes, exported by pixelwise.

```python
{example(spec, settings)}
```

- `images` (batch, {spec.channels}, height, width), float32: raw pixel values as they are in the file{_range(spec)}, not normalised. Any
  batch, height and width.
- `logits` (batch, {len(names)}, height, width), float32: one value per class.{mask}

{_BF16 if settings.format == "openvino" else ""}{_PREDICT if settings.format != "torch-export" else ""}## Classes

```text
{classes}{more}
```

## Comparison with the original model

On {source}, with torch in fp32 as the reference (`parity.json`):

| engine | precision | equal pixels | largest logit difference | mIoU | speed ratio |
|---|---|---|---|---|---|
{rows}

The licences of weights and code are in `LICENSES.txt`.
"""


def example(spec: ModelSpec, settings: Settings) -> str:
    """Return five lines of Python that predict one image."""
    opened = {1: 'Image.open("image.png").convert("L"))[..., None]', 3: 'Image.open("image.png").convert("RGB"))'}
    if spec.channels in opened and spec.dtype in (None, "uint8"):
        library, image = "from PIL import Image", f"np.asarray({opened[spec.channels]}"
    else:
        library, image = "import tifffile", 'np.atleast_3d(tifffile.imread("image.tif"))'
    transposed = "image.astype(np.float32).transpose(2, 0, 1)[None]"
    run = {
        "onnx": (
            "onnxruntime",
            f'onnxruntime.InferenceSession("model.onnx").run(["logits"], {{"images": {transposed}}})[0]',
        ),
        "openvino": ("openvino", f'openvino.compile_model("model.xml", "CPU")({transposed})["logits"]'),
        "torch-export": (
            "torch",
            f'torch.export.load("model.pt2").module()(torch.from_numpy({transposed}))'
            + ("[0].detach().numpy()" if settings.with_mask else ".detach().numpy()"),
        ),
    }
    engine, logits = run[settings.format]
    return f"""import numpy as np, {engine}
{library}
image = {image}
logits = {logits}
mask = logits.argmax(1)[0]  # (height, width), class indices"""


def licences(card: ModelCard) -> str:
    """Return the licences of the weights and of the code of the network."""
    trained = card.trained or {}
    name = card.architecture["name"]
    library = origin(name)
    code = next((entry.license for entry in ENTRIES if entry.source == library), "MIT")
    own = "chosen by the person who trained the model" if card.license == "user" else card.license
    lines = [f"Weights: {own}."]
    if trained.get("weights", "none") != "none":
        lines.append(
            f"They were trained from the weights {trained['weights']}: {trained.get('weights_origin') or 'origin unknown'};"
            f" licence: {trained.get('weights_license') or 'unknown'}."
        )
    lines += [
        f"Code of the network {name}: {library}, {code}.",
        "Conversion: pixelwise, Apache-2.0. The file contains weights and a description of the computation, and no code.",
    ]
    return "\n".join(textwrap.fill(line, 120) for line in lines) + "\n"


def _range(spec: ModelSpec) -> str:
    if spec.typical_range is None:
        return ""
    low, high = spec.typical_range
    kind = f" of {spec.dtype}" if spec.dtype else ""
    return f" (values{kind}, mostly {low:g} to {high:g})"


def _one_line(name: str) -> str:
    """Return a class name without characters that would end a block of text."""
    return " ".join(name.replace("`", "'").split())


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"
