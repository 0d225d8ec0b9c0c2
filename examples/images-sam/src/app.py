"""Thumbnails of what is put into a bucket."""

import os
from io import BytesIO
from urllib.parse import unquote_plus

import boto3
from PIL import Image, UnidentifiedImageError

s3 = boto3.client("s3")

WIDTH = HEIGHT = 128


def make_thumbnail(event, context):
    for record in event["Records"]:
        key = unquote_plus(record["s3"]["object"]["key"])  # in S3's events keys are encoded
        upload = s3.get_object(Bucket=record["s3"]["bucket"]["name"], Key=key)
        try:
            small = shrink(upload["Body"].read())
        except ValueError as error:
            put(f"{key}.error.txt", str(error).encode(), "text/plain; charset=utf-8")
        else:
            put(f"{key}.jpg", small, "image/jpeg")


def put(key, body, content_type):
    s3.put_object(Bucket=os.environ["THUMBNAILS"], Key=key, Body=body, ContentType=content_type)


def shrink(data):
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
