"""Kinds of problems of a data set, and what a training makes of each."""

from enum import Enum


class Problem(Enum):
    """A kind of problem.

    What a training makes of it is that of a config with ``CheckedCocoDataset``; "does not start" is
    said in one sentence before the first step.

    Attributes:
        title (str): What is wrong.
        effect (str): What a training makes of it.
        harmful (bool): Whether a training does not handle it by itself.
    """

    FILE_UNREADABLE = 'annotation file unreadable'
    COUNTS_DIFFER = 'counts differ from COCO', 'lacks images or objects'
    NO_IMAGES = 'no images'
    NO_OBJECTS = 'no objects'
    ONLY_CROWDS = 'no object but crowds'
    NO_MASKS = 'no masks', 'detectors with masks do not start; those of boxes need none'
    OBJECT_ID_TWICE = 'annotation id used twice'
    OBJECT_ID_ZERO = 'annotation id 0', 'trains, but evaluation never finds the object'
    ID_OF_NO_USE = 'id of another kind', 'trains, but evaluation on these images does not start'
    IMAGE_ID_TWICE = 'image id used twice', 'one image is taken for the other'
    CATEGORY_TWICE = 'category used twice'
    IMAGE_FILE_TWICE = 'image file used twice', 'the image is learnt more often than others'
    UNKNOWN_IMAGE = 'unknown image', 'the object is left out'
    UNKNOWN_CATEGORY = 'unknown category', 'the object is left out'
    ISCROWD_MISSING = 'iscrowd missing', 'trains, but evaluation on these images does not start'
    AREA_MISSING = 'area missing'
    BOX_BROKEN = 'box broken'
    BOX_OF_CORNERS = 'box of two corners', 'does not start if most are, or learns wrong ones'
    MASK_BROKEN = 'mask broken', 'stops, or learns nonsense'
    IMAGE_MISSING = 'image missing', 'stops, unless skip_unreadable is set'
    IMAGE_UNREADABLE = 'image unreadable', 'stops, unless skip_unreadable is set'
    IMAGE_SIZE = 'image of another size', 'boxes and masks are in wrong places'
    MAP_MISSING = 'map missing', 'HTC stops'
    MAP_UNREADABLE = 'map unreadable', 'HTC stops'
    MAP_SIZE = 'map of another size', 'HTC learns wrong places'
    MAP_LABELS = 'map with unknown labels', 'HTC stops, or learns nonsense'

    BOX_TINY = 'box smaller than a pixel', 'the object is left out', False
    BOX_OUTSIDE = 'box leaves the image', 'the box is cut at the border', False
    AREA_EMPTY = 'area not positive', 'the object is left out', False
    MASK_MISSING = 'mask missing', 'the object is left out by CheckedCocoDataset', False
    MASK_EMPTY = 'mask empty', 'the box is learnt, and that its mask is empty', False

    def __init__(self, title: str, effect: str = 'does not start', harmful: bool = True) -> None:
        self.title = title
        self.effect = effect
        self.harmful = harmful
