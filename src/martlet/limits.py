"""Every limit: its name, its default, its unit. An error about a limit says which and how much (`exceeded`)."""

from __future__ import annotations

from typing import Final

import msgspec

from martlet.errors import LimitExceeded

__all__ = ["LIMITS", "Limit", "exceeded"]


class Limit(msgspec.Struct, frozen=True):
    """One limit. `default` is in `unit`s; `source` says where the number comes from."""

    name: str
    default: int
    unit: str
    source: str


_ALL = (
    Limit("payload_bytes", 6_291_456, "bytes", "Lambda: synchronous request payload, 6 MB"),
    Limit("response_bytes", 6_291_556, "bytes", "Lambda: synchronous response payload, 6 MB + 100 B"),
    Limit("response_stream_bytes", 209_715_200, "bytes", "Lambda: streamed response, 200 MB"),
    Limit("request_body_bytes", 10_485_760, "bytes", "API Gateway: payload, 10 MB"),
    Limit("aws_request_bytes", 16_777_216, "bytes", "DynamoDB: one batch, 16 MB; Lambda's API has 70,167,211 of its own"),
    Limit("request_header_bytes", 10_240, "bytes", "API Gateway: total size of headers"),
    Limit("request_line_bytes", 8_192, "bytes", "RFC 9112 section 3 recommends at least 8000 octets"),
    Limit("request_seconds", 30, "seconds", "API Gateway HTTP API: integration timeout"),
    Limit("integration_ms_max", 29_000, "ms", "API Gateway REST API: integration timeout; 30,000 in HTTP APIs"),
    Limit("integration_response_bytes", 10_485_760, "bytes", "API Gateway: payload of an HTTP backend's answer, 10 MB"),
    Limit("integration_connections", 256, "connections", "open connections of HTTP integrations; API requests wait for none"),
    Limit("proxy_connections", 1_024, "connections", "open connections of apps' proxy routes to other servers"),
    Limit("proxy_body_bytes", 5_368_709_120, "bytes", "body of a request to another server; it streams, nothing is kept"),
    Limit("template_steps", 100_000, "steps", "work of one run of a mapping template: nodes rendered and values made"),
    Limit("template_output_bytes", 10_485_760, "bytes", "API Gateway: payload, 10 MB; output and texts of one template run"),
    Limit("template_loop_rounds", 1_000, "rounds", "API Gateway: iterations of one #foreach"),
    Limit("mapping_template_bytes", 307_200, "bytes", "API Gateway: mapping template, 300 KB"),
    Limit("model_bytes", 409_600, "bytes", "API Gateway: JSON schema of a model, 400 KB"),
    Limit("validation_steps", 200_000, "steps", "work of checking one body against its model"),
    Limit("api_routes", 300, "routes", "API Gateway: resources of a REST API, routes of an HTTP API"),
    Limit("authorizer_cache_entries", 10_000, "entries", "answers of authorizers that the edge remembers; the oldest go first"),
    Limit("header_read_seconds", 10, "seconds", "slow-client protection: time to send a whole head"),
    Limit("body_read_seconds", 30, "seconds", "slow-client protection: longest pause within a body"),
    Limit(
        "body_bytes_per_second_min",
        500,
        "bytes per second",
        "slow-client protection: average rate of a body, with a start of body_read_seconds",
    ),
    Limit(
        "response_write_seconds",
        60,
        "seconds",
        "slow-client protection: longest time in which a client reads nothing of its answer",
    ),
    Limit("keep_alive_seconds", 75, "seconds", "idle connection"),
    Limit("connections", 10_000, "connections", "open client connections of one listener"),
    Limit("websockets", 5_000, "connections", "of these, open WebSockets; more are refused at the handshake"),
    Limit(
        "websocket_message_bytes", 1_048_576, "bytes", "one message that a client sends over a WebSocket, all frames together"
    ),
    Limit(
        "websocket_unsent_bytes",
        1_048_576,
        "bytes",
        "messages of @connections that a client has not read yet; one more is refused with LimitExceededException",
    ),
    Limit("api_message_bytes", 131_072, "bytes", "API Gateway: one message of a WebSocket API, 128 KB"),
    Limit("api_frame_bytes", 32_768, "bytes", "API Gateway: one frame of such a message, 32 KB"),
    Limit("api_socket_idle_seconds", 600, "seconds", "API Gateway: a connection without a frame either way is closed"),
    Limit("api_socket_seconds", 7_200, "seconds", "API Gateway: longest life of a connection"),
    Limit("api_socket_messages", 32, "messages", "messages of one connection that run at one time; then it is not read from"),
    Limit(
        "websocket_ping_seconds", 30, "seconds", "silence of a client after which the server pings it; as long again ends it"
    ),
    Limit("websocket_close_seconds", 5, "seconds", "time for a client to answer the closing handshake"),
    Limit("request_buffer_bytes", 268_435_456, "bytes", "request bodies in memory at one time, of one listener"),
    Limit("requests_in_flight", 5_000, "requests", "requests of one listener without an answer; API Gateway: burst of 5,000"),
    Limit("throttle_clients", 10_000, "clients", "client addresses that one throttle remembers; the longest unseen goes first"),
    Limit("function_memory_mb_min", 64, "MB", "half of Lambda's 128: our runtime is smaller"),
    Limit("function_memory_mb_max", 10_240, "MB", "Lambda"),
    Limit("function_timeout_seconds_max", 900, "seconds", "Lambda"),
    Limit("debug_seconds", 14_400, "seconds", "time limit of an event that runs under a debugger (`martlet invoke --debug`)"),
    Limit("function_tmp_mb_max", 10_240, "MB", "Lambda: ephemeral storage"),
    Limit("function_environment_bytes", 4_096, "bytes", "Lambda: all environment variables together"),
    Limit("function_concurrency_max", 1_000, "events", "events at one time in one instance"),
    Limit("function_processes", 128, "processes", "pids of one instance, threads included"),
    Limit("function_file_descriptors", 1_024, "descriptors", "Lambda"),
    Limit(
        "sandbox_connections",
        128,
        "connections",
        "open connections of one instance to the platform, as many to the egress proxy; one more for each event at one time",
    ),
    Limit("function_init_seconds", 10, "seconds", "Lambda: init phase"),
    Limit("function_name_characters", 64, "characters", "Lambda"),
    Limit("instances", 1_000, "instances", "running sandboxes of the host; Lambda's account concurrency"),
    Limit("queued_events", 1_000, "events", "events of one function that wait for an instance"),
    Limit("queue_wait_seconds", 10, "seconds", "longest wait for an instance before 503"),
    Limit("app_functions", 1_500, "functions", "functions of one app"),
    Limit("app_routes", 3_000, "routes", "routes of one app"),
    Limit("app_schedules", 300, "schedules", "EventBridge: rules of one bus"),
    Limit("code_bytes", 262_144_000, "bytes", "Lambda: unzipped code with layers"),
    Limit("code_zipped_bytes", 52_428_800, "bytes", "Lambda: archive sent with a request, 50 MB"),
    Limit("code_files", 50_000, "files", "files of one deployment"),
    Limit("layer_build_seconds", 600, "seconds", "longest build of one dependency layer"),
    Limit("log_bytes_per_function", 33_554_432, "bytes", "log kept on disk for one function; the oldest goes first"),
    Limit("log_bytes_per_invocation", 1_048_576, "bytes", "log of one invocation; the rest is cut, and says so"),
    Limit("log_buffer_bytes", 67_108_864, "bytes", "log records that wait for the disk; more are dropped and counted"),
    Limit("ledger_flush_ms", 500, "ms", "longest time a served invocation is missing from the ledger on disk"),
    Limit("delivery_attempts", 3, "attempts", "Lambda asynchronous invocation: first try and two retries"),
    Limit("event_bytes", 1_048_576, "bytes", "Lambda: payload of an asynchronous invocation, 1 MB"),
    Limit("delivery_age_seconds", 21_600, "seconds", "Lambda: longest time an event is tried while it is throttled"),
    Limit("delivery_concurrency", 64, "events", "events of triggers that run at one time"),
    Limit("dead_letter_days", 14, "days", "SQS: longest retention; older dead letters are removed"),
    Limit("object_put_bytes", 5_368_709_120 + 67_108_864, "bytes", "S3: one PUT or part, 5 GB; and what its chunks add"),
    Limit("queue_in_flight", 120_000, "messages", "SQS: messages of one queue that are received and neither deleted nor back"),
    Limit("change_consumers", 100, "batches", "of one trigger on changes that run at one time; Lambda has 10 for each shard"),
    Limit("change_backlog_bytes", 33_554_432, "bytes", "changes in memory that wait for the function of one trigger"),
    Limit(
        "change_age_seconds", 86_400, "seconds", "DynamoDB Streams: records are kept for a day; a trigger gives up older ones"
    ),
    Limit("queue_consumers", 1_000, "batches", "Lambda: batches of one event source mapping that run at one time"),
    Limit("bus_entries_bytes", 262_144, "bytes", "EventBridge: all entries of one PutEvents, 256 KB"),
    Limit("bus_rules", 2_000, "rules", "rules of one event bus; EventBridge: 300, can be raised"),
    Limit("bus_policy_bytes", 10_240, "bytes", "EventBridge: resource policy of one event bus"),
    Limit("bus_hops", 5, "buses", "event buses that one event passes on from one to the next"),
    Limit("topic_message_bytes", 262_144, "bytes", "SNS: one message with its attributes, and all of a batch, 256 KB"),
    Limit("topic_subscriptions", 10_000, "subscriptions", "subscriptions of one topic; SNS: 12.5 million, 100 for FIFO topics"),
    Limit("archived_events_page", 50, "events", "archived events that one step of a replay puts back on their bus"),
    Limit("active_replays", 10, "replays", "EventBridge: replays that run at one time"),
    Limit("http_delivery_seconds", 5, "seconds", "EventBridge: time limit of one call of an API destination"),
    Limit("http_deliveries", 32, "calls", "calls of API destinations and HTTP subscriptions at one time"),
    Limit("http_deliveries_per_host", 16, "calls", "of these, to one host"),
    Limit("asynchronous_events", 250_000, "events", "events of asynchronous invocation that wait or run; more are throttled"),
    Limit("asynchronous_concurrency", 64, "events", "asynchronous events of one function that run at one time"),
    Limit("failed_events_per_function", 100, "events", "failed events that are kept for `martlet replay`; the oldest go first"),
    Limit("failed_event_bytes", 262_144, "bytes", "a larger failed event of a synchronous invocation is not kept for replay"),
    Limit("recursion_hops", 16, "invocations", "Lambda: a function is stopped when one chain has called it more often"),
    Limit("function_tags", 50, "tags", "Lambda: tags of one resource"),
    Limit("function_policy_bytes", 20_480, "bytes", "Lambda: resource-based policy of one function, version or alias"),
    Limit("account_concurrency", 1_000, "events", "Lambda: concurrent executions of one account, of which 100 stay unreserved"),
    Limit("transaction_bytes", 16_777_216, "bytes", "keys and values that one transaction writes"),
    Limit("key_bytes", 2_560, "bytes", "one key of the store; PostgreSQL: an index row is at most a third of a page (2,704)"),
    Limit("value_bytes", 16_777_216, "bytes", "one value of the store"),
    Limit("waiting_transactions", 4_096, "transactions", "transactions that wait for the disk, before 503"),
    Limit("waiting_bytes", 67_108_864, "bytes", "keys and values of transactions that wait for the disk, before 503"),
    Limit("document_bytes", 409_600, "bytes", "DynamoDB: one item, 400 KB"),
    Limit("document_id_bytes", 512, "bytes", "a document's id in UTF-8; with its collection it fits into one key"),
    Limit("document_page_bytes", 1_048_576, "bytes", "DynamoDB: one page of a listing, 1 MB"),
    Limit("document_depth", 100, "levels", "objects and arrays inside each other in one document"),
    Limit("document_values", 100_000, "values", "values of one document, nested ones included"),
    Limit("decimal_digits", 38, "digits", "DynamoDB: precision of a number"),
    Limit("database_depth", 8, "levels", "databases inside each other"),
    Limit("database_collections", 10_000, "collections", "collections of one database"),
    Limit("collection_indexes", 40, "indexes", "indexes of one collection; DynamoDB: 20 global and 5 local ones"),
    Limit("collection_fields", 1_000, "fields", "fields, computed fields and checks of one schema"),
    Limit("index_terms", 8, "terms", "terms and, apart from them, covered values of one index"),
    Limit("index_entries", 1_000, "entries", "entries of one document in one index that has a multi-value term"),
    Limit(
        "index_key_bytes", 2_048, "bytes", "one index entry: its terms and the document's id; a term of 00 bytes counts twice"
    ),
    Limit("transaction_documents", 1_000, "documents", "writes of one transaction; DynamoDB: 100"),
    Limit("cascade_documents", 1_000, "documents", "documents that one delete takes with it by `on_delete: cascade`"),
    Limit("query_documents", 1_000, "documents", "one page of a query"),
    Limit(
        "query_scan_documents",
        10_000,
        "documents",
        "documents looked at for one page of a query; the page ends, and says where",
    ),
    Limit("query_sort_documents", 10_000, "documents", "documents of a query that is sorted otherwise than by its index"),
    Limit("expand_documents", 1_000, "documents", "documents read along references for one page"),
    Limit("expression_bytes", 4_096, "bytes", "DynamoDB: one expression, 4 KB"),
    Limit(
        "expression_nodes",
        500,
        "nodes",
        "operators, functions, fields and constants of one expression; DynamoDB: 300 operators",
    ),
    Limit("expression_depth", 32, "levels", "parentheses, functions and operators inside each other in one expression"),
    Limit("audit_days", 400, "days", "the audit log: older entries are removed, and the chain begins after them"),
    Limit(
        "access_log_entries", 1_000, "entries", "the access log: actions on resources kept of one principal; then resource *"
    ),
    Limit("history_days", 3_650, "days", "longest retention of a collection's history"),
    Limit("idempotency_hours", 24, "hours", "time in which a retried transaction gets the first answer; DynamoDB: 10 minutes"),
    Limit("idempotency_key_characters", 255, "characters", "an idempotency key"),
    Limit("changes_page", 1_000, "changes", "one page of a change feed"),
    Limit("graphql_schema_bytes", 262_144, "bytes", "all SDL of one database"),
    Limit("graphql_types", 300, "types", "types, enums and inputs that the SDL of one database defines"),
    Limit("graphql_request_bytes", 1_048_576, "bytes", "one GraphQL request: document, variables, extensions"),
    Limit("graphql_tokens", 4_000, "tokens", "one GraphQL document; depth of brackets and braces apart"),
    Limit("graphql_depth", 20, "levels", "fields inside each other in one GraphQL operation"),
    Limit("graphql_fields", 1_000, "fields", "fields of one GraphQL operation, each as often as fragments repeat it"),
    Limit("graphql_aliases", 100, "aliases", "aliases of one GraphQL operation"),
    Limit("graphql_cost", 10_000, "documents", "documents that one GraphQL operation may ask for, pages by their size"),
    Limit("graphql_values", 250_000, "values", "fields of all documents in the answer of one GraphQL operation"),
    Limit("graphql_compute", 250_000, "nodes", "nodes of filters evaluated for one GraphQL operation; a page ends before that"),
    Limit("graphql_response_bytes", 10_485_760, "bytes", "the answer of one GraphQL operation"),
    Limit("graphql_init_seconds", 3, "seconds", "graphql-transport-ws: time for a client's connection_init"),
    Limit("graphql_operations", 100, "operations", "graphql-transport-ws: operations of one WebSocket that run at one time"),
    Limit("graphql_cache_bytes", 1_048_576, "bytes", "text of the GraphQL documents that are kept parsed and validated"),
    Limit("graphql_schemas_cached", 64, "schemas", "GraphQL schemas that are kept ready; the longest unused goes first"),
    Limit("import_errors", 1_000, "errors", "lines that an import names; more are only counted"),
    Limit("import_line_bytes", 1_048_576, "bytes", "one line of an import"),
    Limit("template_bytes", 1_048_576, "bytes", "CloudFormation: template body, 1 MB"),
    Limit("template_description_bytes", 1_024, "bytes", "CloudFormation: template description"),
    Limit("template_values", 200_000, "values", "a template with what its aliases repeat"),
    Limit("template_depth", 100, "levels", "nesting of a template"),
    Limit("stack_resources", 500, "resources", "CloudFormation: resources of one template"),
    Limit("stack_parameters", 200, "parameters", "CloudFormation: parameters of one template"),
    Limit("stack_parameter_bytes", 4_096, "bytes", "CloudFormation: one parameter's value"),
    Limit("stack_mappings", 200, "mappings", "CloudFormation: mappings of one template"),
    Limit("stack_outputs", 200, "outputs", "CloudFormation: outputs of one template"),
    Limit("stack_events", 2_000, "events", "events of one stack that are kept; the oldest go first"),
    Limit("custom_resource_seconds", 3_600, "seconds", "CloudFormation: longest wait for a custom resource's answer"),
    Limit("translation_seconds", 60, "seconds", "longest translation of one SAM template"),
    Limit("inline_code_bytes", 4_194_304, "bytes", "CloudFormation: source of a function within a template, 4 MB"),
    Limit("build_seconds", 600, "seconds", "longest build of one function's code"),
    Limit("users_tries_account", 10, "tries", "sign-ins and codes of one end user in 15 minutes"),
    Limit("users_tries_address", 100, "tries", "sign-ins and codes from one client's address in 15 minutes"),
    Limit("users_codes_account", 5, "codes", "codes that are sent to one e-mail address in an hour"),
    Limit("users_codes_address", 50, "codes", "codes that one client's address asks for in an hour"),
    Limit("users_code_tries", 5, "tries", "wrong tries of one code, after which it is none any more"),
    Limit("users_hashing", 64, "passwords", "passwords of end users that are being hashed; 503 beyond them"),
    Limit("users_access_seconds", 900, "seconds", "life of an end user's access token"),
    Limit("users_session_days", 30, "days", "how long an end user's session lasts that nobody refreshes"),
    Limit("users_sessions", 50, "sessions", "sessions of one end user; the one refreshed longest ago ends first"),
    Limit("users_groups", 50, "groups", "groups of one end user"),
    Limit("rules_examined", 1_000, "documents", "documents that one list of an end user looks at; it goes on by its cursor"),
    Limit("users_request_bytes", 16_384, "bytes", "body of one request to the endpoints of an app's users"),
)

LIMITS: Final[dict[str, Limit]] = {limit.name: limit for limit in _ALL}


def exceeded(name: str, actual: int | None = None, what: str = "", allowed: int | None = None) -> LimitExceeded:
    """The error for limit `name`: says which limit, how much it allows and, if known, how much was asked.

    `allowed` replaces the default where the limit was configured.
    """
    limit = LIMITS[name]
    value = limit.default if allowed is None else allowed
    subject = f"{what}: " if what else ""
    got = "" if actual is None else f", got {actual}"
    return LimitExceeded(
        f"{subject}limit {name} is {value} {limit.unit}{got}",
        limit=name,
        limit_value=value,
        unit=limit.unit,
    )
