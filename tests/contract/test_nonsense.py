"""What is nonsense in a way that no schema names, sent to every operation: a 4xx problem, never a 500."""

from typing import Any

import httpx

from tests.api.conftest import Service

NO_IDS = (
    "abc",
    "0",
    "-1",
    "1.0",
    "1e3",
    "\uff19",
    "true",
    "null",
    "%00",
    "%0A",
    "%FF",
    "9223372036854775808",
    "9" * 400,
)
NO_LIMITS = ("0", "-1", "1001", "1e9", "abc", "", "null", "1.5", "9" * 400, "%00", "\uff19")
NO_CURSORS = (
    "x",
    "",
    "%00",
    "e30",
    "bnVsbA",
    "WzFlOTk5XQ",
    "WzkyMjMzNzIwMzY4NTQ3NzU4MDhd",
    "W10",
    "%F0%9F%98%80",
)
VALUES = {"storage_id": "1", "manifest_id": "1", "number": "0", "index": "0", "token_id": "1", "key": "a.jpg"}
JOB = "0195f1a2-7c1e-7d5a-9c55-3f4f0a6e2b11"


async def operations(service: Service) -> list[tuple[str, str, dict[str, Any]]]:
    """Every operation: method, path, description."""
    document = (await service.admin.get("/openapi.json")).json()
    return [
        (method.upper(), path, facts)
        for path, methods in document["paths"].items()
        for method, facts in methods.items()
    ]


def takes_json(facts: dict[str, Any]) -> bool:
    """Whether an operation has a body that is read as a whole: an upload takes any bytes, and many more."""
    return "application/json" in facts.get("requestBody", {}).get("content", {})


def filled(path: str, **values: str) -> str:
    """A path with an id in each of its places."""
    return path.format_map({**VALUES, "job_id": JOB, **values})


def parameters(facts: dict[str, Any], place: str) -> set[str]:
    """The names of an operation's parameters in a place."""
    return {one["name"] for one in facts.get("parameters", ()) if one["in"] == place}


def assert_problem(answer: httpx.Response, *statuses: int) -> None:
    """Check that an answer is a problem of one of these statuses."""
    asked = f"{answer.request.method} {answer.request.url} -> {answer.status_code} {answer.text[:200]}"
    assert answer.status_code in statuses, asked
    assert answer.headers["content-type"] == "application/problem+json", asked
    if answer.request.method != "HEAD":
        assert answer.json()["status"] == answer.status_code


async def test_ids_that_are_no_ids_are_404(service: Service) -> None:
    tried = 0
    for method, path, facts in await operations(service):
        for name in parameters(facts, "path") - {"key"}:
            for odd in NO_IDS:
                if (name, odd) == ("number", "0"):
                    continue
                body = b"{}" if "requestBody" in facts else None
                kind = {"Content-Type": "application/json"} if body else {}
                answer = await service.admin.request(
                    method, filled(path, **{name: odd}), content=body, headers=kind
                )
                assert_problem(answer, 404)
                tried += 1
    assert tried > 200


async def test_page_sizes_that_are_none_are_named(service: Service) -> None:
    tried = 0
    for method, path, facts in await operations(service):
        if "limit" in parameters(facts, "query"):
            for odd in NO_LIMITS:
                answer = await service.admin.request(method, f"{filled(path)}?limit={odd}")
                assert_problem(answer, 422)
                assert [one["pointer"] for one in answer.json()["errors"]] == ["query:limit"], odd
                tried += 1
    assert tried >= 7 * len(NO_LIMITS)


async def test_cursors_that_are_none_are_named(service: Service) -> None:
    for method, path, facts in await operations(service):
        if "cursor" in parameters(facts, "query") and "{" not in path:
            for odd in NO_CURSORS:
                answer = await service.admin.request(method, f"{path}?cursor={odd}")
                assert_problem(answer, 422)
                assert answer.json()["errors"][0]["pointer"] == "query:cursor", odd


NO_BODIES: tuple[tuple[bytes, str, set[int]], ...] = (
    (b"", "application/json", {422, 400}),
    (b"{", "application/json", {400}),
    (b'{"a": 1}}', "application/json", {400}),
    (b"\xff\xfe", "application/json", {400}),
    (b'"\\ud800"', "application/json", {422, 400}),
    (b"[" * 100_000, "application/json", {400}),
    (b"[]", "application/json", {422}),
    (b"null", "application/json", {422}),
    (b"1e999", "application/json", {422, 400}),
    (b'{"no such field": 1}', "application/json", {422}),
    (b"a=1", "application/x-www-form-urlencoded", {415}),
    (b"{}", "text/plain", {415}),
    (b"{}", "", {415}),
    (b"<a/>", "application/xml; charset=nonsense", {415}),
)


async def test_bodies_that_are_none_are_refused(service: Service) -> None:
    tried = 0
    for method, path, facts in await operations(service):
        if takes_json(facts):
            tried += 1
            for content, kind, statuses in NO_BODIES:
                headers = {"Content-Type": kind} if kind else {}
                answer = await service.admin.request(method, filled(path), content=content, headers=headers)
                assert_problem(answer, *statuses)
    assert tried == 6


async def test_a_body_of_more_than_a_mebibyte_is_refused(service: Service) -> None:
    async def pieces() -> Any:
        for _ in range(17):
            yield b" " * 65_536

    for method, path, facts in await operations(service):
        if takes_json(facts):
            for content in (pieces(), b" " * (2**20 + 1)):
                answer = await service.admin.request(
                    method, filled(path), content=content, headers={"Content-Type": "application/json"}
                )
                assert_problem(answer, 413)


async def test_what_no_header_may_carry_is_refused_in_a_key(service: Service) -> None:
    for name in ("session_token", "secret_access_key"):
        for odd in ("a\r\nx-evil: 1", "\U0002af9f", "with blank", "\x00", "tail\n"):
            auth = {"type": "key_pair", "access_key_id": "AKIA", "secret_access_key": "s", name: odd}
            source = {"provider": "s3", "bucket": "pets", "endpoint_url": "http://127.0.0.1:9", "auth": auth}
            for path in ("/v1/storages", "/v1/storages/probe"):
                answer = await service.admin.post(path, json={"display_name": "Pets", "source": source})
                assert_problem(answer, 422)
                assert [one["pointer"] for one in answer.json()["errors"]] == [f"/source/auth/{name}"]
                assert odd not in answer.text


async def test_a_method_that_is_not_served_names_those_that_are(service: Service) -> None:
    by_path: dict[str, set[str]] = {}
    for method, path, _ in await operations(service):
        by_path.setdefault(path, set()).add(method)
    for path, served in by_path.items():
        for method in {"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"} - served:
            answer = await service.admin.request(method, filled(path))
            assert_problem(answer, 405)
            assert set(answer.headers["allow"].split(", ")) == served, (method, path)
    docs = await service.admin.post("/docs")
    assert (docs.status_code, docs.headers["allow"]) == (405, "GET")


async def test_a_revision_is_read_the_same_way_everywhere(service: Service) -> None:
    for last, status in (("9223372036854775807", 404), ("9223372036854775808", 422), ("0", 422), ("x", 422)):
        for end in ("", "/image"):
            answer = await service.admin.get(f"/v1/manifests/1/frames/0{end}?revision={last}")
            assert_problem(answer, status)
