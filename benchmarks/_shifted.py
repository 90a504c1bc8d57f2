"""Images as another camera would have taken them: brighter, blurred or noisy, in three levels.

Three of the corruptions of Hendrycks & Dietterich 2019 ("Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations": ImageNet-C). The parameters are our own, for images of
28 x 28 pixels: ImageNet-C's five levels add 0.1 to 0.5 of white, blur by 1 to 6 pixels of 224,
and have noise of 0.08 to 0.38 of white.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, unknown_name

PARAMETERS = {
    "brightness": (25.0, 50.0, 75.0),
    "blur": (0.5, 1.0, 1.5),
    "noise": (10.0, 20.0, 40.0),
}
"""Of levels 1, 2, 3. Brightness: what is added to every value, of 255 (of gray images, whose value
in HSV is their own, that is ImageNet-C's). Blur: the Gaussian's standard deviation in pixels.
Noise: the Gaussian's standard deviation, of 255."""


def shifted(
    x: npt.NDArray[np.uint8], kind: str, level: int, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Returns shifted copies of images.

    Args:
        x: Raw images, (n, height, width, channels), uint8.
        kind: "brightness", "blur" (each channel for itself; edge pixels go on beyond the edge) or
            "noise" (of every value for itself).
        level: 1, 2 or 3: see `PARAMETERS`.
        seed: Of the noise, at least 0. The noise of an image is the same however many follow, and
            grows by level alone; the other kinds draw nothing.

    Returns:
        Images of the same shape, rounded and cut to 0 to 255.

    Raises:
        InputError: Other arrays, or no such kind or level.
    """
    from scipy import ndimage

    if kind not in PARAMETERS:
        raise unknown_name("shift", kind, PARAMETERS)
    levels = PARAMETERS[kind]
    if level not in range(1, len(levels) + 1):
        raise InputError(f"level must be 1 to {len(levels)}. Received: {level}.")
    if x.dtype != np.uint8 or x.ndim != 4:
        raise InputError(
            "Images must be uint8 of shape (n, height, width, channels). Received: "
            f"{x.dtype} of shape {x.shape}."
        )
    amount, values = levels[level - 1], x.astype(np.float64)
    if kind == "brightness":
        values += amount
    elif kind == "blur":
        values = ndimage.gaussian_filter(values, (0, amount, amount, 0), mode="nearest")
    else:
        values += np.random.default_rng(seed).normal(scale=amount, size=x.shape)
    result: npt.NDArray[np.uint8] = np.rint(values).clip(0, 255).astype(np.uint8)
    return result
