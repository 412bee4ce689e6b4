"""The API description for people, and for tools that import it."""

from base64 import b64encode
from hashlib import sha256
from html import escape

from bentoml import Service
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

# The browser knows best where this is: a proxy may have changed the scheme or the path.
# `fetch` takes no relative URL if the page's own was opened with a user and a password in it.
# Swagger UI would ask for the one server again in each operation.
SCRIPT = """
const here = new URL(".", location).href;
const plugins = [() => ({components: {OperationServers: () => null}})];
fetch(here + "docs.json").then(answer => answer.json()).then(spec => {
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
<div id="swagger-ui"></div>
<script src="static_content/swagger-ui-bundle.js"></script>
<script>{script}</script>
</body>
</html>
"""
HASH = b64encode(sha256(SCRIPT.encode()).digest()).decode()
POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; style-src 'self'; "
    f"script-src 'self' 'sha256-{HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class Views:
    """The views of a Service's description, which take the place of BentoML's.

    BentoML's page tells Google of each visitor; this one can contact nobody but the service.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    async def page(self, request: Request) -> Response:
        """Show Swagger UI, from the files that BentoML brings."""
        page = PAGE.format(title=escape(self.service.name), script=SCRIPT)
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})

    async def document(self, request: Request) -> Response:
        """Send the OpenAPI document with the address that was asked: Postman needs a whole one."""
        _, _, address = str(request.base_url).rstrip("/").partition("://")
        schemes = request.headers.get("X-Forwarded-Proto", request.url.scheme)
        scheme = schemes.partition(",")[0]  # each proxy may add one
        servers = [{"url": f"{scheme}://{address}"}]
        return JSONResponse({**self.service.openapi_spec, "servers": servers})
