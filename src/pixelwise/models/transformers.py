"""Networks of transformers: SegFormer by size, and all of `AutoModelForSemanticSegmentation`; nothing is downloaded."""

from __future__ import annotations

import copy
import inspect
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.models.base import AdaptedModel, missing_library, stages

# Depths and widths of the encoder, width of the decoder: Xie et al. 2021, arXiv:2105.15203, table 6.
SEGFORMER: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "segformer-b0": ((2, 2, 2, 2), (32, 64, 160, 256), 256),
    "segformer-b1": ((2, 2, 2, 2), (64, 128, 320, 512), 256),
    "segformer-b2": ((3, 4, 6, 3), (64, 128, 320, 512), 768),
    "segformer-b3": ((3, 4, 18, 3), (64, 128, 320, 512), 768),
    "segformer-b4": ((3, 8, 27, 3), (64, 128, 320, 512), 768),
    "segformer-b5": ((3, 6, 40, 3), (64, 128, 320, 512), 768),
}
_STRIDE = 32
# Hooks registered during a forward pass affect concurrent calls, which are therefore serialised.
_HOOK_LOCK = threading.RLock()
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"


class TransformersModel(AdaptedModel):
    """A semantic segmentation network of transformers.

    Its model folder is also a transformers checkpoint: tensors keep the names of the library.

    Args:
        name: one of `SEGFORMER`, or any name if `config` is given.
        config: content of its config.json, with `model_type`.
        in_channels, num_classes, mean, std, clip: as for `SegmentationModel`.

    Raises:
        ConfigError: no such network, or the library is not installed.
    """

    def __init__(
        self,
        name: str = "transformers",
        config: Mapping[str, Any] | None = None,
        in_channels: int = 3,
        num_classes: int = 2,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        clip: Sequence[Sequence[float]] | None = None,
    ) -> None:
        if not config and name not in SEGFORMER:
            raise ConfigError(
                "model.config",
                expected="the config.json of a transformers network",
                found="none",
                do=f"Use a folder with a checkpoint as --model, or one of {', '.join(SEGFORMER)}.",
            )
        network: Any = _network(name, config or _segformer(name), max(in_channels, 1), max(num_classes, 1))
        super().__init__(network, in_channels, num_classes, _stride(network.config), mean, std, clip)
        # Networks with position embeddings accept other sizes only with this option.
        interpolates = "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if interpolates else {}

    @property
    def head(self) -> nn.Module:  # type: ignore[override]
        """The layer that computes the logits: a classifier, or the last convolution with as many outputs as classes."""
        candidates = {n: m for n, m in self.network.named_modules() if _computes_logits(n, m, self.num_classes)}
        classifiers = [module for name, module in candidates.items() if "classifier" in name]
        return (classifiers or list(candidates.values()))[-1]

    def encoder_stages(self) -> tuple[tuple[str, ...], ...]:
        """Return the blocks of the backbone in order."""
        names = (self.network.base_model_prefix, "backbone")
        found = next((name for name in names if name and hasattr(self.network, name)), None)
        return stages(getattr(self.network, found), f"network.{found}.") if found else ()

    def tensors_for_files(self) -> dict[str, Tensor]:
        """Return the tensors as `save_pretrained` names them; those of `normalise` are stored in the JSON files."""
        from transformers.core_model_loading import revert_weight_conversion

        return dict(revert_weight_conversion(self.network, self.network.state_dict()))

    def tensors_from_files(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename tensors as `from_pretrained` does, since files may use the names of older versions."""
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming, apply_renamings

        mapping = get_model_conversion_mapping(self.network)
        renamings = [transform for transform in mapping if isinstance(transform, WeightRenaming)]
        return {f"network.{apply_renamings(name, renamings)}": tensor for name, tensor in tensors.items()}

    def files_of_its_library(self, classes: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the configuration and the processor with which transformers reads the model folder.

        The processors of transformers cannot clip: its users must clip values themselves, to the range in `model.json`.
        """
        settings = copy.deepcopy(self.network.config)
        settings.id2label = dict(enumerate(classes))
        settings.label2id = {name: k for k, name in enumerate(classes)}
        settings.architectures = [type(self.network).__name__]
        mean, std = ([v / 255 for v in values.tolist()] for values in (self.normalise.mean, self.normalise.std))
        processor: dict[str, Any] = {
            "do_resize": False,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_reduce_labels": False,
            "do_flip_channel_order": False,
            "do_normalize": True,
            "image_mean": mean,
            "image_std": std,
        }
        return {CONFIG: settings.to_diff_dict(), PROCESSOR: processor}

    @property
    def separable(self) -> bool:
        """Whether `encode` and `decode` exist: only for SegFormer."""
        return bool(self.network.config.model_type == "segformer")

    def _features(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network.segformer(x, output_hidden_states=True).hidden_states)

    def _decoded(self, features: Sequence[Tensor], size: Sequence[int]) -> tuple[Tensor, ...]:
        return (self.network.decode_head(features),)

    def _logits(self, x: Tensor) -> tuple[Tensor, ...]:
        network = self.network
        auxiliary = getattr(network, "auxiliary_head", None) if self.training else None
        # The neck of DPT assumes a square grid of patches unless it gets the size.
        neck = network.neck if network.config.model_type == "dpt" else None
        if auxiliary is None and neck is None:
            return (network(pixel_values=x, **self.options).logits,)
        auxiliary_logits: list[Tensor] = []
        hooks = []
        with _HOOK_LOCK:
            if auxiliary is not None:
                # The library computes these logits but does not return them.
                hooks.append(auxiliary.register_forward_hook(lambda _, __, logits: auxiliary_logits.append(logits)))
            if neck is not None:
                patch = network.config.patch_size
                grid = {"patch_height": x.shape[2] // patch, "patch_width": x.shape[3] // patch}
                hooks.append(
                    neck.register_forward_pre_hook(lambda _, args, given: (args, given | grid), with_kwargs=True)
                )
            try:
                return (network(pixel_values=x, **self.options).logits, *auxiliary_logits)
            finally:
                for hook in hooks:
                    hook.remove()


def _stride(settings: Any) -> int:
    """Return the stride in pixels: 32, or a multiple that the patch size divides."""
    sizes = [getattr(part, "patch_size", None) for part in (settings, getattr(settings, "backbone_config", None))]
    return math.lcm(_STRIDE, *(size for size in sizes if isinstance(size, int)))


def _computes_logits(name: str, module: nn.Module, classes: int) -> bool:
    return isinstance(module, nn.Conv2d) and module.out_channels == classes and "auxiliary" not in name


def _segformer(name: str) -> dict[str, Any]:
    depths, widths, decoder = SEGFORMER[name]
    sizes = {"depths": list(depths), "hidden_sizes": list(widths), "decoder_hidden_size": decoder}
    return {"model_type": "segformer", **sizes}


def _network(name: str, config: Mapping[str, Any], bands: int, classes: int) -> nn.Module:
    try:
        from huggingface_hub.errors import StrictDataclassError
        from transformers import AutoConfig, AutoModelForSemanticSegmentation
    except ImportError as error:
        raise missing_library(name, "transformers") from error
    plain = dict(config)
    kind = plain.pop("model_type", None)
    try:
        if isinstance(plain.get("backbone_config"), Mapping):
            plain["backbone_config"] = {**plain["backbone_config"], "num_channels": bands}
        settings = AutoConfig.for_model(kind, **plain | {"num_channels": bands, "num_labels": classes})
        network: nn.Module = AutoModelForSemanticSegmentation.from_config(settings)  # type: ignore[no-untyped-call]
    except (ValueError, KeyError, TypeError, StrictDataclassError) as error:
        raise ConfigError(
            f"model {name}",
            expected="a semantic segmentation network of transformers",
            found=" ".join(str(error).split())[:200],
            do="See `pixelwise models`.",
        ) from error
    for module in network.modules():
        # The library caches these tensors; created in inference mode, they cannot be used for training.
        cached: Any = getattr(type(module), "generate_relative_position_index", None)
        if hasattr(cached, "__wrapped__"):
            module.generate_relative_position_index = cached.__wrapped__
    return network
