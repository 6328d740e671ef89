"""What Gradio would offer agents over MCP -> the tool that they are offered, to which a file is a string: a public URL or a data: URL."""

from typing import Any

from gradio.mcp import GradioMCPServer
from mcp.types import CallToolRequest, CallToolResult, ServerResult, TextContent

#: Endpoints that agents are offered over MCP.
TOOLS = ("/ask",)
NO_PATHS = "A file cannot be used: over MCP it must be a public http(s) URL, or be sent along as a data: URL."


def offer(server: GradioMCPServer) -> None:
    """Offer `TOOLS` and nothing else, and let no call of one open a file of this machine."""
    # Gradio makes one of every documented endpoint. Calls of one share no session, so the chat would remember nothing.
    for name in [name for name, endpoint in server.tool_to_endpoint.items() if endpoint not in TOOLS]:
        del server.tool_to_endpoint[name]
    # It writes to the disk what is sent along, in a folder that nobody clears, and reads it again; `/ask` takes the strings themselves.
    server.convert_strings_to_filedata = _as_they_are  # type: ignore[method-assign]
    handlers = server.mcp_server.request_handlers
    call = handlers[CallToolRequest]

    async def call_without_paths(request: CallToolRequest) -> ServerResult:
        # What calls the tool is a client within this server: what looks like a file of its own, anywhere in them, it opens and uploads.
        if _holds_path(request.params.arguments):
            return ServerResult(CallToolResult(content=[TextContent(type="text", text=NO_PATHS)], isError=True))
        return await call(request)

    handlers[CallToolRequest] = call_without_paths


def _as_they_are(value: Any, filedata_positions: object) -> Any:  # noqa: ARG001  # Gradio names them
    return value


def _holds_path(arguments: object) -> bool:
    """Anywhere in them, however deep."""
    left = [arguments]
    while left:
        match left.pop():
            case {"path": _}:
                return True
            case dict(inside):
                left += inside.values()
            case list(inside):
                left += inside
    return False
