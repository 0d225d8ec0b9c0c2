"""The program that turns SAM templates into CloudFormation ones with aws-sam-translator; `translation` runs it.

It is a process of its own because the translator's import takes a second and its templates come from others: it has limits
of memory and time, and no way to a network (the AWS SDK that the translator imports is replaced by stand-ins that refuse).
Lines of JSON on standard input: {"template", "parameters", "region"} or {"pattern", "value"}; on standard output
{"template"}, {"errors": [{"logical_id", "text"}], "text"} or {"matches"}.
"""

import json
import re
import resource
import sys
import types
from typing import Any

_MEMORY_BYTES = 1 << 30
_REGION = "us-east-1"


def _stand_ins() -> None:
    """boto3 and botocore by name only: half of the import's time, and nothing here may call anybody."""

    class Session:
        def __init__(self, region_name: str | None = None, **_: Any) -> None:
            self.region_name = region_name or _REGION

        def client(self, name: str, **_: Any) -> Any:
            raise RuntimeError(f"the translation may not call {name}")

        def get_partition_for_region(self, region: str) -> str:
            return "aws"

    class Refused(Exception):
        pass

    def module(name: str, **members: Any) -> types.ModuleType:
        made = sys.modules[name] = types.ModuleType(name)
        made.__dict__.update(members)
        return made

    session = module("boto3.session", Session=Session)
    refuse = Session().client
    module("boto3", session=session, Session=Session, client=refuse).__path__ = []
    module("botocore").__path__ = []
    module("botocore.client", BaseClient=object)
    module("botocore.config", Config=lambda **_: None)
    module("botocore.exceptions", ClientError=Refused, EndpointConnectionError=Refused, NoCredentialsError=Refused)


def _translate(request: dict[str, Any]) -> dict[str, Any]:
    from samtranslator.model.exceptions import InvalidDocumentException
    from samtranslator.translator.arn_generator import ArnGenerator
    from samtranslator.translator.transform import transform

    class Policies:
        def load(self) -> dict[str, str]:
            return {}  # the translator brings the map of AWS's managed policies with it

    ArnGenerator.BOTO_SESSION_REGION_NAME = request["region"]
    try:
        return {"template": transform(request["template"], request["parameters"], Policies())}
    except InvalidDocumentException as error:
        causes = [{"logical_id": getattr(cause, "_logical_id", "") or "", "text": str(cause.message)} for cause in error.causes]
        return {"errors": causes, "text": error.message}


def _match(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"matches": re.fullmatch(request["pattern"], request["value"]) is not None}
    except (re.error, OverflowError, RecursionError) as error:
        return {"errors": [], "text": str(error)}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = sys.stdout
    sys.stdout = sys.stderr  # what the translator prints must not become an answer
    _stand_ins()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _match(request) if "pattern" in request else _translate(request)
        except Exception as error:  # the translator's own fault: reported by name, the process goes on
            answer = {"errors": [], "text": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
