"""Image files as a device has them: sizes, colours, telephones' photos, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from wash_fl.errors import ExportError
from wash_fl.export.images import SUFFIXES, read_image
from wash_fl.extras import install_hint

RED, BLUE = (255, 0, 0), (0, 0, 255)


def colours(height=4, width=6):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def refusal(path, shape=(3, 4, 6), **options):
    with pytest.raises(ExportError) as caught:
        read_image(path, shape, **options)
    assert len(str(caught.value).splitlines()) == 1 and str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".PNG"])
def test_pixels_are_channels_first_in_0_to_1_to_the_bit(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    Image.fromarray(colours()).save(path)
    read = read_image(path, (3, 4, 6))
    np.testing.assert_array_equal(read, colours().transpose(2, 0, 1).astype(np.float32) / 255)
    assert read.dtype == np.float32


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_is_read_about_as_it_was_written(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    Image.new("RGB", (6, 4), (200, 100, 50)).save(path)
    read = read_image(path, (3, 4, 6))
    np.testing.assert_allclose(read.mean(axis=(1, 2)), np.array([200, 100, 50]) / 255, atol=0.02)


def test_a_model_of_grey_images_is_given_grey_and_one_of_colours_three_equal_channels(tmp_path):
    Image.new("RGB", (6, 4), RED).save(tmp_path / "red.png")
    assert read_image(tmp_path / "red.png", (1, 4, 6))[0, 0, 0] == np.float32(76) / 255  # ITU-R 601
    Image.new("L", (6, 4), 51).save(tmp_path / "grey.png")
    assert (read_image(tmp_path / "grey.png", (3, 4, 6)) == np.float32(51) / 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_pictures_with_palettes_bits_or_inks_are_read_by_their_colours(tmp_path, mode):
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode).save(path)
    assert read_image(path, (3, 4, 6)).min() > 0.98


def test_a_photo_is_turned_as_its_exif_says(tmp_path):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, :3] = RED  # left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter to the right: what is left comes to the top
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    read = read_image(tmp_path / "photo.png", (3, 6, 4))
    assert (read[0, :3] == 1).all() and (read[0, 3:] == 0).all()


def test_another_size_is_refused_with_both_sizes_and_the_way_out(tmp_path):
    Image.fromarray(colours(40, 60)).save(tmp_path / "large.png")
    message = refusal(tmp_path / "large.png")
    assert "60x40" in message and "6x4" in message and "--resize" in message


def test_resizing_keeps_the_middle_and_the_aspect_ratio(tmp_path):
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:] = BLUE
    wide[:, 30:90] = RED
    Image.fromarray(wide).save(tmp_path / "wide.png")
    read = read_image(tmp_path / "wide.png", (3, 4, 6), resize=True)
    # Where the cut is, what lies beyond it still shines in.
    assert (read[0, :, 1:-1] == 1).all() and (read[0] > 0.8).all()
    Image.fromarray(colours()).save(tmp_path / "same.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "same.png", (3, 4, 6), resize=True),
        read_image(tmp_path / "same.png", (3, 4, 6)),
    )


def test_alpha_is_dropped_where_nothing_shows_through_and_refused_elsewhere(tmp_path):
    opaque = Image.fromarray(colours())
    opaque.putalpha(255)
    opaque.save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "opaque.png", (3, 4, 6)), colours().transpose(2, 0, 1).astype(np.float32) / 255
    )
    opaque.putpixel((0, 0), (1, 2, 3, 254))
    opaque.save(tmp_path / "glass.png")
    assert "transparent" in refusal(tmp_path / "glass.png")


def test_sixteen_bits_are_refused_and_not_cut_off(tmp_path):
    Image.fromarray(np.full((4, 6), 40_000, np.uint16)).save(tmp_path / "deep.png")
    assert "8 bits per channel" in refusal(tmp_path / "deep.png", (1, 4, 6))


def test_a_picture_that_moves_is_refused(tmp_path):
    frames = [Image.new("RGB", (6, 4), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "film.png", save_all=True, append_images=frames[1:])
    assert "2 pictures" in refusal(tmp_path / "film.png")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0\n"])
def test_what_is_no_picture_is_refused(tmp_path, content):
    (tmp_path / "some.png").write_bytes(content)
    refusal(tmp_path / "some.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_a_picture_cut_anywhere_is_refused(tmp_path, suffix):
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(colours(40, 60)).save(path)
    content = path.read_bytes()
    for part in (0.02, 0.3, 0.6, 0.9):
        path.write_bytes(content[: int(part * len(content))])
        refusal(path, (3, 40, 60))


def test_a_picture_of_an_absurd_size_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.fromarray(colours(40, 60)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # warns from here, refuses from twice as many
    assert "2400 pixels" in refusal(tmp_path / "huge.png", resize=True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "2400 pixels" in refusal(tmp_path / "huge.png", resize=True)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "absent.png")
    (tmp_path / "folder.png").mkdir()
    assert "Is a directory" in refusal(tmp_path / "folder.png")


@pytest.mark.parametrize("shape", [(6, 125), (4,), (2, 4, 6), (1, 3, 4, 6)])
def test_a_model_of_no_pictures_is_given_none(tmp_path, shape):
    Image.fromarray(colours()).save(tmp_path / "image.png")
    assert str(shape) in refusal(tmp_path / "image.png", shape)


def test_without_pillow_it_says_what_to_install(tmp_path, monkeypatch):
    Image.fromarray(colours()).save(tmp_path / "image.png")
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    assert install_hint("infer") in refusal(tmp_path / "image.png")
