"""Our verification against botocore's own signer: what it signs passes, and any change to what it signed fails."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from martlet.auth import sigv4
from martlet.errors import MartletError, Unauthenticated, Unsupported

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
KEY, SECRET = "MARTLETAAAAAAAAAAAAA", "s3cr3t/" + "x" * 33
HOST = "127.0.0.1:8701"


class Signed:
    """A request as it would come over the wire."""

    def __init__(self, method: str, url: str, headers: dict[str, str], body: bytes) -> None:
        parts = urlsplit(url)
        self.method, self.path, self.query, self.body = method, parts.path.encode(), parts.query.encode(), body
        self.headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        if not any(name.lower() == b"host" for name, _ in self.headers):
            self.headers.append((b"Host", HOST.encode()))

    def header(self, name: str) -> str:
        return next((value.decode() for key, value in self.headers if key.decode().lower() == name), "")

    def replace(self, name: str, value: str) -> None:
        self.headers = [(key, value.encode() if key.decode().lower() == name else old) for key, old in self.headers]

    def verify(self, now_ms: int = NOW_MS, secret: str = SECRET) -> sigv4.Claim:
        claim = sigv4.claim_of(self.query, sigv4.fields_of(self.headers), self.header("authorization"))
        if claim is None or claim.access_key_id != KEY:  # then nobody is authenticated by it
            raise sigv4.refused("InvalidClientTokenId", "not a claim of ours")
        sigv4.verify(claim, secret, now_ms, self.method, self.path, self.query, sigv4.fields_of(self.headers), self.body)
        return claim

    def refused(self, now_ms: int = NOW_MS) -> str:
        with pytest.raises(Unauthenticated) as caught:
            self.verify(now_ms)
        assert SECRET not in str(caught.value.problem())
        return str(caught.value.details["reason"])


SIGNERS: dict[tuple[str, bool], Callable[..., botocore.auth.SigV4Auth]] = {
    ("header", False): botocore.auth.SigV4Auth,
    ("header", True): botocore.auth.S3SigV4Auth,
    ("query", False): botocore.auth.SigV4QueryAuth,
    ("query", True): botocore.auth.S3SigV4QueryAuth,
}


def sign(
    form: str,
    service: str = "lambda",
    method: str = "POST",
    path: str = "/2015-03-31/functions/shop-orders/invocations",
    query: str = "",
    headers: dict[str, str] | None = None,
    body: bytes = b'{"a":1}',
    region: str = "eu-west-1",
    token: str | None = None,
) -> Signed:
    url = f"http://{HOST}{path}" + (f"?{query}" if query else "")
    # A presigner takes the body for form fields that belong into the query; S3's does not sign it at all.
    request = AWSRequest(method=method, url=url, data=body if form == "header" else b"", headers=headers or {})
    SIGNERS[form, service == "s3"](Credentials(KEY, SECRET, token), service, region).add_auth(request)
    return Signed(method, request.url, dict(request.headers.items()), body if form == "header" or service == "s3" else b"")


@pytest.fixture(autouse=True)
def _signers_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: NOW)


BOTH = pytest.mark.parametrize("form", ["header", "query"])
SERVICES = pytest.mark.parametrize("service", ["lambda", "s3"])


@BOTH
@SERVICES
def test_a_signed_request_passes(form: str, service: str) -> None:
    claim = sign(form, service, body=b"hello").verify()
    assert (claim.region, claim.service, claim.date) == ("eu-west-1", service, "20260304")


SEGMENT = st.text(st.characters(codec="utf-8", exclude_characters="/\x00"), min_size=1, max_size=12).filter(
    lambda text: text not in (".", "..")
)
PAIRS = st.lists(st.tuples(SEGMENT, st.text(max_size=12)), max_size=4, unique_by=lambda pair: pair[0])
HEADER_NAME = st.from_regex(r"\A[a-z][a-z0-9-]{0,12}\Z").filter(
    lambda name: name not in ("host", "date", "authorization", "expect", "connection") and not name.startswith("x-amz")
)
HEADER_VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20).filter(str.strip)
REQUEST = st.fixed_dictionaries(
    {
        "form": st.sampled_from(["header", "query"]),
        "service": st.sampled_from(["lambda", "s3", "sqs", "execute-api"]),
        "method": st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"]),
        "path": st.lists(SEGMENT, max_size=4).map(lambda parts: "/" + "/".join(quote(part, safe="-_.~") for part in parts)),
        "query": PAIRS.map(
            lambda pairs: "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
        ),
        "headers": st.dictionaries(HEADER_NAME, HEADER_VALUE, max_size=4),
        "body": st.binary(max_size=40),
        "region": st.sampled_from(["us-east-1", "eu-central-1"]),
    }
)


def sign_any(drawn: dict[str, object]) -> Signed:
    return sign(**drawn)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(REQUEST)
def test_whatever_botocore_signs_passes(drawn: dict[str, object]) -> None:
    sign_any(drawn).verify()


def tamper_query_byte(request: Signed, claim: sigv4.Claim, at: int) -> None:
    index = at % len(request.query) if request.query else 0
    old = request.query[index : index + 1]
    assume(old.isalnum())
    assume(b"%" not in request.query[max(index - 2, 0) : index])  # "%2F" and "%2f" mean the same
    request.query = request.query[:index] + (b"Z" if old != b"Z" else b"Y") + request.query[index + 1 :]


def tamper_body(request: Signed, claim: sigv4.Claim, at: int) -> None:
    assume(claim.service != "s3" or claim.expires_seconds is None)  # a presigned S3 URL does not cover its body
    request.body += b"x"


def tamper_header(request: Signed, claim: sigv4.Claim, at: int) -> None:
    name = claim.signed_headers[at % len(claim.signed_headers)]
    request.replace(name, request.header(name) + "x")


def tamper_by_leaving_out(request: Signed, claim: sigv4.Claim, at: int) -> None:
    name = claim.signed_headers[at % len(claim.signed_headers)]
    request.headers = [(key, value) for key, value in request.headers if key.decode().lower() != name]


def tamper_signature(request: Signed, claim: sigv4.Claim, at: int) -> None:
    index, old = at % 64, claim.signature
    tamper_text(request, old, old[:index] + ("0" if old[index] != "0" else "1") + old[index + 1 :])


def tamper_text(request: Signed, old: str, new: str) -> None:
    request.query = request.query.replace(old.encode(), new.encode())
    request.replace("authorization", request.header("authorization").replace(old, new))


TAMPERS: dict[str, Callable[[Signed, sigv4.Claim, int], object]] = {
    "method": lambda request, claim, at: setattr(request, "method", "PATCH"),
    "path": lambda request, claim, at: setattr(request, "path", request.path + b"x"),
    "query": lambda request, claim, at: setattr(request, "query", request.query + b"&x=1"),
    "query byte": tamper_query_byte,
    "body": tamper_body,
    "amz header": lambda request, claim, at: request.headers.append((b"x-amz-meta-extra", b"1")),
    "signed header": tamper_header,
    "left out header": tamper_by_leaving_out,
    "signature": tamper_signature,
    "region": lambda request, claim, at: tamper_text(request, claim.region, "mars-1"),
    "service": lambda request, claim, at: tamper_text(request, f"{claim.service}/aws4", "iam/aws4"),
}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(REQUEST, st.sampled_from(sorted(TAMPERS)), st.integers(0, 1000))
def test_any_change_to_what_was_signed_fails(drawn: dict[str, object], part: str, at: int) -> None:
    request = sign_any(drawn)
    before = vars(request).copy()
    TAMPERS[part](request, request.verify(), at)
    assume(vars(request) != before or part == "amz header")
    with pytest.raises(Unauthenticated):
        request.verify()


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=80),
    st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=30)), max_size=4),
    st.text(max_size=90),
)
def test_garbage_is_refused_and_never_crashes(query: bytes, headers: list[tuple[bytes, bytes]], text: str) -> None:
    for authorization in (
        text,
        f"{sigv4.ALGORITHM} {text}",
        f"{sigv4.ALGORITHM} Credential={text}, SignedHeaders=host, Signature=x",
    ):
        try:
            claim = sigv4.claim_of(query, sigv4.fields_of(headers), authorization)
        except MartletError:
            continue
        assert claim is None


def test_another_secret_fails() -> None:
    with pytest.raises(Unauthenticated):
        sign("header").verify(secret=SECRET + "x")


def test_fifteen_minutes_of_skew_are_allowed_and_no_more() -> None:
    request = sign("header")
    edge = int(timedelta(minutes=15).total_seconds() * 1000)
    request.verify(NOW_MS + edge)
    request.verify(NOW_MS - edge)
    assert request.refused(NOW_MS + edge + 1000) == "RequestTimeTooSkewed"
    assert request.refused(NOW_MS - edge - 1000) == "RequestTimeTooSkewed"


def test_a_presigned_url_ends_when_it_says() -> None:
    request = sign("query", body=b"")
    request.verify(NOW_MS + 3600_000)
    assert request.refused(NOW_MS + 3601_000) == "RequestExpired"
    assert request.refused(NOW_MS - 16 * 60_000) == "RequestTimeTooSkewed"


@pytest.mark.parametrize("expires", ["0", "-1", "604801", "x", "", "1e3", "٣"])
def test_expires_must_be_sane(expires: str) -> None:
    request = sign("query", body=b"")
    request.query = request.query.replace(b"X-Amz-Expires=3600", b"X-Amz-Expires=" + quote(expires).encode())
    assert request.refused() == "IncompleteSignature"


def test_s3_unsigned_payload_covers_no_body_but_nothing_else_goes() -> None:
    request = sign("header", "s3", "PUT", "/bucket/key", headers={}, body=b"one")
    request.body = b"two"
    assert request.refused() == "XAmzContentSHA256Mismatch"
    request.replace("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    assert request.refused() == "SignatureDoesNotMatch"


def test_s3_keeps_its_path_as_sent() -> None:
    sign("header", "s3", "PUT", "/bucket//a/../b/./c%2Fd%20e", body=b"x").verify()
    moved = sign("header", "s3", "PUT", "/bucket/a%2Fb", body=b"x")
    moved.path = b"/bucket/a/b"
    assert moved.refused() == "SignatureDoesNotMatch"


@pytest.mark.parametrize("path", ["/a/../b", "/./b", "//b", "/a//b", "/a/.."])
def test_a_path_that_two_readers_could_read_differently_is_refused(path: str) -> None:
    assert sign("header", path=path).refused() == "IncompleteSignature"


def test_s3_without_a_content_hash_is_refused() -> None:
    assert sign("header", "lambda", path="/b").verify().service == "lambda"
    request = AWSRequest(method="GET", url=f"http://{HOST}/b", data=b"", headers={})
    botocore.auth.SigV4Auth(Credentials(KEY, SECRET), "s3", "us-east-1").add_auth(request)
    assert Signed("GET", request.url, dict(request.headers.items()), b"").refused() == "MissingSecurityHeader"


def test_chunked_signatures_are_unsupported_by_name() -> None:
    request = sign("header", headers={"X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"})
    with pytest.raises(Unsupported, match="STREAMING-AWS4-HMAC-SHA256-PAYLOAD"):
        request.verify()


def test_a_date_header_may_stand_for_x_amz_date() -> None:
    sign("header", headers={"Date": "now"}).verify()


def test_a_plus_in_a_query_is_a_space() -> None:
    request = sign("header", query="q=a%20b")
    request.query = b"q=a+b"
    request.verify()
    plus = sign("header", query="q=a%2Bb")
    plus.verify()
    plus.query = b"q=a+b"
    assert plus.refused() == "SignatureDoesNotMatch"


def test_headers_sent_twice_are_joined_in_order() -> None:
    request = sign("header", headers={"X-Many": "a,b"})
    request.headers = [pair for pair in request.headers if pair[0] != b"X-Many"] + [(b"X-Many", b"a"), (b"x-many", b" b ")]
    request.verify()
    request.headers[-1], request.headers[-2] = request.headers[-2], request.headers[-1]
    assert request.refused() == "SignatureDoesNotMatch"


@pytest.mark.parametrize("name", ["x-amz-date", "X-AMZ-DATE", "Host"])
def test_doubled_headers_that_decide_are_refused(name: str) -> None:
    request = sign("header")
    request.headers.append((name.encode(), request.header(name.lower()).encode()))
    assert request.refused() == "IncompleteSignature"


@pytest.mark.parametrize(
    "change",
    [
        ("Signature=", "Signature=A"),
        ("SignedHeaders=host;", "SignedHeaders="),
        ("SignedHeaders=host;", "SignedHeaders=host;host;"),
        ("SignedHeaders=host;", "SignedHeaders=Host;"),
        ("aws4_request", "aws4"),
        (", Signature=", ", Signature=0, Signature="),
        (", SignedHeaders=", ", Extra=1, SignedHeaders="),
        ("Credential=MARTLETAAAAAAAAAAAAA/", "Credential="),
        ("/20260304/", "/20260305/"),
    ],
)
def test_a_malformed_authorization_is_refused(change: tuple[str, str]) -> None:
    request = sign("header")
    request.replace("authorization", request.header("authorization").replace(*change))
    request.refused()


def test_signed_twice_is_refused() -> None:
    request = sign("query", body=b"")
    request.headers.append((b"Authorization", b"Bearer x"))
    assert request.refused() == "IncompleteSignature"


def test_a_query_parameter_given_twice_is_refused() -> None:
    request = sign("query", body=b"")
    request.query += b"&X-Amz-Expires=3600"
    assert request.refused() == "IncompleteSignature"


def test_a_broken_percent_code_is_refused() -> None:
    request = sign("header")
    request.query = b"a=%zz"
    assert request.refused() == "IncompleteSignature"
