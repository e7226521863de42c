"""The web server: which address is which page, who is let in, and what a fault becomes. Pages are made in threads."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from schemas.errors import VPPError
from schemas.shard import PRODUCTS, VIDEO
from schemas.storage import join_inside, size_bytes
from schemas.store_faults import is_passing_fault
from vpp.browse.clip_page import clip_page
from vpp.browse.episode_page import episode_page
from vpp.browse.frame_strip import frame_strip
from vpp.browse.guard import Guard
from vpp.browse.list_page import list_page
from vpp.browse.not_there import NotThere
from vpp.browse.overview_page import overview_page
from vpp.browse.page import BROWSE_STYLE, POLICY, document
from vpp.browse.ranges import send_range
from vpp.browse.runs_page import runs_page
from vpp.browse.snapshot import Snapshot
from vpp.report.html import tag

_log = logging.getLogger(__name__)

Show = Callable[[Snapshot, Mapping[str, str]], str]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PAGES: dict[str, Show] = {
    "/": overview_page,
    "/clip": clip_page,
    "/episode": episode_page,
    **{f"/{product}": list_page(product) for product in PRODUCTS},
}
"""Pages by path; the rest of their address is what they are asked for."""

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with none, browsers hide where a form of ours comes from, too
    "Cross-Origin-Resource-Policy": "same-origin",
}
_MEDIA = {"mp4": "video/mp4", "png": "image/png"}
_RUN_FILE = re.compile(r"(?:(?P<run>.+)/)?(?P<file>(?:previews/[^/]+/|videos/)[^/]+\.(?P<ending>mp4|png))")
_KEEP = {"Cache-Control": "private, max-age=3600"}  # what lies in a shard does not change
_FRESH = {"Cache-Control": "no-store"}


class BrowseServer:
    """Answers requests about a folder.

    Args:
        snapshot: What lies there.
        guard: Who is let in.
    """

    def __init__(self, snapshot: Snapshot, guard: Guard) -> None:
        self._snapshot, self._guard = snapshot, guard

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[self._answer])
        app.on_response_prepare.append(_add_headers)
        for path, show in PAGES.items():
            app.router.add_get(path, self._page(show), allow_head=False)
        app.router.add_get("/runs", self._runs, allow_head=False)
        app.router.add_get("/frames", self._frames, allow_head=False)
        app.router.add_get("/member", self._member, allow_head=False)
        app.router.add_get("/style.css", self._style, allow_head=False)
        app.router.add_post("/again", self._again)
        app.router.add_get("/{path:.+}", self._run_file, allow_head=False)
        return app

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets in or not, and makes a page of what goes wrong."""
        if not self._guard.is_own_name(request.headers):
            return _wrong(421, "expected an address, localhost or the name of --host, found another host's name")
        if not self._guard.shows_token(request.headers):
            response = _wrong(401, "expected the token as password, with any user name")
            response.headers["WWW-Authenticate"] = 'Basic realm="browse", charset="UTF-8"'
            return response
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return _wrong(error.status, error.reason)
        except NotThere as error:
            return _wrong(404, str(error))
        except VPPError as error:
            return _wrong(422, str(error))
        except Exception as error:  # a page's fault ends that page alone
            if is_passing_fault(error):
                _log.warning("%s: %s: %s", request.path, type(error).__name__, error)
                return _wrong(502, f"the store does not answer ({type(error).__name__}); try again")
            _log.exception("%s failed", request.path)
            return _wrong(500, f"the page failed ({type(error).__name__}); the server's log says why")

    def _page(self, show: Show) -> Handler:
        async def answer(request: web.Request) -> web.Response:
            return _html(await asyncio.to_thread(show, self._snapshot, _query(request)))

        return answer

    async def _runs(self, request: web.Request) -> web.Response:
        return _html(await asyncio.to_thread(runs_page, self._snapshot, request.query.getall("run", [])))

    async def _again(self, request: web.Request) -> web.Response:
        if not self._guard.is_own_form(request.headers):
            return _wrong(403, "expected the form of one of these pages")
        self._snapshot = self._snapshot.again()
        raise web.HTTPSeeOther("/")

    async def _style(self, request: web.Request) -> web.Response:
        return web.Response(text=BROWSE_STYLE, content_type="text/css")

    async def _frames(self, request: web.Request) -> web.Response:
        query = _query(request)

        def draw() -> bytes:
            dataset = self._snapshot.dataset(query.get("data"))
            members = dataset.read("clips", dataset.kept_row("clips", query.get("id", "")), [VIDEO])
            if VIDEO not in members:
                raise NotThere("this clip was not written")
            return frame_strip(members[VIDEO])

        return web.Response(body=await asyncio.to_thread(draw), content_type="image/jpeg", headers=_KEEP)

    async def _member(self, request: web.Request) -> web.StreamResponse:
        query = _query(request)
        name = query.get("name", "")
        product = next((one for one in PRODUCTS if one == query.get("product")), None)
        if product is None:
            raise NotThere(f"expected clips or episodes, found {query.get('product', '')!r:.100}")

        def locate() -> tuple[str, int, int]:
            return self._snapshot.dataset(query.get("data")).locate(product, query.get("id", ""), name)

        url, start, end = await asyncio.to_thread(locate)
        headers = {**_KEEP, "Content-Type": _MEDIA.get(name.rsplit(".", 1)[-1], "application/octet-stream")}
        if headers["Content-Type"] not in _MEDIA.values():
            headers["Content-Disposition"] = "attachment"
        return await send_range(request, url, start, end, headers)

    async def _run_file(self, request: web.Request) -> web.StreamResponse:
        """A film or picture that a run has left."""
        path = request.match_info["path"]
        found = _RUN_FILE.fullmatch(path)
        if not found:
            raise NotThere(f"no page /{path:.200}")

        def locate() -> tuple[str, int]:
            run = self._snapshot.run(found["run"] or "")
            url = join_inside(run.url, found["file"])
            try:
                return url, size_bytes(url)
            except FileNotFoundError as error:
                raise NotThere(f"no file {path:.200}") from error

        url, size = await asyncio.to_thread(locate)
        return await send_range(request, url, 0, size, {**_FRESH, "Content-Type": _MEDIA[found["ending"]]})


def _query(request: web.Request) -> dict[str, str]:
    """What stands behind the `?`; of names that stand there twice the last."""
    return dict(request.query.items())


def _html(page: str, status: int = 200) -> web.Response:
    return web.Response(body=page.encode(errors="replace"), status=status, content_type="text/html", charset="utf-8",
                        headers=_FRESH)  # fmt: skip


def _wrong(status: int, told: str) -> web.Response:
    """A page that says what is wrong."""
    back = tag("p", tag("a", "Overview", href="/"))
    return _html(document(f"{status}", tag("h1", "This cannot be shown"), tag("p", told, class_="note"), back), status)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
