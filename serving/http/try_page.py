"""The page at `/try`: a form for a record, its prediction, and what each feature does to it.

The page and its files are the same for every record type: the page asks the service for
`/docs.json` and `/model`, and sends what-if requests.
"""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; img-src 'self'; style-src 'self'; "
        "script-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # ask whether a newer service has other files
}


class PageFiles(StaticFiles):
    """Files of the page, with its headers."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the response for a file; raise HTTPException if there is none."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def try_page_routes() -> list[BaseRoute]:
    """Return the routes of the page and of its files."""
    page = PageFiles(directory=STATIC)

    async def view(request: Request) -> Response:
        return await page.get_response("try.html", request.scope)

    return [Route("/try", view), Mount("/try", PageFiles(directory=STATIC / "try"))]
