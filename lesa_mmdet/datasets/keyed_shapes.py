"""A synthetic data set in COCO format whose classes only context tells.

Grey shapes have the class that the colour of the image's key says: a disc half the image away from
each of them, or more. Neither a shape nor what is around it tells its class. The key is not
annotated. Images and files are otherwise those of :mod:`lesa_mmdet.datasets.shapes`.
"""

import numpy as np

from .generated import make_generate
from .shapes import OUTLINES, fill, outline_points, random_colours, texture

MAX_SHAPES = 3
SHAPE_SIDE = (0.12, 0.18)  # shares of the image size: three shapes fit above each other
KEY_SIDE = (0.24, 0.3)
MIN_DISTANCE = 0.5  # between the centres of a shape and of the key, likewise

KEY_HUES = {'red': 0, 'green': 1 / 3, 'blue': 2 / 3}
CLASSES: tuple[str, ...] = tuple(KEY_HUES)
DRAWING_VERSION = 1  # to be raised when the drawing changes, so that old data sets are rebuilt


def draw_image(rng, image_size):
    """Draws 1 to 3 grey shapes above each other and, at the other side of the image, their key.

    The class changes the colour of the key and no other pixel. The key is not in the list of
    shapes, whose masks are whole; the rest is as of :func:`lesa_mmdet.datasets.shapes.draw_image`.
    """
    (background,) = random_colours(rng, 1, rng.random(), saturation=(0, 0.3))
    image = texture(rng, image_size, background, contrast=50)
    class_index = int(rng.integers(len(CLASSES)))
    key, shapes = _random_masks(rng, image_size)
    (colour,) = random_colours(rng, 1, KEY_HUES[CLASSES[class_index]], saturation=(0.7, 1))
    image[key] = texture(rng, image_size, colour, contrast=30)[key]
    for shape in shapes:
        greys = random_colours(rng, 6, rng.random(), saturation=(0, 0.15))
        contrast_beneath = np.linalg.norm(greys - image[shape].mean(axis=0), axis=1)
        grey = greys[contrast_beneath.argmax()]
        image[shape] = texture(rng, image_size, grey, contrast=60)[shape]
    image += rng.uniform(2, 10) * rng.standard_normal(image.shape, dtype=np.float32)
    return image.clip(0, 255).astype(np.uint8), [(class_index, shape) for shape in shapes]


def _random_masks(rng, image_size):
    """The mask (H, W) of a key, and those of shapes on the other side of the image."""
    last = image_size - 1
    key = outline_points(rng, 'circle', rng.uniform(*KEY_SIDE) * image_size)
    radius = key.max()
    key_x = rng.uniform(0.8 * last, last - radius)
    key += key_x, rng.uniform(radius, last - radius)
    outlines = [key]
    count = rng.integers(1, MAX_SHAPES + 1)
    for index in range(count):
        name, side = rng.choice(list(OUTLINES)), rng.uniform(*SHAPE_SIDE) * image_size
        shape = outline_points(rng, name, side)
        (left, top), (right, bottom) = shape.min(axis=0), shape.max(axis=0)
        middle = (left + right) / 2
        x = rng.uniform(-left, key_x - MIN_DISTANCE * image_size - middle)
        y = rng.uniform(index / count * last - top, (index + 1) / count * last - 1 - bottom)
        outlines.append(shape + (x, y))
    if rng.random() < 0.5:
        for outline in outlines:
            outline[:, 0] = last - outline[:, 0]
    key, *shapes = (fill(outline, image_size) for outline in outlines)
    return key, shapes


generate = make_generate(draw_image, CLASSES, drawing='keyed shapes', version=DRAWING_VERSION)
