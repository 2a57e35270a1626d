"""The whole OpenAPI document fired at a running service: what it promises is what is answered, whatever comes in."""

import asyncio
import os
import re
import sys
from pathlib import Path

from tests.api.conftest import Service

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATIENCE_S = 600
"""Far beyond what it takes, for machines that do much else."""

# What the service counts by the name of the function that answered; byte requests by that of their lane.
BYTE_ROUTES = {
    "get_object": "object",
    "get_image": "image",
    "head_object": "object",
    "head_image": "image",
    "head_chunk": "get_chunk",
    "head_preview": "get_preview",
}


async def fire(service: Service, places: Path) -> tuple[int, str]:
    """Run schemathesis over the document that the service gives; gives its exit code and what it says."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        "--config-file",
        str(HERE / "schemathesis.toml"),
        "run",
        f"{service.url}/openapi.json",
        "--header",
        f"Authorization: {service.admin.headers['Authorization']}",
        "--no-color",
        cwd=ROOT,
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "tests.contract.aim",
            "FRAMEGATE_CONTRACT_PLACES": str(places),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode or 0, output.decode()


async def counted(service: Service) -> dict[tuple[str, str], set[int]]:
    """Which statuses were answered, by method and route, as the service counted."""
    text = (await service.admin.get("/metrics")).text
    line = re.compile(
        r'^framegate_requests_total\{method="(\w+)",route="(\w+)",status="(\d+)"\}', re.MULTILINE
    )
    found: dict[tuple[str, str], set[int]] = {}
    for method, route, status in line.findall(text):
        found.setdefault((method, route), set()).add(int(status))
    return found


async def test_every_operation_answers_as_documented(service: Service, places: Path) -> None:
    code, said = await fire(service, places)
    assert code == 0, said
    answers = await counted(service)
    assert not [status for statuses in answers.values() for status in statuses if status >= 500]
    document = (await service.admin.get("/openapi.json")).json()
    assert f"Selected: {sum(map(len, document['paths'].values()))}/" in said
    for methods in document["paths"].values():
        for method, facts in methods.items():
            # Without success its answers would have been looked at in vain, and so without a refusal.
            route = BYTE_ROUTES.get(facts["operationId"], facts["operationId"])
            statuses = answers.get((method.upper(), route), set())
            assert any(status < 300 for status in statuses), f"{facts['operationId']}: {statuses}"
            if facts.get("security") == [{"token": []}]:
                assert 401 in statuses, facts["operationId"]
