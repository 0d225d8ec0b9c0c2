import logging
import os
import sys


def handler(event, context):
    logging.getLogger().warning("asked for %s", event)
    print("printed")
    if event == "fail":
        raise ValueError("no good")
    if event == "exit":
        os._exit(3)
    if event == "large":
        return "x" * 7_000_000
    return {"event": event, "id": context.aws_request_id, "version": sys.version_info[:2], "arn": context.invoked_function_arn}
