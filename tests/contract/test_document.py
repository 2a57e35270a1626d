"""The OpenAPI document read as a newcomer reads it: nothing is left out, nothing is vague, no example is wrong."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jsonschema_rs
import pytest_asyncio
from pydantic import TypeAdapter

from app.api.schemas.access import SignedUrlBody, TokenBody
from app.api.schemas.manifests import ManifestBody
from app.api.schemas.storages import StorageBody, StoragePatch
from tests.api.conftest import Service, client

OPEN = {"livez", "readyz"}
"""Operations that want no token and know none."""
ALSO_OPEN = {"get_object", "head_object", "metrics"}
"""Operations that may be asked without a token: by a signed URL, or from the same machine."""
WAYS_IN = {
    ("s3", "key_pair"),
    ("s3", "anonymous"),
    ("azure", "sas_token"),
    ("azure", "account_key"),
    ("azure", "connection_string"),
    ("azure", "anonymous"),
}
BODIES: dict[str, Any] = {
    "create_storage": StorageBody,
    "probe_storage": StorageBody,
    "change_storage": StoragePatch,
    "attach_manifest": ManifestBody,
    "create_token": TokenBody,
    "create_signed_url": SignedUrlBody,
}


class Operation(NamedTuple):
    """One operation of the document."""

    path: str
    method: str
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        """Its id."""
        return str(self.facts["operationId"])

    @property
    def statuses(self) -> set[int]:
        """What it can answer."""
        return {int(status) for status in self.facts["responses"]}

    @property
    def bodies(self) -> dict[str, Any]:
        """Its request bodies by media type."""
        return dict(self.facts.get("requestBody", {}).get("content", {}))


Document = dict[str, Any]


@pytest_asyncio.fixture
async def document(service: Service) -> Document:
    """The document as anybody gets it."""
    async with client(service.url) as nobody:
        answer = await nobody.get("/openapi.json")
    assert answer.status_code == 200
    return dict(answer.json())


def operations(document: Document) -> Iterator[Operation]:
    """Every operation."""
    for path, methods in document["paths"].items():
        for method, facts in methods.items():
            yield Operation(path, method, facts)


async def test_it_is_valid_and_names_each_operation_once(document: Document) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "Framegate"
    names = [operation.name for operation in operations(document)]
    assert len(names) == len(set(names)) >= 32
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in names), names


async def test_every_tag_is_described_and_used(document: Document) -> None:
    described = {tag["name"]: tag["description"] for tag in document["tags"]}
    used = {tag for operation in operations(document) for tag in operation.facts["tags"]}
    assert used == set(described)
    assert all(len(text) > 10 for text in described.values())
    assert all(len(operation.facts["tags"]) == 1 for operation in operations(document))


async def test_every_operation_and_parameter_is_explained(document: Document) -> None:
    for operation in operations(document):
        facts = operation.facts
        assert 5 < len(facts["summary"]) <= 40, operation.name
        assert facts["summary"] != operation.name.replace("_", " ").title(), operation.name
        assert facts["description"].endswith("."), operation.name
        for parameter in facts.get("parameters", ()):
            assert parameter.get("description"), (operation.name, parameter["name"])
        for status, answer in facts["responses"].items():
            assert answer["description"] not in {"", "Successful Response"}, (operation.name, status)


async def test_every_request_field_that_is_no_plain_word_is_explained(document: Document) -> None:
    schemas = document["components"]["schemas"]
    assert all(schema.get("description") for name, schema in schemas.items() if "Page_" not in name)


async def test_every_operation_says_whether_it_wants_a_token(document: Document) -> None:
    (name, scheme), *others = document["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"], others) == ("http", "bearer", [])
    assert "framegate token create" in scheme["description"]
    for operation in operations(document):
        asked = operation.facts.get("security", [])
        if operation.name in OPEN:
            assert asked == [], operation.name
        else:
            free = [{}] if operation.name in ALSO_OPEN else []
            assert asked == [{name: []}, *free], operation.name


async def test_every_operation_documents_what_it_can_answer(document: Document) -> None:
    for operation in operations(document):
        statuses, name = operation.statuses, operation.name
        assert any(200 <= status < 300 for status in statuses), name
        if name == "livez":
            continue
        assert {400, 500, 503} <= statuses, name
        assert (401 in statuses) == (name not in OPEN), name
        if "{" in operation.path:
            assert 404 in statuses, name
        if operation.bodies:
            assert {413, 415, 422} <= statuses, name
        if any(
            parameter["name"] in {"limit", "cursor"} for parameter in operation.facts.get("parameters", ())
        ):
            assert 422 in statuses, name
        if name.removeprefix("head_").removeprefix("get_") in {"object", "image"}:
            assert {200, 206, 304, 403, 412, 416, 502, 503, 504} <= statuses, name
        if any(p["name"].lower() == "if-match" for p in operation.facts.get("parameters", ())):
            assert 412 in statuses, name


async def test_every_refusal_is_a_problem_with_an_example_of_its_status(document: Document) -> None:
    for operation in operations(document):
        for status, answer in operation.facts["responses"].items():
            if int(status) >= 400:
                (media_type, shown), *others = answer["content"].items()
                assert (media_type, others) == ("application/problem+json", []), (operation.name, status)
                assert shown["schema"] == {"$ref": "#/components/schemas/ProblemView"}
                assert shown["example"]["status"] == int(status)


async def test_every_body_has_examples_that_it_takes(document: Document) -> None:
    with_body = {operation.name: operation.bodies for operation in operations(document) if operation.bodies}
    ((kind, bytes_of_any_kind),) = with_body.pop("put_object").items()
    assert (kind, bytes_of_any_kind["schema"]["format"]) == ("application/octet-stream", "binary")
    assert with_body.keys() == BODIES.keys()
    for name, bodies in with_body.items():
        for media_type, body in bodies.items():
            assert body["schema"]["$ref"].endswith(BODIES[name].__name__), (name, media_type)
            assert body["examples"], (name, media_type)
            for example in body["examples"].values():
                assert example["summary"]
                TypeAdapter(BODIES[name]).validate_python(example["value"])


async def test_storages_have_an_example_for_every_way_in(document: Document) -> None:
    for name in ("create_storage", "probe_storage"):
        operation = next(operation for operation in operations(document) if operation.name == name)
        sources = [
            one["value"]["source"] for one in operation.bodies["application/json"]["examples"].values()
        ]
        assert {(source["provider"], source["auth"]["type"]) for source in sources} == WAYS_IN
    providers = document["components"]["schemas"]["StorageBody"]["properties"]["source"]["discriminator"]
    assert set(providers["mapping"]) == {provider for provider, _ in WAYS_IN}


async def test_a_merge_patch_may_be_sent_by_its_own_name(document: Document) -> None:
    patch = document["paths"]["/v1/storages/{storage_id}"]["patch"]
    assert set(patch["requestBody"]["content"]) == {"application/json", "application/merge-patch+json"}


async def test_every_example_of_an_answer_fits_its_schema(document: Document) -> None:
    schemas = document["components"]["schemas"]
    shown = {name: schema["examples"] for name, schema in schemas.items() if "examples" in schema}
    assert len(shown) >= 10
    for name, examples in shown.items():
        rules = jsonschema_rs.validator_for(
            {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}},
            validate_formats=True,
        )
        for example in examples:
            rules.validate(example)
            assert example.keys() == schemas[name]["properties"].keys(), name
