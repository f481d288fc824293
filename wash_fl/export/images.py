"""Image files as raw inputs, read by Pillow."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.errors import ExportError
from wash_fl.export.text import first_line
from wash_fl.extras import install_hint

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES: Final = (".bmp", ".jpeg", ".jpg", ".png", ".webp")

# Only these of Pillow's many formats are tried: each is a parser that strangers' files could reach.
_FORMATS: Final = ("BMP", "JPEG", "PNG", "WEBP")
_PICTURES_OF_8_BITS: Final = frozenset({"1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr"})
_COLOURS: Final = {1: "L", 3: "RGB"}


def is_picture(shape: tuple[int, ...]) -> bool:
    """Tell whether one input of such a shape is a picture: ``(1 or 3, height, width)``."""
    return len(shape) == 3 and shape[0] in _COLOURS


def as_bytes(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return pixels in 0..1 as the nearest bytes."""
    return np.round(255 * pixels).astype(np.uint8)


def read_image(path: Path, shape: tuple[int, ...], *, resize: bool = False) -> NDArray[np.float32]:
    """Read one picture as a raw input of a model.

    It is turned as its EXIF data says, and becomes grey or coloured as the model needs it.

    Parameters
    ----------
    path : Path
        A BMP, JPEG, PNG or WebP file of 8 bits per channel.
    shape : tuple of int
        The shape of one input: ``(1 or 3, height, width)``.
    resize : bool
        Cut a picture of another size to the model's aspect ratio, around its centre, and scale it.

    Returns
    -------
    ndarray of float32, shape ``shape``
        In 0..1.

    Raises
    ------
    ExportError
        If the model's inputs are no pictures, Pillow is not installed, the file is not such a picture, has
        transparent or moving parts, or, unless ``resize``, is of another size.
    """
    if not is_picture(shape):
        raise ExportError(
            f"{path} is a picture, but an input of this model has the shape {shape}: a picture has "
            "(1, height, width) or (3, height, width). Give a file of another kind."
        )
    picture = _open(path)
    size = (shape[2], shape[1])
    if picture.size != size:
        if not resize:
            raise ExportError(
                f"{path} has {picture.width}x{picture.height} pixels, and the model is given "
                f"{size[0]}x{size[1]}: cut and scale it, or let --resize do it."
            )
        from PIL import ImageOps
        from PIL.Image import Resampling

        picture = ImageOps.fit(picture, size, Resampling.BILINEAR)
    pixels = np.asarray(picture.convert(_COLOURS[shape[0]]), dtype=np.float32) / np.float32(255)
    channels_first: NDArray[np.float32] = pixels.reshape(size[1], size[0], shape[0]).transpose(2, 0, 1)
    return channels_first


def _open(path: Path) -> "Image":
    """Return a picture in grey, colour or black and white, upright, decoded to the end."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise ExportError(
            f"{path} is a picture, and reading it needs Pillow: {install_hint('infer')}."
        ) from error
    try:
        # Read by ourselves, so that an OSError from here on is about the content.
        content = path.open("rb")
    except OSError as error:
        raise ExportError(f"cannot read {path} ({error.strerror}): give the path of a picture.") from error
    with content, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(content, formats=_FORMATS) as image:
                _refuse_what_is_no_photo(path, image)
                return _without_alpha(path, ImageOps.exif_transpose(image))
        except ExportError:
            raise
        except Exception as error:  # its parsers raise OSError, SyntaxError, struct.error and more
            # Its own words are of a file object that it was given.
            reason = "" if isinstance(error, UnidentifiedImageError) else f" ({first_line(error)})"
            raise ExportError(
                f"{path} is damaged or no picture{reason}: give a file of {', '.join(_FORMATS)}."
            ) from error


def _refuse_what_is_no_photo(path: Path, image: Any) -> None:
    if image.mode not in _PICTURES_OF_8_BITS:
        raise ExportError(
            f"{path} has pixels of mode {image.mode}: save it with 8 bits per channel, grey or RGB."
        )
    # A telephone's JPEG may hold a second picture, such as a depth map: the first is the photo.
    if image.format in {"PNG", "WEBP"} and getattr(image, "n_frames", 1) > 1:
        raise ExportError(f"{path} has {image.n_frames} pictures that move: save each as a file of its own.")


def _without_alpha(path: Path, picture: "Image") -> "Image":
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        if picture.getchannel("A").getextrema() != (255, 255):
            raise ExportError(
                f"{path} has transparent parts, whose colour nobody knows: save it without transparency."
            )
        return picture.convert("RGB")
    return picture
