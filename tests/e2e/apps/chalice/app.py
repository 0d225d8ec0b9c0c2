from chalice import BadRequestError, Chalice, CORSConfig, Rate, Response

app = Chalice(app_name="ch")


@app.route("/")
def index():
    return {"hello": "world"}


@app.route("/hello/{name}", methods=["GET"], cors=True)
def hello(name):
    return {"hello": name, "query": app.current_request.query_params, "stage": app.current_request.context["stage"]}


@app.route(
    "/items", methods=["POST"], cors=CORSConfig(allow_origin="https://shop.example", allow_headers=["X-Special"], max_age=600)
)
def items():
    body = app.current_request.json_body
    if "name" not in body:
        raise BadRequestError("no name")
    return Response(body={"made": body["name"]}, status_code=201, headers={"X-Made": "yes"})


@app.route("/form", methods=["PUT"], content_types=["application/x-www-form-urlencoded"])
def form():
    return {"raw": app.current_request.raw_body.decode()}


@app.route("/blob", methods=["POST"], content_types=["application/octet-stream"])
def blob():
    return Response(body=app.current_request.raw_body, status_code=200, headers={"Content-Type": "application/octet-stream"})


@app.schedule(Rate(5, unit=Rate.MINUTES))
def every(event):
    print("tick", event.to_dict())
    return {"detail": event.detail}


@app.lambda_function(name="plain")
def plain(event, context):
    return {"plain": event}
