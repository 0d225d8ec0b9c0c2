"""Powertools' event handlers, logger, tracer and metrics, as its documentation shows them."""

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.event_handler import (
    APIGatewayHttpResolver,
    APIGatewayRestResolver,
    CORSConfig,
    LambdaFunctionUrlResolver,
)
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import MetricUnit

logger = Logger()
metrics = Metrics()
tracer = Tracer()


def build(resolver):
    app = resolver(enable_validation=True, cors=CORSConfig(allow_origin="https://shop.example"))

    @app.get("/things/<number>")
    @tracer.capture_method
    def thing(number: int, q: str = "none") -> dict:
        if number == 404:
            raise NotFoundError("no such thing")
        metrics.add_metric(name="Things", unit=MetricUnit.Count, value=number)
        logger.info("a thing", extra={"number": number})
        return {"number": number, "q": q, "kind": resolver.__name__}

    @app.post("/things")
    def make():
        return {"made": app.current_event.json_body}, 201

    return app


REST, HTTP, URL = build(APIGatewayRestResolver), build(APIGatewayHttpResolver), build(LambdaFunctionUrlResolver)


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST)
@tracer.capture_lambda_handler
@metrics.log_metrics(capture_cold_start_metric=True)
def rest(event, context):
    return REST.resolve(event, context)


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP)
def http(event, context):
    return HTTP.resolve(event, context)


def url(event, context):
    return URL.resolve(event, context)
