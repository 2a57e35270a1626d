"""`Expect: 100-continue`, where the answer comes before the body was asked for."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Expect:
    """Closes the connection after an answer to a body that the client holds back (RFC 9110 section 10.1.1).

    The server says 100 when an app first reads. Who is refused before may send his body, or not: what comes
    next on the connection could be either.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not any(name == b"expect" for name, _ in scope["headers"]):
            return await self._app(scope, receive, send)
        asked = False

        async def asking() -> Message:
            nonlocal asked
            asked = True
            return await receive()

        async def answering(message: Message) -> None:
            if message["type"] == "http.response.start" and not asked:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        return await self._app(scope, asking, answering)
