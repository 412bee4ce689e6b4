// The requests of the page to its service: with the API key, and marked as what-if requests.

// The page is PREFIX/try. A user and a password in its address must not get into requests.
const base = new URL(".", location.href);
base.username = base.password = "";

const KEY = `api-key ${base.pathname}`;
const TIMEOUT = 15_000; // milliseconds

/** An answer other than 200; `status` is 0 if there was none. */
export class ServiceError extends Error {
  constructor(status, message, retrySeconds) {
    super(typeof message === "string" ? message : "The service refused the record");
    this.status = status;
    this.fields = typeof message === "object" ? message : {}; // message by field, if there are some
    this.retrySeconds = retrySeconds;
  }
}

/** Return the URL of a path of the service. */
export function urlOf(path) {
  return new URL(path.replace(/^\//, ""), base).href;
}

/** Keep an API key until the tab is closed. */
export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** Tell whether requests need an API key; /docs.json says so. */
export function needsKey(openapi) {
  return Boolean(openapi.components.securitySchemes);
}

/** Return the paths that predict one record and an array, and how many records that may hold. */
export function predictionPaths(openapi) {
  const paths = {};
  for (const [path, { post }] of Object.entries(openapi.paths)) {
    const schema = post?.requestBody?.content["application/json"].schema;
    if (schema?.type === "array") {
      Object.assign(paths, { array: path, maxRecords: schema.maxItems });
    } else if (schema) {
      paths.single = path;
    }
  }
  return paths;
}

/** Send a GET, or a POST with a body; return the JSON of the answer or throw a ServiceError. */
export async function request(path, body) {
  const response = await send(path, body);
  const content = await response.json().catch(() => ({}));
  if (response.ok) return content;
  const message = content.message ?? `The service answered ${response.status}`;
  throw new ServiceError(
    response.status,
    message,
    Number(response.headers.get("Retry-After")) || null,
  );
}

async function send(path, body) {
  // A browser asks for a password itself if a request without a token is answered with 401.
  const headers = {
    Authorization: `Bearer ${sessionStorage.getItem(KEY) ?? "none"}`,
    "X-What-If": "true",
  };
  const options = { headers, signal: AbortSignal.timeout(TIMEOUT), cache: "no-store" };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  try {
    return await fetch(urlOf(path), options);
  } catch {
    throw new ServiceError(0, "The service does not answer", 2);
  }
}
