"""A synthetic instance-segmentation data set in COCO format: textured, overlapping shapes.

:func:`draw_image` draws one image with the visible mask of every shape in it, and
:func:`generate` writes a train and a val split of such images with their annotations.
"""

import colorsys

import cv2
import numpy as np

from .generated import make_generate

MAX_SHAPES = 5
MIN_SIDE = 16  # pixels; the side of a square as large as the smallest shape
MAX_SIDE = 0.62  # share of the image size, small enough that every shape fits at any angle
MIN_VISIBLE = 0.5
PLACING_TRIES = 10

TEXTURES = ('stripes', 'checks', 'dots', 'gradient', 'noise')
DRAWING_VERSION = 1  # to be raised when the drawing changes, so that old data sets are rebuilt


def _regular_polygon(corners):
    """Corners of a regular polygon in the unit circle, complex (corners,)."""
    return np.exp(2j * np.pi * np.arange(corners) / corners)


def _cross():
    arm = np.array([1 - 0.35j, 1 + 0.35j, 0.35 + 0.35j])
    return np.concatenate([arm * 1j**quarter for quarter in range(4)])


def _crescent():
    tip, centre = np.exp(1j * np.radians(50)), 0.55
    outer = np.exp(1j * np.linspace(np.angle(tip), 2 * np.pi - np.angle(tip), 48))
    radius, opening = np.abs(tip - centre), np.angle(tip - centre)
    inner = centre + radius * np.exp(1j * np.linspace(2 * np.pi - opening, opening, 32))
    return np.concatenate([outer, inner])


def _unit_area(outline):
    """Scales an outline to area 1, so that size says nothing about the class."""
    area = np.sum(np.imag(np.conj(outline) * np.roll(outline, -1))) / 2
    return outline / np.sqrt(area)


# Points x + iy: turning an outline is a product with exp(i * angle).
OUTLINES = {
    'circle': _unit_area(_regular_polygon(64)),
    'square': _unit_area(_regular_polygon(4)),
    'triangle': _unit_area(_regular_polygon(3)),
    'star': _unit_area(_regular_polygon(10) * np.tile([1, 0.5], 5)),
    'cross': _unit_area(_cross()),
    'crescent': _unit_area(_crescent()),
}
CLASSES: tuple[str, ...] = tuple(OUTLINES)


def texture(rng, image_size, colour, contrast):
    """A random two-colour pattern over the whole image.

    Args:
        rng (np.random.Generator): Source of randomness.
        image_size (int): Height and width in pixels.
        colour (np.ndarray): BGR colour (3,), 0 to 255.
        contrast (float): Largest difference per channel between the two colours.

    Returns:
        np.ndarray: float32 (H, W, 3), may leave 0 to 255 a little.
    """
    rows, columns = np.mgrid[:image_size, :image_size].astype(np.float32)
    angle, period = rng.uniform(0, 2 * np.pi), rng.uniform(5, 16)
    u = (np.cos(angle) * columns - np.sin(angle) * rows) * np.float32(2 * np.pi / period)
    v = (np.sin(angle) * columns + np.cos(angle) * rows) * np.float32(2 * np.pi / period)
    kind = rng.choice(TEXTURES)
    if kind == 'stripes':
        pattern = np.sin(u) > 0
    elif kind == 'checks':
        pattern = np.sin(u / 2) * np.sin(v / 2) > 0
    elif kind == 'dots':
        pattern = np.cos(u) + np.cos(v) > 0.8
    elif kind == 'gradient':
        pattern = (u - u.min()) / np.ptp(u)
    else:
        cells = int(np.ceil(image_size / period))
        grid = rng.random((cells, cells), dtype=np.float32)
        pattern = cv2.resize(grid, (image_size, image_size), interpolation=cv2.INTER_CUBIC)
    step = rng.uniform(-contrast, contrast, 3).astype(np.float32)
    return colour.astype(np.float32) + pattern[..., None].astype(np.float32) * step


def random_colours(rng, count, hue, saturation):
    """Random colours, BGR (count, 3), 0 to 255, of a hue up to a twelfth of the circle away."""
    hues = (hue + rng.uniform(-1, 1, count) / 12) % 1
    saturations, values = rng.uniform(*saturation, count), rng.uniform(0.4, 1, count)
    rgb = [colorsys.hsv_to_rgb(*hsv) for hsv in zip(hues, saturations, values, strict=True)]
    return 255 * np.array(rgb)[:, ::-1]


def _random_shape(rng, image_size):
    """The class index and bool mask (H, W) of a random shape that lies inside the image."""
    class_index = int(rng.integers(len(CLASSES)))
    side = rng.uniform(MIN_SIDE, MAX_SIDE * image_size)
    points = outline_points(rng, CLASSES[class_index], side)
    points += rng.uniform(-points.min(axis=0), image_size - 1 - points.max(axis=0))
    return class_index, fill(points, image_size)


def outline_points(rng, name, side):
    """Corners (n, 2) of a shape around (0, 0) at a random angle, as large as a square of a side."""
    outline = OUTLINES[name] * side * np.exp(2j * np.pi * rng.random())
    return np.stack([outline.real, outline.imag], axis=1)


def fill(points, image_size):
    """Mask, bool (H, W), of the polygon with these corners (x, y)."""
    mask = np.zeros((image_size, image_size), np.uint8)
    fraction_bits = 4
    fixed_point = np.rint(points * 2**fraction_bits).astype(np.int32)
    cv2.fillPoly(mask, [fixed_point], 1, shift=fraction_bits)
    return mask.astype(bool)


def _has_hole(mask):
    _, hierarchy = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return bool(np.any(hierarchy[0, :, 3] >= 0))


def _stays_recognisable(visible, full_area):
    # COCO polygons cannot describe a hole.
    return visible.sum() >= MIN_VISIBLE * full_area and not _has_hole(visible)


def draw_image(rng, image_size):
    """Draws 1 to 5 textured shapes, later ones over earlier ones, on a textured background.

    A place is refused to a shape that would hide more than half of an earlier one or punch a
    hole into it; so every shape in the image is in the list, and recognisable.

    Args:
        rng (np.random.Generator): Source of randomness; the only thing the result depends on
            besides ``image_size``.
        image_size (int): Height and width in pixels, at least 64.

    Returns:
        tuple[np.ndarray, list[tuple[int, np.ndarray]]]: The image, uint8 (H, W, 3) BGR, and per
        shape its index into ``CLASSES`` and the mask of its visible part, bool (H, W).
    """
    (background,) = random_colours(rng, 1, rng.random(), saturation=(0, 0.3))
    image = texture(rng, image_size, background, contrast=50)
    class_indices, full_areas, visible = [], [], []
    for _ in range(rng.integers(1, MAX_SHAPES + 1)):
        for _ in range(PLACING_TRIES):
            class_index, mask = _random_shape(rng, image_size)
            remaining = [earlier & ~mask for earlier in visible]
            if all(map(_stays_recognisable, remaining, full_areas)):
                break
        else:
            continue
        class_indices.append(class_index)
        full_areas.append(mask.sum())
        visible = [*remaining, mask]
        # A class tends to a colour: learning starts there, and overlapping bands need the outline.
        colours = random_colours(rng, 6, class_index / len(CLASSES), saturation=(0.4, 1))
        contrast_beneath = np.linalg.norm(colours - image[mask].mean(axis=0), axis=1)
        colour = colours[contrast_beneath.argmax()]
        image[mask] = texture(rng, image_size, colour, contrast=60)[mask]
    image += rng.uniform(2, 10) * rng.standard_normal(image.shape, dtype=np.float32)
    return image.clip(0, 255).astype(np.uint8), list(zip(class_indices, visible, strict=True))


generate = make_generate(draw_image, CLASSES, version=DRAWING_VERSION)
