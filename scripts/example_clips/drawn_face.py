"""A face drawn from blendshapes: the frames of the app's example clips.

`make.py` draws one frame for each row of the sample set's face features. The face is a shaded drawing, of nobody;
MediaPipe finds it as it finds a photograph.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from deepmlf_kit.features.vision_blendshapes import VISION_NAMES

_COLUMN = {name: number for number, name in enumerate(VISION_NAMES)}
_SCALE = 2  # drawn larger and scaled down, for smooth edges
_SKIN, _SHADE, _LIGHT = (222, 178, 150), (150, 98, 76), (246, 212, 188)
_LIP, _MOUTH, _HAIR, _IRIS = (182, 92, 88), (70, 24, 26), (58, 40, 32), (88, 66, 44)
_BACKGROUND = (96, 112, 128)


def draw_face(row: np.ndarray, size: int = 320) -> np.ndarray:
    """Draw one face.

    Args:
        row: [58] blendshapes and head pose (`features.vision_blendshapes.VISION_NAMES`).
        size: pixels of the square frame.

    Returns:
        [size, size, 3] uint8 RGB.
    """
    return np.asarray(_Drawing(row, size * _SCALE).image().resize((size, size), Image.Resampling.LANCZOS))


class _Drawing:
    """One frame. Lengths are in units of half the face's height; the origin lies between the eyes."""

    def __init__(self, row: np.ndarray, pixels: int) -> None:
        self.row, self.pixels = row, pixels
        self.unit = 0.37 * pixels
        roll = float(np.clip(row[_COLUMN["headRoll"]], -0.4, 0.4))
        self.turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
        self.shift = np.array(
            [
                0.25 * np.clip(row[_COLUMN["headYaw"]], -0.5, 0.5),
                0.25 * np.clip(row[_COLUMN["headPitch"]], -0.5, 0.5),
            ]
        )
        self.canvas = Image.new("RGB", (pixels, pixels), _BACKGROUND)
        self.inside: Image.Image | None = None  # what may be painted on, once the skin's outline is known

    def image(self) -> Image.Image:
        self.shoulders_and_hair()
        self.skin()
        self.eyes()
        self.brows()
        self.nose()
        self.mouth()
        return self.canvas.filter(ImageFilter.GaussianBlur(self.pixels / 400))

    # Tools ---------------------------------------------------------------------------------------------------

    def of(self, name: str) -> float:
        """A blendshape in [0, 1]."""
        return float(np.clip(self.row[_COLUMN[name]], 0.0, 1.0))

    def points(self, places: np.ndarray, still: bool = False) -> list[tuple[float, float]]:
        """Places [n, 2] in the face's own units -> pixels; `still`: not moved by the turning of the head."""
        places = np.asarray(places, float) + (0 if still else self.shift)
        centre = np.array([0.5, 0.46]) * self.pixels
        return [tuple(p) for p in (places @ self.turn.T) * self.unit + centre]

    def shape(
        self, places: np.ndarray, colour: tuple[int, ...], blur: float = 0.0, still: bool = False
    ) -> None:
        """Fill an outline; `blur` in face units softens its edge, `colour` may carry an alpha."""
        self.paint(self.points(places, still), colour, blur)

    def line(self, places: np.ndarray, colour: tuple[int, ...], width: float, blur: float = 0.0) -> None:
        """Draw a line `width` face units wide."""
        self.paint(self.points(places), colour, blur, max(1, round(width * self.unit)))

    def paint(
        self, points: list[tuple[float, float]], colour: tuple[int, ...], blur: float, width: int = 0
    ) -> None:
        """Paint an outline (or, with a width, a line) through a softened mask; only its own corner is touched."""
        soft = blur * self.unit
        margin = 2.5 * soft + width + 2
        low = np.maximum(np.floor(np.min(points, 0) - margin), 0).astype(int)
        high = np.minimum(np.ceil(np.max(points, 0) + margin), self.pixels).astype(int)
        if (high <= low).any():
            return
        mask = Image.new("L", tuple(int(n) for n in high - low), 0)
        moved = [(x - low[0], y - low[1]) for x, y in points]
        fill = colour[3] if len(colour) > 3 else 255
        if width:
            ImageDraw.Draw(mask).line(moved, fill=fill, width=width, joint="curve")
        else:
            ImageDraw.Draw(mask).polygon(moved, fill=fill)
        if soft:
            mask = mask.filter(ImageFilter.GaussianBlur(soft))
        box = (*(int(n) for n in low), *(int(n) for n in high))
        if self.inside is not None:
            mask = ImageChops.multiply(mask, self.inside.crop(box))
        self.canvas.paste(colour[:3], box, mask)

    # Parts ---------------------------------------------------------------------------------------------------

    def shoulders_and_hair(self) -> None:
        self.shape(_ellipse(0, 2.05, 1.25, 0.75), (70, 84, 120), 0.02, still=True)
        self.shape(_ellipse(0, -0.12, 0.86, 1.0), _HAIR, 0.01, still=True)
        self.shape([[-0.3, 0.6], [0.3, 0.6], [0.36, 1.6], [-0.36, 1.6]], _SHADE, 0.03, still=True)

    def skin(self) -> None:
        jaw = 0.1 * self.of("jawOpen")
        t = np.linspace(0, 2 * np.pi, 120)
        width = np.where(np.sin(t) > 0, 0.70 - 0.17 * np.sin(t) ** 3, 0.70)
        height = np.where(np.sin(t) > 0, 1.10 + jaw, 0.80)
        outline = np.stack([width * np.cos(t), height * np.sin(t)], 1)
        self.shape([[-0.72, -0.05], [-0.8, -0.1], [-0.8, 0.25], [-0.68, 0.3]], _SHADE, 0.03)
        self.shape([[0.72, -0.05], [0.8, -0.1], [0.8, 0.25], [0.68, 0.3]], _SHADE, 0.03)
        self.shape(outline, _SKIN, 0.012)
        self.inside = Image.new("L", self.canvas.size, 0)
        ImageDraw.Draw(self.inside).polygon(self.points(outline), fill=255)
        # Light from the upper left: a dark right side, a bright forehead and cheeks, a shadow below the lip.
        self.shape(_ellipse(0.72, 0.25, 0.28, 0.95), (*_SHADE, 150), 0.16)
        self.shape(_ellipse(-0.78, 0.35, 0.16, 0.8), (*_SHADE, 110), 0.12)
        self.shape(_ellipse(-0.12, -0.5, 0.42, 0.2), (*_LIGHT, 170), 0.16)
        for side in (-1, 1):
            lift = 0.06 * (self.of("cheekSquintLeft") + self.smile(side))
            self.shape(_ellipse(side * 0.4, 0.38 - lift, 0.17, 0.13), (*_LIGHT, 120), 0.1)
            self.shape(_ellipse(side * 0.33, -0.02, 0.26, 0.16), (*_SHADE, 120), 0.07)
        self.shape(_ellipse(0, 1.02 + jaw, 0.42, 0.12), (*_SHADE, 120), 0.1)
        self.shape(_ellipse(0, 0.86 + jaw, 0.16, 0.05), (*_LIGHT, 110), 0.06)

    def smile(self, side: int) -> float:
        return self.of("mouthSmileRight" if side < 0 else "mouthSmileLeft")

    def eyes(self) -> None:
        for side, name in ((-1, "Right"), (1, "Left")):  # the person's right eye is on the picture's left
            shut, squint = self.of(f"eyeBlink{name}"), self.of(f"eyeSquint{name}")
            wide = self.of(f"eyeWide{name}")
            upper = 0.105 * (1 + 0.5 * wide) * (1 - 0.95 * shut) * (1 - 0.35 * squint)
            lower = 0.07 * (1 - 0.6 * shut) * (1 - 0.55 * squint - 0.3 * self.smile(side))
            x = np.linspace(-1, 1, 40)
            arch = np.sqrt(1 - x**2)
            across = side * 0.31 + 0.155 * x
            top = np.stack([across, -upper * arch], 1)
            bottom = np.stack([across[::-1], lower * arch[::-1] ** 1.2], 1)
            opening = np.concatenate([top, bottom])
            self.line(
                np.stack([across, -0.055 - upper * arch], 1), (*_SHADE, 190), 0.02, 0.012
            )  # the lid's fold
            self.shape(opening, (240, 236, 230))
            up = self.of(f"eyeLookUp{name}") - self.of(f"eyeLookDown{name}")
            inward = self.of(f"eyeLookIn{name}") - self.of(f"eyeLookOut{name}")
            centre = (side * 0.31 - side * 0.06 * inward, -0.015 - 0.045 * up)
            whole, self.inside = self.inside, self._clip(opening)
            self.shape(_ellipse(*centre, 0.078, 0.078), _IRIS, 0.004)
            self.shape(_ellipse(*centre, 0.036, 0.036), (14, 10, 10))
            self.shape(_ellipse(centre[0] - 0.025, centre[1] - 0.03, 0.014, 0.014), (250, 250, 250))
            self.inside = whole
            self.line(top, (44, 28, 24), 0.03, 0.004)
            self.line(bottom, (*_SHADE, 200), 0.014, 0.006)

    def _clip(self, outline: np.ndarray) -> Image.Image:
        mask = Image.new("L", self.canvas.size, 0)
        ImageDraw.Draw(mask).polygon(self.points(outline), fill=255)
        return ImageChops.multiply(mask, self.inside)

    def brows(self) -> None:
        for side, name in ((-1, "Right"), (1, "Left")):
            down, inner = self.of(f"browDown{name}"), self.of("browInnerUp")
            outer = self.of(f"browOuterUp{name}")
            x = np.linspace(0, 1, 24)  # from the nose outwards
            rise = (
                0.16
                + 0.05 * np.sin(np.pi * np.minimum(x * 1.2, 1))
                + 0.12 * inner * (1 - x)
                + 0.12 * outer * x
            )
            rise = rise - 0.15 * down * (1.25 - 0.8 * x)
            places = np.stack([side * (0.13 - 0.04 * down + 0.38 * x), -rise], 1)
            self.line(places[:18], _HAIR, 0.062, 0.008)
            self.line(places[14:], _HAIR, 0.04, 0.008)
            if down > 0.15:
                fold = [[side * 0.045, -0.27], [side * 0.055, -0.12]]
                self.line(np.array(fold), (*_SHADE, round(220 * down)), 0.018, 0.012)

    def nose(self) -> None:
        sneer = 0.5 * (self.of("noseSneerLeft") + self.of("noseSneerRight"))
        base = 0.42 - 0.05 * sneer
        self.line(np.array([[0.09, -0.02], [0.085, 0.2], [0.12, base - 0.06]]), (*_SHADE, 170), 0.07, 0.03)
        self.line(np.array([[-0.02, -0.05], [-0.02, base - 0.1]]), (*_LIGHT, 220), 0.06, 0.03)
        self.shape(_ellipse(-0.01, base - 0.06, 0.075, 0.06), (*_LIGHT, 170), 0.03)
        self.shape(_ellipse(0, base + 0.05, 0.14, 0.035), (*_SHADE, 200), 0.025)
        for side in (-1, 1):
            self.shape(_ellipse(side * 0.065, base + 0.015, 0.036, 0.018), (74, 36, 30), 0.008)
            self.line(
                np.array(
                    [[side * 0.12, base - 0.09], [side * 0.148, base - 0.02], [side * 0.11, base + 0.02]]
                ),
                (*_SHADE, 210),
                0.02,
                0.01,
            )

    def mouth(self) -> None:
        jaw = self.of("jawOpen")
        frown = 0.5 * (self.of("mouthFrownLeft") + self.of("mouthFrownRight"))
        press = 0.5 * (self.of("mouthPressLeft") + self.of("mouthPressRight"))
        pucker = self.of("mouthPucker") + self.of("mouthFunnel")
        y = 0.66
        right, left = self.smile(-1), self.smile(1)
        broad = np.array([-1.0, 1.0]) * (0.245 + 0.11 * np.array([right, left]) - 0.09 * min(pucker, 1.0))
        broad += 0.05 * (self.of("mouthLeft") - self.of("mouthRight"))
        corner = y - 0.12 * np.array([right, left]) + 0.09 * frown
        x = np.linspace(0, 1, 48)
        across = broad[0] + (broad[1] - broad[0]) * x
        ends = corner[0] + (corner[1] - corner[0]) * x
        arch = 4 * x * (1 - x)
        smile = 0.5 * (right + left)
        gap = 0.30 * jaw + 0.035 * smile * (1 - press)
        middle_top = y + 0.015 * smile - 0.02 * frown
        inner_top = ends + (middle_top - ends) * arch - 0.02 * jaw * arch
        inner_bottom = ends + (middle_top + gap - ends) * arch ** (0.8 if jaw > 0.1 else 1.0)
        thin = 1 - 0.5 * press - 0.3 * smile
        bow = 0.075 * thin * arch**0.7 * (1 - 0.22 * np.exp(-(((x - 0.5) / 0.06) ** 2)))
        full = 0.095 * thin * arch**0.8
        top, bottom = inner_top - bow, inner_bottom + full
        for side, place in ((-1, broad[0]), (1, broad[1])):
            fold = self.smile(side)
            self.line(
                np.array([[side * 0.17, 0.4], [place + side * (0.03 + 0.05 * fold), 0.52 - 0.04 * fold],
                          [place + side * (0.05 + 0.05 * fold), 0.68]]),
                (*_SHADE, round(60 + 150 * fold)), 0.03, 0.02,
            )  # fmt: skip
        self.shape(_path(across, top, bottom), _LIP, 0.008)
        self.shape(_ellipse(0, float(bottom.max()) - 0.035, 0.09, 0.018), (*_LIGHT, 120), 0.02)
        opening = _path(across, inner_top, inner_bottom)
        self.shape(opening, _MOUTH)
        if gap > 0.02:
            whole, self.inside = self.inside, self._clip(opening)
            self.shape(_path(across, inner_top, inner_top + 0.055 * arch), (236, 232, 224), 0.004)
            self.inside = whole
        self.line(np.stack([across, inner_top], 1), (*_MOUTH, 220), 0.016, 0.005)


def _ellipse(x: float, y: float, width: float, height: float) -> np.ndarray:
    """Outline [64, 2] of an ellipse by its centre and half axes."""
    t = np.linspace(0, 2 * np.pi, 64)
    return np.stack([x + width * np.cos(t), y + height * np.sin(t)], 1)


def _path(across: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Outline of what lies between two curves over the same places."""
    return np.concatenate([np.stack([across, top], 1), np.stack([across, bottom], 1)[::-1]])
