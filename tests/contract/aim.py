"""Loaded by schemathesis: turns what it makes up to things that exist, and to no host but loopback.

Random ids name nothing and random buckets are nowhere: without this nearly every request would end as 404 or
422, and some would ask for other hosts. What is wrong on purpose stays wrong.
"""

import json
import os
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis import Case, GenerationMode, HookContext
from schemathesis.core.parameters import ParameterLocation


class Aim:
    """Aims at what a running service holds."""

    def __init__(self, places: dict[str, Any]) -> None:
        self._ids: dict[str, Any] = places["ids"]
        self._expendable: dict[str, list[int]] = places["expendable"]
        self._keys: list[str] = places["keys"]
        self._source: dict[str, Any] = places["source"]
        self._endpoint_url: str = places["endpoint_url"]
        self._turn = 0

    def at(self, case: Case) -> None:
        """Aim one request; three in four of those whose path is valid meet something."""
        self._turn += 1
        meta = case.meta
        method, served = case.method.upper(), case.operation.method.upper()
        known = method if method == served else "none that is served"
        if case.path_parameters and (meta is None or not meta.is_negative_at(ParameterLocation.PATH)):
            case.path_parameters = {
                name: self._id(known, name, value, of_object="key" in case.path_parameters)
                for name, value in case.path_parameters.items()
            }
        if isinstance(case.body, dict) and isinstance(case.body.get("source"), dict):
            positive = meta is not None and meta.generation.mode is GenerationMode.POSITIVE
            case.body = self._near(case.body, positive=positive)

    def _id(self, method: str, name: str, value: Any, *, of_object: bool = False) -> Any:
        if method in {"PUT", "DELETE"} and of_object:
            return self._written(name, value)
        if method == "DELETE" and name in self._expendable:
            left = self._expendable[name]
            return left.pop() if left else 2**63 - 1
        if self._turn % 4 == 0:
            return value
        if name == "key":
            return self._keys[self._turn % len(self._keys)]
        if name == "storage_id" and method == "PATCH":
            return self._ids["changed"]
        return self._ids.get(name, value)

    def _written(self, name: str, value: Any) -> Any:
        """Write beside what the others read, and delete what was written."""
        if name == "storage_id":
            return self._ids[name] if self._turn % 4 else value
        return "written/a.jpg" if self._turn % 8 else value

    def _near(self, body: dict[str, Any], *, positive: bool) -> dict[str, Any]:
        source = dict(body["source"])
        if isinstance(source.get("endpoint_url"), str | None):
            source["endpoint_url"] = self._endpoint_url
        auth = source.get("auth")
        if isinstance(auth, dict) and "AccountName=" in str(auth.get("connection_string")):
            account = f"AccountName=pets;AccountKey=a2V5;BlobEndpoint={self._endpoint_url}/pets"
            source["auth"] = auth | {"connection_string": account}
        whole = body | {"source": source}
        if positive and self._turn % 2 and source.get("provider") == "s3":
            whole["source"] = source | self._source
            if whole.get("manifests"):
                whole["manifests"] = ["manifest.jsonl"]
        return whole


_AIM = Aim(json.loads(Path(os.environ["FRAMEGATE_CONTRACT_PLACES"]).read_text()))


@schemathesis.hook
def before_load_schema(context: HookContext, raw_schema: dict[str, Any]) -> None:
    """Send a merge patch under one of its two names: the second would be the same hundreds of bodies again."""
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            operation.get("requestBody", {}).get("content", {}).pop("application/merge-patch+json", None)


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """Aim every request."""
    _AIM.at(case)
