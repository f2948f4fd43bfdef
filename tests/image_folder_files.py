"""A folder of small pictures as ``folder:PATH`` reads it."""

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat", "dog")
PER_CLASS, NUM_TEST = 12, 3


def make_image(rng, label):
    """A picture of random size, brighter the higher its class."""
    height, width = rng.integers(20, 60, 2)
    noise = rng.integers(0, 60, (height, width, 3))
    return Image.fromarray((noise + 60 * label).astype(np.uint8))


def write_images(root):
    """Writes pictures of all classes, two of three as JPEG; returns the folder."""
    rng = np.random.default_rng(0)
    for split, num in (("train", PER_CLASS), ("val", NUM_TEST)):
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for i in range(num):
                suffix = ("png", "jpg", "JPEG")[i % 3]
                make_image(rng, label).save(root / split / name / f"{i:02d}.{suffix}")
            (root / split / name / "notes.txt").write_text("no picture")
    return root
