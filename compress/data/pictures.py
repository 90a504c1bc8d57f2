"""Images as records hold them, one after the other: of one size, grey while all of them are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.core.spool import Growing, chunks

Array = npt.NDArray[Any]
RESIZE = "Resize them: --resize HEIGHT,WIDTH."


class Pictures:
    """Images that come batch by batch; what is large goes to a file.

    Args:
        what: They are part of, for errors.
        resize: Height and width that all become of; None: they must have one size.
        remedy: What helps where they have not.
    """

    def __init__(
        self, what: str, resize: tuple[int, int] | None = None, remedy: str = RESIZE
    ) -> None:
        self._what, self._resize, self._remedy = what, resize, remedy
        self._grown = Growing(what)
        self._first: tuple[tuple[int, ...], str] | None = None
        self.grey = True

    def add(self, images: Sequence[Array], names: Sequence[str]) -> None:
        """Appends images.

        Args:
            images: (H, W, C) of bytes each, C 1 to 4; transparency is left out.
            names: What errors call each.

        Raises:
            InputError: One has another size than the first, or the disk is full.
        """
        plain = [self._plain(image, name) for image, name in zip(images, names, strict=True)]
        grey = all(image.shape[-1] == 1 for image in plain)
        if self.grey and not grey:
            self.colour()
        channels = 1 if self.grey else 3
        self._grown.add(np.stack([_deep(image, channels) for image in plain]))

    def colour(self) -> None:
        """Makes colour images of the grey ones so far; those to come are in colour too."""
        if not self.grey:
            return
        self.grey = False
        if not self._grown.bytes:
            return
        held, grown = self._grown.whole(), Growing(self._what)
        for part in chunks(held):
            grown.add(_deep(held[part], 3))
        self._grown = grown

    def whole(self) -> Array:
        """Returns all images, (n, H, W, 1 or 3); nothing can be added then."""
        return self._grown.whole()

    def close(self) -> None:
        """Lets the file go."""
        self._grown.close()

    def _plain(self, image: Array, name: str) -> Array:
        if image.shape[-1] in (2, 4):
            image = image[..., :-1]
        if self._resize is not None:
            return sized(image, self._resize)
        if self._first is None:
            self._first = image.shape[:2], name
        size, first = self._first
        if image.shape[:2] != size:
            raise InputError(
                f"Images must have one size. Received: {size[1]}x{size[0]} ({first}) and "
                f"{image.shape[1]}x{image.shape[0]} ({name}). {self._remedy}"
            )
        return image


def sized(image: Array, size: tuple[int, int]) -> Array:
    """Returns an image of bytes at another height and width, as those of folders are resized."""
    from PIL import Image

    if image.shape[:2] == size:
        return image
    held = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    made = np.asarray(held.resize(size[::-1], Image.Resampling.BILINEAR))
    return made.reshape(*size, image.shape[-1])


def _deep(image: Array, channels: int) -> Array:
    """Returns an image, or several, with as many channels."""
    return image if image.shape[-1] == channels else np.repeat(image, channels, axis=-1)
