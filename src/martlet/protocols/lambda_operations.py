"""The names of Lambda's operations by method and path, so that one we do not have is refused by its name.

Facts of the service's public model (API version 2015-03-31, as of 2026-10). "{}" stands for one segment; after
"?" comes the query that tells an operation from another on the same path.
"""

from __future__ import annotations

from typing import Final

__all__ = ["operation_name"]

_TABLE: Final = """
POST /2014-11-13/functions/{}/invoke-async InvokeAsync
GET /2015-03-31/event-source-mappings ListEventSourceMappings
POST /2015-03-31/event-source-mappings CreateEventSourceMapping
DELETE /2015-03-31/event-source-mappings/{} DeleteEventSourceMapping
GET /2015-03-31/event-source-mappings/{} GetEventSourceMapping
PUT /2015-03-31/event-source-mappings/{} UpdateEventSourceMapping
GET /2015-03-31/functions ListFunctions
POST /2015-03-31/functions CreateFunction
DELETE /2015-03-31/functions/{} DeleteFunction
GET /2015-03-31/functions/{} GetFunction
GET /2015-03-31/functions/{}/aliases ListAliases
POST /2015-03-31/functions/{}/aliases CreateAlias
DELETE /2015-03-31/functions/{}/aliases/{} DeleteAlias
GET /2015-03-31/functions/{}/aliases/{} GetAlias
PUT /2015-03-31/functions/{}/aliases/{} UpdateAlias
PUT /2015-03-31/functions/{}/code UpdateFunctionCode
GET /2015-03-31/functions/{}/configuration GetFunctionConfiguration
PUT /2015-03-31/functions/{}/configuration UpdateFunctionConfiguration
POST /2015-03-31/functions/{}/invocations Invoke
GET /2015-03-31/functions/{}/policy GetPolicy
POST /2015-03-31/functions/{}/policy AddPermission
DELETE /2015-03-31/functions/{}/policy/{} RemovePermission
GET /2015-03-31/functions/{}/versions ListVersionsByFunction
POST /2015-03-31/functions/{}/versions PublishVersion
GET /2016-08-19/account-settings GetAccountSettings
DELETE /2017-03-31/tags/{} UntagResource
GET /2017-03-31/tags/{} ListTags
POST /2017-03-31/tags/{} TagResource
DELETE /2017-10-31/functions/{}/concurrency DeleteFunctionConcurrency
PUT /2017-10-31/functions/{}/concurrency PutFunctionConcurrency
GET /2018-10-31/layers ListLayers
GET /2018-10-31/layers/{}/versions ListLayerVersions
POST /2018-10-31/layers/{}/versions PublishLayerVersion
DELETE /2018-10-31/layers/{}/versions/{} DeleteLayerVersion
GET /2018-10-31/layers/{}/versions/{} GetLayerVersion
GET /2018-10-31/layers/{}/versions/{}/policy GetLayerVersionPolicy
POST /2018-10-31/layers/{}/versions/{}/policy AddLayerVersionPermission
DELETE /2018-10-31/layers/{}/versions/{}/policy/{} RemoveLayerVersionPermission
GET /2018-10-31/layers?find=LayerVersion GetLayerVersionByArn
DELETE /2019-09-25/functions/{}/event-invoke-config DeleteFunctionEventInvokeConfig
GET /2019-09-25/functions/{}/event-invoke-config GetFunctionEventInvokeConfig
POST /2019-09-25/functions/{}/event-invoke-config UpdateFunctionEventInvokeConfig
PUT /2019-09-25/functions/{}/event-invoke-config PutFunctionEventInvokeConfig
GET /2019-09-25/functions/{}/event-invoke-config/list ListFunctionEventInvokeConfigs
GET /2019-09-30/functions/{}/concurrency GetFunctionConcurrency
DELETE /2019-09-30/functions/{}/provisioned-concurrency DeleteProvisionedConcurrencyConfig
GET /2019-09-30/functions/{}/provisioned-concurrency GetProvisionedConcurrencyConfig
PUT /2019-09-30/functions/{}/provisioned-concurrency PutProvisionedConcurrencyConfig
GET /2019-09-30/functions/{}/provisioned-concurrency?List=ALL ListProvisionedConcurrencyConfigs
GET /2020-04-22/code-signing-configs ListCodeSigningConfigs
POST /2020-04-22/code-signing-configs CreateCodeSigningConfig
DELETE /2020-04-22/code-signing-configs/{} DeleteCodeSigningConfig
GET /2020-04-22/code-signing-configs/{} GetCodeSigningConfig
PUT /2020-04-22/code-signing-configs/{} UpdateCodeSigningConfig
GET /2020-04-22/code-signing-configs/{}/functions ListFunctionsByCodeSigningConfig
DELETE /2020-06-30/functions/{}/code-signing-config DeleteFunctionCodeSigningConfig
GET /2020-06-30/functions/{}/code-signing-config GetFunctionCodeSigningConfig
PUT /2020-06-30/functions/{}/code-signing-config PutFunctionCodeSigningConfig
GET /2021-07-20/functions/{}/runtime-management-config GetRuntimeManagementConfig
PUT /2021-07-20/functions/{}/runtime-management-config PutRuntimeManagementConfig
DELETE /2021-10-31/functions/{}/url DeleteFunctionUrlConfig
GET /2021-10-31/functions/{}/url GetFunctionUrlConfig
POST /2021-10-31/functions/{}/url CreateFunctionUrlConfig
PUT /2021-10-31/functions/{}/url UpdateFunctionUrlConfig
GET /2021-10-31/functions/{}/urls ListFunctionUrlConfigs
POST /2021-11-15/functions/{}/response-streaming-invocations InvokeWithResponseStream
GET /2024-08-31/functions/{}/recursion-config GetFunctionRecursionConfig
PUT /2024-08-31/functions/{}/recursion-config PutFunctionRecursionConfig
GET /2025-11-30/capacity-providers ListCapacityProviders
POST /2025-11-30/capacity-providers CreateCapacityProvider
DELETE /2025-11-30/capacity-providers/{} DeleteCapacityProvider
GET /2025-11-30/capacity-providers/{} GetCapacityProvider
PUT /2025-11-30/capacity-providers/{} UpdateCapacityProvider
GET /2025-11-30/capacity-providers/{}/function-versions ListFunctionVersionsByCapacityProvider
GET /2025-11-30/functions/{}/function-scaling-config GetFunctionScalingConfig
PUT /2025-11-30/functions/{}/function-scaling-config PutFunctionScalingConfig
POST /2025-12-01/durable-execution-callbacks/{}/fail SendDurableExecutionCallbackFailure
POST /2025-12-01/durable-execution-callbacks/{}/heartbeat SendDurableExecutionCallbackHeartbeat
POST /2025-12-01/durable-execution-callbacks/{}/succeed SendDurableExecutionCallbackSuccess
DELETE /2025-12-01/durable-executions/{} DeleteDurableExecution
GET /2025-12-01/durable-executions/{} GetDurableExecution
POST /2025-12-01/durable-executions/{}/checkpoint CheckpointDurableExecution
GET /2025-12-01/durable-executions/{}/history GetDurableExecutionHistory
POST /2025-12-01/durable-executions/{}/pause PauseDurableExecution
POST /2025-12-01/durable-executions/{}/resume ResumeDurableExecution
GET /2025-12-01/durable-executions/{}/state GetDurableExecutionState
POST /2025-12-01/durable-executions/{}/stop StopDurableExecution
GET /2025-12-01/functions/{}/durable-executions ListDurableExecutionsByFunction
DELETE /2026-07-09/resource-policy/{} DeleteResourcePolicy
GET /2026-07-09/resource-policy/{} GetResourcePolicy
PUT /2026-07-09/resource-policy/{} PutResourcePolicy
"""


def _parse(line: str) -> tuple[str, tuple[str, ...], str, str]:
    method, target, name = line.split()
    path, _, query = target.partition("?")
    return method, tuple(path.split("/")[1:]), query, name


# Those with a query first: they are the narrower ones.
_OPERATIONS: Final = sorted((_parse(line) for line in _TABLE.split("\n") if line), key=lambda operation: not operation[2])


def operation_name(method: str, segments: list[str], query: str) -> str | None:
    """The operation that this request is for; a "/" at the path's end does not matter. None: not one of Lambda's."""
    wanted = segments[:-1] if len(segments) > 1 and not segments[-1] else segments
    for operation_method, parts, literal, name in _OPERATIONS:
        if operation_method != method or len(parts) != len(wanted) or (literal and literal not in query.split("&")):
            continue
        if all(part == "{}" or part == segment for part, segment in zip(parts, wanted, strict=True)):
            return name
    return None
