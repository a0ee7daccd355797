"""From the address of an image to pixels that a vision model takes.

Images come from strangers: decoders are native code, and a few bytes can stand for
gigabytes of pixels or minutes of drawing. Sizes are checked before anything is decoded,
and all of it runs in a :class:`~paddler.agent.worker.bounded.BoundedProcess`.
"""

import base64
import binascii
import io
import re
import warnings
from collections.abc import Sequence
from typing import Final
from xml.etree import ElementTree

import resvg_py
from msgspec import Struct
from PIL import Image, ImageOps, UnidentifiedImageError

# Stands in a rendered prompt where an image goes; what llama.cpp's own tools use.
IMAGE_MARKER: Final = "<__media__>"

# Declared width times height. Cameras in common use stay below; 4 bytes each while decoding.
MAX_PIXELS: Final = 50_000_000
# Preprocessors divide by the shorter side; Qwen2-VL's own code draws the line here, too.
MAX_ASPECT_RATIO: Final = 200

_REMOTE: Final = (
    "Remote image URLs are not supported. Use base64 data URIs (data:image/...;base64,...) instead."
)
UNDECODABLE: Final = "Failed to convert image to PNG"

_FORMATS: Final = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
_ALLOWED: Final = ", ".join(_FORMATS) + ", SVG"
# Common formats that are not served, by what their files hold from the given place on.
_UNSUPPORTED: Final = (
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIF"),
    (4, b"ftypmif1", "HEIF"),
    (0, b"%PDF-", "PDF"),
    (0, b"8BPS", "PSD"),
    (0, b"\x00\x00\x01\x00", "ICO"),
)

# CSS pixels per unit; em and ex at the font size of 16 that SVGs start with.
_SVG_UNITS: Final = {
    "": 1.0,
    "px": 1.0,
    "pt": 96 / 72,
    "pc": 16.0,
    "in": 96.0,
    "cm": 96 / 2.54,
    "mm": 96 / 25.4,
    "em": 16.0,
    "ex": 8.0,
}
_SVG_LENGTH: Final = re.compile(r"\s*\+?(\d*\.?\d+(?:[eE][+-]?\d+)?)([a-z]*)\s*")


class ImageRefused(Exception):
    """The image cannot be used; the message says why."""


class RgbImage(Struct, frozen=True):
    """Three bytes for each pixel, row by row from the top."""

    width: int
    height: int
    pixels: bytes


def prepare_images(urls: Sequence[str], *, max_side: int) -> list[RgbImage]:
    """The images behind ``data:`` addresses, none larger than ``max_side`` in any direction.

    Raises :class:`ImageRefused` for the first that cannot be used.
    """
    return [prepare_image(decode_data_uri(url), max_side=max_side) for url in urls]


def decode_data_uri(url: str) -> bytes:
    """What a ``data:`` address holds: base64 after the first comma, whatever stands before."""
    if not url.startswith("data:"):
        raise ImageRefused(_REMOTE)
    _, comma, payload = url.partition(",")
    if not comma:
        raise ImageRefused("Invalid data URI: missing comma separator")
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: not ASCII
        raise ImageRefused(f"Invalid base64 payload: {error}") from error


def prepare_image(data: bytes, *, max_side: int) -> RgbImage:
    """Decode an image file and scale it down, never up, to fit ``max_side`` both ways.

    The format is told from the bytes alone. Of an animation, the first frame counts; what
    is transparent becomes white.
    """
    try:
        if data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
            data = _rasterize(data, max_side)
        return _decode(data, max_side)
    except ImageRefused:
        raise
    except Exception as error:  # Decoders raise anything over broken files.
        raise ImageRefused(f"{UNDECODABLE}: {str(error) or type(error).__name__}") from error


def _decode(data: bytes, max_side: int) -> RgbImage:
    for start, magic, name in _UNSUPPORTED:
        if data.startswith(magic, start):
            raise ImageRefused(f"Unsupported image format: {name}; send one of {_ALLOWED}")
    # Pillow looks at every size that a file declares, also those of its frames.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                return _fit(image, max_side)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            seen = re.search(r"\d+", str(error))
            raise ImageRefused(
                f"{UNDECODABLE}: it has {seen[0] if seen else 'too many'} pixels; at most "
                f"{MAX_PIXELS} are allowed: send a smaller one"
            ) from error
        except UnidentifiedImageError as error:
            raise ImageRefused(
                f"{UNDECODABLE}: the data is no image of a known format; send one of {_ALLOWED}"
            ) from error


def _fit(image: Image.Image, max_side: int) -> RgbImage:
    size = _fitting_size(image.size, max_side)
    image.draft(None, size)  # A JPEG can be decoded at a fraction of its size right away.
    image.load()
    if image.mode.startswith("I;16"):
        # Pillow cuts 16 bits off at 255 instead of scaling them.
        image = image.point(lambda value: value / 256).convert("L")
    fitted = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if fitted.size != size:
        # The gap makes a large reduction cheap and cannot be seen.
        fitted = fitted.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if fitted.mode == "RGBA":
        white = Image.new("RGBA", fitted.size, "white")
        fitted = Image.alpha_composite(white, fitted).convert("RGB")
    orientation = image.getexif().get(0x0112, 1)
    if orientation != 1:
        fitted.getexif()[0x0112] = orientation
        fitted = ImageOps.exif_transpose(fitted)
    return RgbImage(fitted.width, fitted.height, fitted.tobytes())


def _fitting_size(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    width, height = size
    if max(size) > MAX_ASPECT_RATIO * min(size):
        raise ImageRefused(
            f"Failed to resize image: {width}x{height} pixels are too long and thin; one side "
            f"may be {MAX_ASPECT_RATIO} times the other"
        )
    scale = min(1.0, max_side / max(size))
    return max(1, round(width * scale)), max(1, round(height * scale))


# --- SVG ---------------------------------------------------------------------------------------


def _rasterize(data: bytes, max_side: int) -> bytes:
    """A PNG of an SVG document, drawn at its own size or as large as fits."""
    root = ElementTree.fromstring(data.decode("utf-8-sig"))
    for element in root.iter():
        # The renderer would read files that are named here.
        for name, value in list(element.items()):
            if _local_name(name) == "href" and not value.lstrip().startswith(("#", "data:")):
                del element.attrib[name]
    width, height = _svg_size(root) or (max_side, max_side)
    scale = min(1.0, max_side / max(width, height))
    return resvg_py.svg_to_bytes(
        svg_string=ElementTree.tostring(root, encoding="unicode"),
        width=max(1, round(width * scale)),
        height=max(1, round(height * scale)),
        dpi=96,
    )


def _local_name(name: str) -> str:
    return name.rpartition("}")[2]


def _svg_size(root: ElementTree.Element) -> tuple[float, float] | None:
    """Width and height in pixels, if the document says them in a unit that has a size."""
    box = [float(number) for number in root.get("viewBox", "").replace(",", " ").split()]
    ratio = box[3] / box[2] if len(box) == 4 and box[2] > 0 and box[3] > 0 else None
    width, height = _svg_length(root.get("width")), _svg_length(root.get("height"))
    if width and height:
        return width, height
    if ratio is None:
        return None
    if width:
        return width, width * ratio
    if height:
        return height / ratio, height
    return box[2], box[3]


def _svg_length(text: str | None) -> float | None:
    match = _SVG_LENGTH.fullmatch(text or "")
    if match is None or match[2] not in _SVG_UNITS:
        return None
    return float(match[1]) * _SVG_UNITS[match[2]]
