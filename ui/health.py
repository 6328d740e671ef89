"""The state and the counts of a model -> the routes `/healthz` and `/metrics`, for whoever runs the server."""

import gradio as gr
from prometheus_client import Gauge
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ui.model import Model, Ready, Starting
from ui.sentences import state_line


def routes(page: gr.Blocks, model: Model) -> list[Route]:
    """`/healthz`: 200 when the model answers, else 503 with the reason, as JSON. `/metrics`: Prometheus' text."""
    registry = model.metrics.registry
    queue = Gauge("page_waiting", "Requests that are not with the engine yet, because many are.", registry=registry)
    queue.set_function(lambda: len(page._queue))

    # In the event loop: threads may be taken, and the state is asked for just then.
    async def healthz(_: Request) -> Response:
        state = model.state
        if state == Ready():
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "starting" if isinstance(state, Starting) else "degraded", "reason": state_line(state)}, 503)

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    return [Route("/healthz", healthz), Route("/metrics", metrics)]
