"""Inline code (`ZipFile` with source text) as the archive that the functions room takes.

CloudFormation puts the text into a file named index, with a module beside it for functions of custom resources to answer with:
`cfnresponse` in Python, `cfn-response` in Node.js. The modules here have the same calls and are our own.
"""

from __future__ import annotations

import io
import zipfile
from typing import Final

from martlet.errors import DeployFailed
from martlet.limits import LIMITS, exceeded

__all__ = ["inline_archive"]

_STAMP: Final = (1980, 1, 1, 0, 0, 0)
_PYTHON: Final = '''"""Answers CloudFormation about a custom resource."""
import json
import urllib.request

SUCCESS = "SUCCESS"
FAILED = "FAILED"


def send(event, context, responseStatus, responseData, physicalResourceId=None, noEcho=False, reason=None):
    body = {
        "Status": responseStatus,
        "Reason": reason or "See the details in CloudWatch Log Stream: " + context.log_stream_name,
        "PhysicalResourceId": physicalResourceId or context.log_stream_name,
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
        "NoEcho": noEcho,
        "Data": responseData,
    }
    request = urllib.request.Request(
        event["ResponseURL"], json.dumps(body).encode(), {"Content-Type": ""}, method="PUT"
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            print("Status code:", answer.status)
    except Exception as error:
        print("send(..) failed executing the request:", error)
'''
_NODE: Final = """// Answers CloudFormation about a custom resource.
exports.SUCCESS = "SUCCESS";
exports.FAILED = "FAILED";
exports.send = function (event, context, responseStatus, responseData, physicalResourceId, noEcho) {
  const body = JSON.stringify({
    Status: responseStatus,
    Reason: "See the details in CloudWatch Log Stream: " + context.logStreamName,
    PhysicalResourceId: physicalResourceId || context.logStreamName,
    StackId: event.StackId,
    RequestId: event.RequestId,
    LogicalResourceId: event.LogicalResourceId,
    NoEcho: noEcho || false,
    Data: responseData,
  });
  const where = new URL(event.ResponseURL);
  const client = require(where.protocol === "https:" ? "https" : "http");
  const headers = { "content-type": "", "content-length": Buffer.byteLength(body) };
  const request = client.request(where, { method: "PUT", headers }, (answer) => {
    answer.resume();
    answer.on("end", () => context.done());
  });
  request.on("error", (error) => {
    console.log("send(..) failed executing the request: " + error);
    context.done();
  });
  request.end(body);
};
"""


def inline_archive(text: str, runtime: str) -> bytes:
    """The archive of inline source. Raises `DeployFailed` where there can be none, `LimitExceeded` (inline_code_bytes)."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > LIMITS["inline_code_bytes"].default:
        raise exceeded("inline_code_bytes", size, "ZipFile")
    if runtime.startswith("python"):
        files = {"index.py": text, "cfnresponse.py": _PYTHON}
    elif runtime.startswith("nodejs"):
        files = {"index.js": text, "node_modules/cfn-response/index.js": _NODE}
    else:
        raise DeployFailed(
            f"ZipFile can only be used when Runtime is set to nodejs or python, not {runtime or 'none'}",
            remedy="name a folder or an archive",
        )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name, _STAMP)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o100644 << 16
            archive.writestr(member, content.encode("utf-8", "surrogatepass"))
    return out.getvalue()
