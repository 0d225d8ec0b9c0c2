"""Thumbnails: a picture in one bucket makes a function write a smaller one into another bucket."""

from io import BytesIO
from typing import Any
from urllib.parse import unquote_plus

from PIL import Image, UnidentifiedImageError

from martlet import App, Bucket

app = App("images")
uploads = Bucket("uploads")
thumbnails = Bucket("thumbnails")

WIDTH = HEIGHT = 128


@app.on(uploads.created, memory=512, timeout=30, uses=[uploads.read, thumbnails.write])
def make_thumbnail(event: dict, context: Any) -> None:
    for record in event["Records"]:
        key = unquote_plus(record["s3"]["object"]["key"])  # in S3's events keys are encoded
        try:
            small = shrink(uploads.get(key))
        except ValueError as error:
            thumbnails.put(f"{key}.error.txt", str(error))
        else:
            thumbnails.put(f"{key}.jpg", small, content_type="image/jpeg")


def shrink(data: bytes) -> bytes:
    """A JPEG that fits into WIDTH × HEIGHT. Raises `ValueError` for what is no picture; trying again would not help."""
    try:
        with Image.open(BytesIO(data)) as picture:
            picture.thumbnail((WIDTH, HEIGHT))
            small = picture.convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(f"this is no picture that can be read: {error}") from error
    out = BytesIO()
    small.save(out, "JPEG", quality=85)
    return out.getvalue()
