import base64
import contextlib
import io
import itertools
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from paddler.agent.worker.bounded import BoundedProcess
from paddler.agent.worker.images import (
    ImageRefused,
    RgbImage,
    decode_data_uri,
    prepare_image,
    prepare_images,
)

RED = b"\xff\0\0"
BLUE = b"\0\0\xff"
WHITE = b"\xff\xff\xff"


def file_of(image: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def blue(width: int, height: int, format_name: str = "PNG") -> bytes:
    return file_of(Image.new("RGB", (width, height), "blue"), format_name)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def svg(attributes: str, content: str = '<rect width="50" height="50" fill="red"/>') -> bytes:
    names = (
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        + attributes
    )
    return f"<svg {names}>{content}</svg>".encode()


def uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def pixel(image: RgbImage, x: int, y: int) -> bytes:
    start = 3 * (y * image.width + x)
    return image.pixels[start : start + 3]


def refusal(data: bytes, max_side: int = 64) -> str:
    with pytest.raises(ImageRefused) as refused:
        prepare_image(data, max_side=max_side)
    return str(refused.value)


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["data:image/png;base64,YWI=", "data:,YWI=", "data:text/html,YWI=", "data:;a=1,YWI="]
)
def test_whatever_stands_before_the_comma_base64_comes_after_it(url: str) -> None:
    assert decode_data_uri(url) == b"ab"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (
            "https://example.com/a.png",
            "Remote image URLs are not supported. "
            "Use base64 data URIs (data:image/...;base64,...) instead.",
        ),
        ("/etc/passwd", "Remote image URLs are not supported. "),
        ("DATA:,YWI=", "Remote image URLs are not supported. "),
        ("data:image/png;base64", "Invalid data URI: missing comma separator"),
        ("data:,YWI", "Invalid base64 payload: "),
        ("data:,Y WI=", "Invalid base64 payload: "),
        ("data:,YWI=,YWI=", "Invalid base64 payload: "),
        ("data:,YW%49=", "Invalid base64 payload: "),
        ("data:,ä", "Invalid base64 payload: "),
    ],
)
def test_other_addresses_are_refused_by_name(url: str, reason: str) -> None:
    with pytest.raises(ImageRefused) as refused:
        decode_data_uri(url)
    assert str(refused.value).startswith(reason)


def test_the_first_bad_image_of_several_is_told() -> None:
    with pytest.raises(ImageRefused, match="missing comma"):
        prepare_images([uri(blue(2, 2)), "data:x", "https://y"], max_side=64)


# --- size ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((64, 64), (64, 64)),
        ((3, 2), (3, 2)),
        ((65, 64), (64, 63)),
        ((128, 32), (64, 16)),
        ((32, 128), (16, 64)),
        ((199, 1), (64, 1)),
    ],
    ids=str,
)
def test_large_images_shrink_and_small_ones_stay(
    size: tuple[int, int], fitted: tuple[int, int]
) -> None:
    image = prepare_image(blue(*size), max_side=64)
    assert (image.width, image.height) == fitted
    assert image.pixels == BLUE * (image.width * image.height)


@given(width=st.integers(1, 300), height=st.integers(1, 300), max_side=st.integers(1, 300))
def test_an_image_fits_and_keeps_its_shape(width: int, height: int, max_side: int) -> None:
    data = png_claiming(width, height)
    if max(width, height) > 200 * min(width, height):
        assert "too long and thin" in refusal(data, max_side)
        return
    image = prepare_image(file_of(Image.new("1", (width, height)), "PNG"), max_side=max_side)
    assert max(image.width, image.height) == min(max(width, height), max_side)
    shrunk = image.width / width if width > height else image.height / height
    assert abs(image.width - width * shrunk) <= 1
    assert abs(image.height - height * shrunk) <= 1


@pytest.mark.parametrize("size", [(8000, 8000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)], ids=str)
def test_a_decompression_bomb_is_refused_by_the_size_it_claims(size: tuple[int, int]) -> None:
    assert refusal(png_claiming(*size)) == (
        f"Failed to convert image to PNG: it has {size[0] * size[1]} pixels; at most 50000000 are "
        "allowed: send a smaller one"
    )


# --- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_format_is_told_from_the_bytes(format_name: str) -> None:
    image = prepare_image(blue(100, 50, format_name), max_side=64)
    assert (image.width, image.height) == (64, 32)
    red, green, level = pixel(image, 10, 10)
    assert (red < 5, green < 5, level > 250) == (True, True, True)


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_cut_image_is_refused(format_name: str) -> None:
    data = blue(100, 50, format_name)
    assert refusal(data[: len(data) // 2]).startswith("Failed to convert image to PNG: ")


@pytest.mark.parametrize(
    ("mode", "color", "seen"),
    [
        ("RGBA", (9, 9, 9, 0), WHITE),
        ("LA", (9, 0), WHITE),
        ("L", 9, b"\x09\x09\x09"),
        ("I;16", 0x7FFF, b"\x7f\x7f\x7f"),
        ("1", 1, WHITE),
        ("P", 0, b"\0\0\0"),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(mode: str, color: object, seen: bytes) -> None:
    data = file_of(Image.new(mode, (4, 4), color), "PNG")
    assert prepare_image(data, max_side=64).pixels == seen * 16


def test_a_photo_is_turned_upright() -> None:
    photo = Image.new("RGB", (100, 50), "blue")
    photo.paste("red", (0, 0, 50, 50))
    exif = Image.Exif()
    exif[0x0112] = 6  # EXIF 2.3, Orientation: the left side is the top
    image = prepare_image(file_of(photo, "PNG", exif=exif), max_side=64)
    assert (image.width, image.height) == (32, 64)
    assert (pixel(image, 16, 5), pixel(image, 16, 60)) == (RED, BLUE)


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    data = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert prepare_image(data, max_side=64).pixels == RED * 16


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0\0\0\x20ftypheic", "Unsupported image format: HEIF; send one of PNG, "),
        (b"\0\0\0\x20ftypavif", "Unsupported image format: AVIF; "),
        (b"%PDF-1.7", "Unsupported image format: PDF; "),
        (b"", "Failed to convert image to PNG: the data is no image of a known format; "),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "Failed to convert image to PNG: the data is no image "),
        (b"<?xml version='1.0'?>", "Failed to convert image to PNG: "),
        (b"<html></html>", "Failed to convert image to PNG: "),
        (b"<svg>\xff</svg>", "Failed to convert image to PNG: "),
    ],
    ids=repr,
)
def test_what_cannot_be_decoded_is_refused_by_name(data: bytes, reason: str) -> None:
    assert refusal(data).startswith(reason)


@given(st.binary(max_size=60), st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"]))
def test_a_broken_file_is_an_image_or_refused(noise: bytes, format_name: str) -> None:
    data = blue(20, 10, format_name)
    for broken in (noise, data[:30] + noise + data[30:], noise[:3] + data):
        with contextlib.suppress(ImageRefused):
            prepare_image(broken, max_side=64)


# --- SVG ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('width="50" height="20"', (50, 20)),
        ('width="100" height="60"', (64, 38)),
        ('width="0.5in" height="10mm"', (48, 38)),
        ('viewBox="0 0 10 20"', (10, 20)),
        ('viewBox="0,0,1000,2000"', (32, 64)),
        ('width="20" viewBox="0 0 10 20"', (20, 40)),
        ('height="20" viewBox="0 0 10 20"', (10, 20)),
        ('width="1e5" height="1e5"', (64, 64)),
        ("", (64, 64)),
    ],
)
def test_an_svg_is_drawn_at_its_own_size_or_smaller(attributes: str, size: tuple[int, int]) -> None:
    image = prepare_image(svg(attributes, '<path d="M0 0H1e6V1e6H0z" fill="red"/>'), max_side=64)
    assert abs(image.width - size[0]) <= 1
    assert abs(image.height - size[1]) <= 1
    assert pixel(image, 1, 1) == RED


@pytest.mark.parametrize("lead", [b"\xef\xbb\xbf", b"\n ", b'<?xml version="1.0"?>', b"<!-- -->"])
def test_an_svg_may_begin_like_any_xml(lead: bytes) -> None:
    assert pixel(prepare_image(lead + svg('width="9" height="9"'), max_side=64), 1, 1) == RED


def test_what_an_svg_leaves_open_is_white() -> None:
    image = prepare_image(svg('width="60" height="60"'), max_side=64)
    assert (pixel(image, 1, 1), pixel(image, 58, 58)) == (RED, WHITE)


@pytest.mark.parametrize("attribute", ["href", "xlink:href"])
@pytest.mark.parametrize(
    "content",
    [
        '<image {} width="20" height="20"/>',
        '<filter id="f"><feImage {}/></filter><rect width="20" height="20" filter="url(#f)"/>',
    ],
)
def test_an_svg_reads_no_file(tmp_path: Path, attribute: str, content: str) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(blue(20, 20))
    data = svg('width="20" height="20"', content.format(f'{attribute}="{path}"'))
    assert prepare_image(data, max_side=64).pixels == WHITE * 400
    nested = content.format(
        f'{attribute}="data:image/svg+xml;base64,{base64.b64encode(data).decode()}"'
    )
    assert BLUE not in prepare_image(svg('width="20" height="20"', nested), max_side=64).pixels


def test_an_svg_may_hold_an_image() -> None:
    inner = f'<image href="{uri(blue(20, 20))}" width="20" height="20"/>'
    image = prepare_image(svg('width="20" height="20"', inner), max_side=64)
    assert image.pixels == BLUE * 400


def test_an_entity_bomb_is_refused() -> None:
    names = "abcdefghi"
    entities = [f'<!ENTITY a "{"x" * 1000}">']
    entities += [
        f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in itertools.pairwise(names)
    ]
    bomb = f"<?xml version='1.0'?><!DOCTYPE svg [{''.join(entities)}]>".encode() + svg("", "&i;")
    assert refusal(bomb).startswith("Failed to convert image to PNG: ")


# --- in a process of its own --------------------------------------------------------------------


def test_a_child_prepares_the_same_images() -> None:
    urls = [uri(blue(100, 50)), uri(svg('width="9" height="9"'))]
    with BoundedProcess(None) as process:
        assert process.prepare_images(urls, max_side=64) == prepare_images(urls, max_side=64)
        with pytest.raises(ImageRefused, match="missing comma"):
            process.prepare_images(["data:"], max_side=64)


def test_an_endless_drawing_ends_and_the_next_is_drawn() -> None:
    noise = '<feTurbulence numOctaves="500" baseFrequency="0.5"/>' * 50
    content = (
        f'<filter id="f" x="0" y="0" width="1" height="1">{noise}</filter>'
        '<rect width="1000" height="1000" filter="url(#f)"/>'
    )
    endless = svg('width="1000" height="1000"', content)
    with BoundedProcess(None, deadline_s=0.5) as process:
        with pytest.raises(ImageRefused) as refused:
            process.prepare_images([uri(endless)], max_side=1024)
        assert str(refused.value) == (
            "Failed to convert image to PNG: decoding it took more than 0.5 s, the most that is "
            "allowed"
        )
        assert process.prepare_images([uri(blue(2, 2))], max_side=64)
