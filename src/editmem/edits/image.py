"""Pictures of edits: taken in any usual form, kept as PNG."""

import base64
import binascii
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from editmem.errors import InvalidEditError

if TYPE_CHECKING:
    from PIL.Image import Image

TURN, ZOOM = 12, 1.12
"""Of other views: degrees, and how much larger."""
EXPECTED = "a PIL image, a uint8 array of shape [height, width, 3], the path of a picture, or a Picture"


@dataclass(frozen=True)
class Picture:
    """A picture in RGB.

    Attributes:
        png: the file, as bytes.

    Examples:
        >>> import editmem, numpy
        >>> editmem.Picture.of(numpy.zeros((4, 6, 3), numpy.uint8)).array().shape
        (4, 6, 3)
    """

    png: bytes

    @classmethod
    def of(cls, source: Any) -> "Picture":
        """A picture from a PIL image, a uint8 array `[H, W, 3]`, a path, or what `to_dict` returns.

        Raises:
            InvalidEditError: if it is none of these, or cannot be read.
        """
        if isinstance(source, cls):
            return source
        if isinstance(source, Mapping) and set(source) == {"png"}:
            return cls._decoded(str(source["png"]))
        image = _pil()
        if isinstance(source, np.ndarray):
            if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
                raise InvalidEditError(f"image: expected {EXPECTED}, got {source.dtype} of shape {source.shape}")
            source = image.fromarray(source)
        elif isinstance(source, (str, Path)):
            try:
                source = image.open(source)
            except (OSError, ValueError) as error:
                raise InvalidEditError(f"image: cannot read a picture from {str(source)!r}: {error}") from None
        if not isinstance(source, image.Image):
            raise InvalidEditError(f"image: expected {EXPECTED}, got {type(source).__name__}")
        file = io.BytesIO()
        source.convert("RGB").save(file, format="PNG")
        return cls(file.getvalue())

    @classmethod
    def _decoded(cls, text: str) -> "Picture":
        try:
            picture = cls(base64.b64decode(text, validate=True))
            picture.pil().load()
        except (binascii.Error, OSError) as error:
            raise InvalidEditError(f"image: not a PNG file in base64: {error}") from None
        return picture

    @property
    def digest(self) -> str:
        """Equal for equal pictures, different for others."""
        return hashlib.sha256(self.png).hexdigest()[:12]

    def pil(self) -> "Image":
        """As a PIL image."""
        return _pil().open(io.BytesIO(self.png), formats=["PNG"]).convert("RGB")

    def array(self) -> NDArray[np.uint8]:
        """As uint8 `[H, W, 3]`."""
        return np.asarray(self.pil())

    def views(self) -> "list[Picture]":
        """It, and as it would look turned a little, from nearer and from farther; the ground is carried on."""
        image, pixels = self.pil(), self.array()
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        ground = tuple(int(value) for value in np.median(border, axis=0))
        bilinear = _pil().Resampling.BILINEAR
        turned = [image.rotate(angle, bilinear, fillcolor=ground) for angle in (TURN, -TURN)]
        sizes = [(1 / scale, 0, (1 - 1 / scale) * image.width / 2, 0, 1 / scale, (1 - 1 / scale) * image.height / 2)
                 for scale in (ZOOM, 1 / ZOOM)]  # fmt: skip
        method = _pil().Transform.AFFINE
        zoomed = [image.transform(image.size, method, size, bilinear, fillcolor=ground) for size in sizes]
        return [self, *(Picture.of(view) for view in (*turned, *zoomed))]

    def to_dict(self) -> dict[str, str]:
        """As JSON can hold it."""
        return {"png": base64.b64encode(self.png).decode()}

    def __repr__(self) -> str:
        return f"Picture({self.digest})"


def _pil() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise InvalidEditError("pictures need Pillow: pip install 'editmem[vision]'") from error
    return Image
