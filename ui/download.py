"""A public URL -> its file among the uploads: taken in piece by piece, no more of it than a file may have, in time, and from no inner address."""

import asyncio
import hashlib
import re
import socket
import ssl
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import IO

import httpx2
from gradio.processing_utils import hash_seed

from pipeline import InputError, MediaLimits, PipelineError
from ui.doors import DISK_FULL, NO_ROOM, check_room

#: For all files that a request names.
DOWNLOAD_SECONDS = 60.0
MAX_REDIRECTS = 5
# A Space may reach the Hub at inner addresses.
HUB = ("hf.co", "huggingface.co")
# Of IPv6 what is given out; the rest holds detours to IPv4.
_GIVEN_OUT = ip_network("2000::/3")


class Allowance:
    """What the files that one request names by URL may still be in number and bytes: no more than those of a whole conversation."""

    def __init__(self, limits: MediaLimits) -> None:
        self._limits = limits
        self._files = self._bytes = 0

    def file(self) -> None:
        """Take one more.

        Raises:
            InputError: it is one too many.
        """
        self._files += 1
        if self._files > (limit := self._limits.max_conversation_files):
            raise InputError(f"The request names more than {limit} files by URL, which is the limit.")

    def piece(self, size: int, so_far: int) -> None:
        """Take `size` further bytes of a file of which `so_far` have come or are announced.

        Raises:
            InputError: the file, or all together, are too large.
        """
        self._bytes += size
        if so_far > (limit := self._limits.max_file_bytes):
            raise InputError(f"The file behind a URL has at least {so_far:,} bytes; the limit is {limit:,}.")
        if self._bytes > (limit := self._limits.max_conversation_bytes):
            raise InputError(f"The files behind URLs have at least {self._bytes:,} bytes in all; the limit is {limit:,}.")


@asynccontextmanager
async def in_time() -> AsyncIterator[Allowance]:
    """For the downloads of one request.

    Raises:
        InputError: they took too long.
    """
    try:
        async with asyncio.timeout(DOWNLOAD_SECONDS):
            yield Allowance(MediaLimits())
    except TimeoutError as cause:
        raise InputError(f"The files behind URLs took longer than {DOWNLOAD_SECONDS:.0f} s to arrive, which is the limit.") from cause


async def download(url: str, folder: Path, allowed: Allowance) -> Path:
    """The file as it is now, in a folder whose name is made of its content and a secret of this server's, as Gradio's uploads are: who knows the
    content cannot find out whether somebody showed it.

    Raises:
        InputError: there is none, it is not public, or too large.
        PipelineError: the disk is full.
    """
    allowed.file()
    try:
        place, digest = httpx2.URL(url), hashlib.sha256(hash_seed)
        with _arriving(folder) as part:
            async with aclosing(_pieces(place, allowed)) as pieces:
                async for piece in pieces:
                    check_room(folder)
                    part.write(piece)
                    digest.update(piece)
            return _arrived(part, folder / digest.hexdigest() / f"file{_suffix(place.path)}")
    except PipelineError:
        raise
    except Exception as cause:  # the client's, the resolver's and the file system's errors have no common root
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            raise PipelineError(DISK_FULL) from cause
        raise InputError("The file behind a URL cannot be fetched: it is not there, or not public.") from cause


@contextmanager
def _arriving(folder: Path) -> Iterator[IO[bytes]]:
    """A file that is not whole yet: it looks like an upload, and is deleted like one if this process ends."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix="tmp", delete=False) as part:
        try:
            yield part
        finally:
            Path(part.name).unlink(missing_ok=True)


def _arrived(part: IO[bytes], target: Path) -> Path:
    """The same, whole, in its place."""
    part.flush()
    target.parent.mkdir(exist_ok=True)
    return Path(part.name).replace(target)


def _suffix(path: str) -> str:
    """By which a video is told from a picture."""
    return found[0] if (found := re.search(r"\.[A-Za-z0-9]{1,8}$", path)) else ""


async def _pieces(place: httpx2.URL, allowed: Allowance) -> AsyncGenerator[bytes, None]:
    """What comes from there, or from where that leads to."""
    received = 0
    for _ in range(MAX_REDIRECTS + 1):
        async with (
            httpx2.AsyncClient(transport=await _way_to(place.raw_host.decode("ascii")), verify=_certificates()) as client,
            client.stream("GET", place, headers={"Accept-Encoding": "identity"}) as response,
        ):
            if response.has_redirect_location:
                place = place.join(response.headers["Location"])
                continue
            response.raise_for_status()
            announced = response.headers.get("Content-Length", "")
            allowed.piece(0, int(announced) if announced.isdecimal() else 0)
            async for piece in response.aiter_raw():
                received += len(piece)
                allowed.piece(len(piece), received)
                yield piece
            return
    raise ValueError(f"More than {MAX_REDIRECTS} redirects.")


async def _way_to(host: str) -> httpx2.AsyncHTTPTransport | None:
    """To an address that is looked at before; None for the usual way."""
    if host in HUB or host.endswith(tuple(f".{name}" for name in HUB)):
        return None
    return _Pinned(await public_address(host))


async def public_address(host: str) -> str:
    """The first address of a host, which all the world can reach.

    Raises:
        OSError, ValueError: it has none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    address = ip_address(str(found[0][4][0]))
    if not address.is_global or address.is_multicast or (address.version == 6 and address not in _GIVEN_OUT):
        raise ValueError("An address that not all the world can reach.")
    return str(address)


@cache
def _certificates() -> ssl.SSLContext:
    """Read once: it takes some 20 ms, in which nobody else's words come."""
    return httpx2.create_ssl_context()


class _Pinned(httpx2.AsyncHTTPTransport):
    """Goes to the address that was looked at, whatever the name means by then; the certificate must be the name's."""

    def __init__(self, address: str) -> None:
        super().__init__(verify=_certificates())
        self._address = address

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.extensions = {**request.extensions, "sni_hostname": request.url.raw_host.decode("ascii")}
        request.url = request.url.copy_with(host=self._address)
        return await super().handle_async_request(request)
