"""The plain way that Framegate is compared with: FastAPI's StreamingResponse over aiobotocore's get_object.

It is kept honest: one shared client, its connections pooled and kept, uvloop and httptools, no access log, no
checksums, chunks of 64 KiB. And it is kept plain: no token, no permission, no ranges or conditions, no limits.

Run by the benchmarks as `uvicorn --factory bench.reference:create_app`, which tells it the bucket in BENCH_*.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

CHUNK_BYTES = 64 * 1024


def create_app() -> FastAPI:
    """Make the app; its client is opened with it."""
    app = FastAPI(lifespan=_with_client)
    app.get("/objects/{key:path}")(get_object)
    return app


async def get_object(key: str, request: Request) -> StreamingResponse:
    """Stream one object."""
    answer = await request.state.client.get_object(Bucket=os.environ["BENCH_BUCKET"], Key=key)
    headers = {"Content-Length": str(answer["ContentLength"]), "ETag": answer["ETag"]}
    chunks = answer["Body"].iter_chunks(CHUNK_BYTES)
    return StreamingResponse(chunks, media_type=answer["ContentType"], headers=headers)


@asynccontextmanager
async def _with_client(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    config = AioConfig(
        max_pool_connections=64, s3={"addressing_style": "path"}, response_checksum_validation="when_required"
    )
    async with get_session().create_client(
        "s3",
        endpoint_url=os.environ["BENCH_ENDPOINT_URL"],
        region_name=os.environ["BENCH_REGION"],
        aws_access_key_id="bench",
        aws_secret_access_key="not-checked-by-the-bucket",
        config=config,
    ) as client:
        yield {"client": client}
