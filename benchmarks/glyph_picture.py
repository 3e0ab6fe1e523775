"""Draws docs/glyphs.png: ten classes, six drawings of each, and what can be done to them.

python benchmarks/glyph_picture.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

from latebloom import data

ZOOM, GAP = 2, 4


def strip(images: np.ndarray) -> np.ndarray:
    """Images [n, height, width] or [n, height, width, 3] side by side, a gap to the right of each."""
    rgb = images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=-1)
    padded = np.pad(rgb, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
    return np.concatenate(list(padded), axis=1)


def main() -> None:
    images = data.glyphs(10, 6, seed=0)
    first, labels = images[:, 0], np.arange(10)
    gap = np.full((2 * GAP, strip(first).shape[1], 3), 255, np.uint8)
    rows = [*(strip(images[:, i]) for i in range(6)), gap]
    rows += [strip(data.occluded(first, 0.3, seed=0, level=128)),
             strip(data.noisy(first, 0.3, seed=0)),
             *(strip(data.coloured(images[:, i], labels, seed=i)) for i in range(2)),
             strip(data.coloured(first, labels, seed=0, probability=0.0))]  # fmt: skip
    picture = np.concatenate(rows)[:-GAP, :-GAP].repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
    path = Path(__file__).parent.parent / "docs" / "glyphs.png"
    Image.fromarray(picture).save(path, optimize=True)
    print(f"{path}: {picture.shape[1]} x {picture.shape[0]} pixels, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
