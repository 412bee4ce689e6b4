"""Swagger UI at `/`, and the OpenAPI document at `/docs.json`."""

import re
from base64 import b64encode
from hashlib import sha256
from html import escape

from bentoml import Service
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

# The script takes the service's address from that of the page: a proxy may have changed scheme and
# path. `fetch` would reject a relative URL if the page was opened with a user and a password in its
# address; `location` does not contain them. The plugin hides the list of servers in each operation,
# which would show the only server again.
SCRIPT = """
const here = new URL(".", location).href;
const plugins = [() => ({components: {OperationServers: () => null}})];
fetch(here + "docs.json").then(response => response.json()).then(spec => {
  spec.servers = [{url: here.slice(0, -1)}];
  SwaggerUIBundle({spec, plugins, dom_id: "#swagger-ui", deepLinking: true});
});
"""
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="static_content/favicon-light-32x32.png">
<link rel="stylesheet" href="static_content/swagger-ui.css">
</head>
<body>
{link}<div id="swagger-ui"></div>
<script src="static_content/swagger-ui-bundle.js"></script>
<script>{script}</script>
</body>
</html>
"""
TRY_LINK = (
    '<p class="swagger-ui wrapper"><a class="link" href="try">Try the model in a form</a></p>\n'
)
SCRIPT_HASH = b64encode(sha256(SCRIPT.encode()).digest()).decode()
# A name or an IPv6 address, and perhaps a port.
HOST = re.compile(r"([\w.-]+|\[[\da-fA-F:.]+\])(:\d{1,5})?", re.ASCII)
# A path without the segments "." and "..".
PREFIX = re.compile(r"(/(?!\.{1,2}(/|$))[\w.~%!$&'()*+;=:@-]+)+", re.ASCII)
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; style-src 'self'; "
    f"script-src 'self' 'sha256-{SCRIPT_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class DocsViews:
    """Views that replace BentoML's Swagger UI page and OpenAPI document.

    BentoML's page loads Google Tag Manager; this page contacts only the service.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    async def swagger_ui(self, request: Request) -> Response:
        """Return the page of Swagger UI, which loads scripts and styles from BentoML's package."""
        link = TRY_LINK if self.service.inner.settings.try_page else ""
        page = PAGE.format(title=escape(self.service.name), link=link, script=SCRIPT)
        return HTMLResponse(page, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})

    async def openapi(self, request: Request) -> Response:
        """Return the OpenAPI document, with the URL of the service, which Postman needs."""
        document = {**self.service.openapi_spec, "servers": [{"url": service_url(request)}]}
        return JSONResponse(document, headers={"Cache-Control": "no-store"})


def service_url(request: Request) -> str:
    """Return the URL at which a client reaches the service, through proxies or not.

    A proxy that terminates TLS or strips a prefix of the path sends the original values in
    `X-Forwarded-Proto`, `X-Forwarded-Host` and `X-Forwarded-Prefix`. The URL has the first valid
    scheme, the outermost proxy's host if that is valid, and all valid prefixes, joined.
    """
    schemes, hosts = forwarded(request, "Proto"), forwarded(request, "Host")
    scheme = next((each for each in schemes if each in ("http", "https")), request.url.scheme)
    host = next(filter(HOST.fullmatch, hosts[:1]), request.base_url.netloc)
    prefix = "".join(filter(PREFIX.fullmatch, forwarded(request, "Prefix")))
    return f"{scheme}://{host}{prefix}"


def forwarded(request: Request, name: str) -> list[str]:
    """Return the values of a header X-Forwarded-*, one for each proxy, the outermost first."""
    headers = request.headers.getlist(f"X-Forwarded-{name}")
    return [value.strip().rstrip("/") for header in headers for value in header.split(",")]
