"""The door for nodes: a reverse proxy that passes on Flower's fleet calls and nothing else.

A SuperLink answers nodes and operators on one port, and SuperNode authentication covers the nodes' calls only: who
reaches that port can also start runs and enroll keys. So the SuperLink listens on the loopback interface, and only
this proxy (or an nginx with the same rule, docs/federation.md) is reachable from the nodes' network.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

FLEET_CALLS = frozenset(
    {
        "activate-node",
        "confirm-message-received",
        "deactivate-node",
        "get-fab",
        "get-run",
        "pull-messages",
        "pull-object",
        "push-messages",
        "push-object",
        "register-node",
        "send-node-heartbeat",
        "unregister-node",
    }
)
"""The calls of a SuperNode, as of Flower 1.41 and 1.42."""
MAX_BODY = 64 * 2**20
"""Bytes of one request; Flower sends larger messages in pieces of a few MB."""

_SECONDS = 60.0
_CONNECTIONS = 512
_OWN_TO_EACH_HOP = frozenset(
    {"connection", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
log = logging.getLogger("holdfast.proxy")


def fleet_proxy(
    upstream: str,
    *,
    verify: ssl.SSLContext | bool = True,
    max_body: int = MAX_BODY,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Starlette:
    """The proxy as an ASGI application: `POST /v1/fleet/<call>` for the calls of a SuperNode, 404 for all else.

    Bodies pass through in pieces, so the memory does not grow with them.

    Args:
        upstream: the SuperLink, such as `https://127.0.0.1:8000`.
        verify: the authority that the SuperLink's certificate must come from.
        max_body: the most bytes of one request; more is answered with 413, an unstated length with 411.
        transport: how to reach the SuperLink, instead of the network.
    """

    @asynccontextmanager
    async def connected(app: Starlette) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=_CONNECTIONS)
        async with httpx.AsyncClient(
            base_url=upstream, verify=verify, timeout=_SECONDS, limits=limits, transport=transport, trust_env=False
        ) as client:
            app.state.client = client
            yield

    async def fleet(request: Request) -> Response:
        call = request.path_params["call"]
        refused = _refusal(call, request, max_body)
        if refused is not None:
            sender = request.client.host if request.client else "unknown"
            log.warning("refused %s %s from %s: %s", request.method, request.url.path, sender, refused.status_code)
            return refused
        client: httpx.AsyncClient = request.app.state.client
        headers = [(name, value) for name, value in request.headers.raw if name.decode() not in _OWN_TO_EACH_HOP]
        forwarded = client.build_request("POST", f"/v1/fleet/{call}", headers=headers, content=request.stream())
        try:
            answer = await client.send(forwarded, stream=True)
        except httpx.HTTPError as problem:
            log.warning("the SuperLink does not answer: %s", problem or type(problem).__name__)
            return PlainTextResponse("the server is not available", 502)
        kept = {name: value for name, value in answer.headers.items() if name not in _OWN_TO_EACH_HOP}
        return StreamingResponse(_body(answer), answer.status_code, kept)

    return Starlette(routes=[Route("/v1/fleet/{call}", fleet, methods=["POST"])], lifespan=connected)


def _refusal(call: str, request: Request, max_body: int) -> Response | None:
    """Why not, or None."""
    if call not in FLEET_CALLS:
        return PlainTextResponse("not found", 404)
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        return PlainTextResponse("a request must state its length", 411)
    if int(length) > max_body:
        return PlainTextResponse(f"more than {max_body} bytes", 413)
    return None


async def _body(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()


def serve(upstream: str, *, host: str, port: int, ca: Path, certificate: Path, key: Path, max_body: int) -> None:
    """Run the proxy until it is told to stop: TLS towards the nodes, and towards the SuperLink."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.WARNING)
    app = fleet_proxy(upstream, verify=ssl.create_default_context(cafile=ca), max_body=max_body)
    uvicorn.run(
        app,
        host=host,
        port=port,
        ssl_certfile=certificate,
        ssl_keyfile=str(key),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
    )
