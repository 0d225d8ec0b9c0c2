"""Charter of APIs within the room apps.

Owns: the APIs of API Gateway that the edge serves, as records in the store, and the ways to declare one: an OpenAPI document,
CloudFormation's AWS::ApiGateway::* and AWS::ApiGatewayV2::* resources with their intrinsic functions already resolved.
Offers: `Apis` (create, replace, remove, list); `rest_api_from`, `http_api_from`, `from_openapi` (pure builders); `Part`.
Never: takes a property that is not honoured: each is a `DeployFailed` that names the resource, the property and the line,
or, under `--lenient`, a warning with the same words.
"""

from __future__ import annotations

from martlet.apps.apis.http import http_api_from
from martlet.apps.apis.openapi import from_openapi
from martlet.apps.apis.reading import Part
from martlet.apps.apis.registry import Apis
from martlet.apps.apis.rest import rest_api_from

__all__ = ["Apis", "Part", "from_openapi", "http_api_from", "rest_api_from"]
