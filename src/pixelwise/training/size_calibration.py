"""Images of the validation split that are set aside to calibrate intervals of sizes, and their calibration.

They choose neither the checkpoint nor the temperature, and are not scored: `measuring.conformal` needs images that served no other
purpose. Which images those are is decided by `datasets.set_aside`.
"""

from __future__ import annotations

from collections.abc import Callable

from pixelwise.config import Config
from pixelwise.config import replace as with_values
from pixelwise.datasets.dataset import Dataset
from pixelwise.errors import ConfigError, DataError
from pixelwise.evaluation import Evaluation, ImagePredictor, evaluate
from pixelwise.measuring.conformal import HOW_TO_ADD, ImageSizes, SizeCalibration, calibrate, fewest_units
from pixelwise.measuring.size_counts import SizeRecorder

KEY = "train.size_calibration"
# Of the validation images or groups. A quarter makes intervals of scores 15 % wider, a third 22 %.
_SHARE, _LARGEST_SHARE = 4, 3
# With fewer than 19, the limit of a 90 % interval is the largest error seen. From 199 on, coverage varies by 2 points at most
# between draws of the calibration images.
_FEWEST, _MOST = 19, 199


def plan_size_calibration(config: Config, val: Dataset) -> tuple[Config, str, str | None]:
    """Set how many images of the validation split, or groups of images, are set aside, unless it is set.

    Returns:
        The configuration, the reason ("" if the user set the number), and a notice if there are too few.

    Raises:
        ConfigError: the user set a number that the split does not allow.
    """
    given, units = config.train.size_calibration, val.groups()
    what = "groups" if any(record.group is not None for record in val.records) else "images"
    if given is not None:
        if given and not fewest_units() <= given < units:
            raise ConfigError(
                KEY,
                expected=f"0, or {fewest_units()} or more and fewer than the {units} validation {what}",
                found=str(given),
                do=f"Add validation {what}, or set it to 0 and calibrate on other images: {HOW_TO_ADD}",
            )
        return config, "", None
    needed = _LARGEST_SHARE * _FEWEST
    if units < needed:
        reason = f"{units} of {needed} validation {what} that intervals of sizes need"
        notice = (
            f"sizes will have no intervals: {needed} validation {what} are needed to set some aside, found {units}. To add them "
            f"with other labelled images: {HOW_TO_ADD}"
        )
        return with_values(config, train={"size_calibration": 0}), reason, notice
    count = min(max(units // _SHARE, _FEWEST), _MOST)
    reason = f"of {units} validation {what}, set aside for intervals of sizes and used for nothing else"
    return with_values(config, train={"size_calibration": count}), reason, None


def calibrated_sizes(
    scored: ImageSizes,
    images: Dataset,
    predictor: ImagePredictor,
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], None] | None = None,
) -> SizeCalibration | None:
    """Predict the images that were set aside, and calibrate the intervals of sizes.

    Args:
        scored: sizes in the images that were scored, on which the kind of score is chosen.
        images: the images that were set aside.
        predictor: of the finished model.
        progress: called with (images done, number of images).
        stop: called before each image; may raise to interrupt.

    Returns:
        The calibration; None if no image has annotated pixels.
    """
    if not len(images):
        return None
    recorder = SizeRecorder(images.labels.num_classes)
    try:
        result: Evaluation = evaluate(
            images, predictor, metrics=(), intervals=False, progress=progress, stop=stop, keep=recorder.keep
        )
    except DataError:  # they have only ignored pixels
        if len(recorder.found) < len(images):
            raise
        return None
    return calibrate(scored, recorder.sizes(result.images))
