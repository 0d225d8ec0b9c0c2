"""Sends messages at a rate, in batches of ten, as SQS's JSON, and prints how many."""

import http.client
import json
import sys
import time
from urllib.parse import urlsplit

QUEUE = "http://127.0.0.1/000000000000/flooded-work"


def main(url: str, token: str, rate: int, seconds: float) -> int:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)
    entries = [{"Id": str(number), "MessageBody": "x" * 200} for number in range(10)]
    body = json.dumps({"QueueUrl": QUEUE, "Entries": entries})
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Target": "AmazonSQS.SendMessageBatch",
    }
    sent = 0
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        if sent > now * rate:
            time.sleep(sent / rate - now)
            continue
        connection.request("POST", "/", body, headers)
        answer = connection.getresponse()
        if answer.status != 200 or len(json.loads(answer.read())["Successful"]) != 10:
            raise SystemExit(f"a batch was refused: {answer.status}")
        sent += 10
    return sent


if __name__ == "__main__":
    print(main(**json.loads(sys.argv[1])))
