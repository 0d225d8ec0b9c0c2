"""Draws the shop's pictures. Run it once after a change: python draw.py. What it draws is committed beside it."""

from pathlib import Path

from PIL import Image, ImageDraw

FOLDER = Path(__file__).parent
SIDE = 800


def canvas(top: tuple[int, int, int], bottom: tuple[int, int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A square with a vertical gradient, and the pen for it."""
    image = Image.new("RGB", (SIDE, SIDE))
    pen = ImageDraw.Draw(image)
    for y in range(SIDE):
        share = y / SIDE
        pen.line([(0, y), (SIDE, y)], fill=tuple(round(a + (b - a) * share) for a, b in zip(top, bottom, strict=True)))
    return image, pen


def cup() -> Image.Image:
    image, pen = canvas((250, 240, 220), (235, 205, 170))
    pen.ellipse((140, 620, 660, 720), fill=(205, 170, 135))
    pen.ellipse((520, 300, 700, 540), outline=(60, 110, 140), width=38)
    pen.rounded_rectangle((180, 240, 580, 670), radius=70, fill=(60, 110, 140))
    pen.ellipse((180, 200, 580, 300), fill=(45, 90, 120))
    pen.ellipse((210, 215, 550, 285), fill=(70, 40, 25))
    return image


def kettle() -> Image.Image:
    image, pen = canvas((225, 240, 235), (180, 210, 205))
    pen.arc((220, 90, 580, 450), 180, 360, fill=(40, 40, 45), width=34)
    pen.polygon([(560, 380), (740, 270), (750, 310), (600, 520)], fill=(190, 60, 50))
    pen.ellipse((160, 260, 640, 700), fill=(205, 70, 60))
    pen.ellipse((300, 235, 500, 315), fill=(150, 45, 40))
    pen.ellipse((375, 205, 425, 255), fill=(40, 40, 45))
    return image


def tea() -> Image.Image:
    image, pen = canvas((240, 245, 225), (215, 225, 185))
    pen.rounded_rectangle((220, 180, 580, 690), radius=30, fill=(95, 130, 75))
    pen.rectangle((220, 270, 580, 560), fill=(240, 235, 215))
    pen.ellipse((310, 320, 490, 510), fill=(95, 130, 75))
    pen.polygon([(400, 330), (450, 415), (400, 500), (350, 415)], fill=(150, 185, 110))
    pen.rounded_rectangle((200, 150, 600, 215), radius=20, fill=(60, 85, 50))
    return image


if __name__ == "__main__":
    for draw in (cup, kettle, tea):
        draw().save(FOLDER / f"{draw.__name__}.jpg", quality=82, optimize=True)
