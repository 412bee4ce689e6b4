// The requests of the page to its service: with the API key, and marked as what-if requests.

// The page is PREFIX/try. A user and a password in its address must not get into requests.
const base = new URL(".", location.href);
base.username = base.password = "";

const KEY = `api-key ${base.pathname}`;
const TIMEOUT = 15_000; // milliseconds

/** A response other than 200; `status` is 0 if there was none. */
export class ServiceError extends Error {
  /** `message` is a sentence, or an object from field to reason. */
  constructor(status, message, retrySeconds) {
    const fields = typeof message === "object" ? message : {};
    super(typeof message === "object" ? Object.values(message)[0] : message);
    this.status = status;
    this.fields = fields;
    this.retrySeconds = retrySeconds;
  }
}

/** Return the URL of a path of the service. */
export function urlOf(path) {
  return new URL(`./${path.replace(/^\//, "")}`, base).href;
}

/** Keep an API key until the tab is closed. */
export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** Return whether requests need an API key; /docs.json says so. */
export function needsKey(openapi) {
  return Boolean(openapi.components.securitySchemes);
}

/** Return the paths that predict a record and an array, and how many records an array may have. */
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

/** Send a GET, or a POST with a body; return the JSON of the response or throw a ServiceError. */
export async function request(path, body) {
  let response, content;
  try {
    response = await fetch(urlOf(path), optionsOf(body));
    content = await response.json();
  } catch (error) {
    if (error.name === "TimeoutError") throw new ServiceError(504, "The service took too long");
    if (!response) throw new ServiceError(0, "The service does not answer");
    if (response.ok) throw new ServiceError(0, "The service's answer was cut off");
    // The error of a proxy is not JSON.
  }
  if (response.ok) return content;
  const message = content?.message ?? `The service answered ${response.status}`;
  const retrySeconds = Number(response.headers.get("Retry-After")) || null;
  throw new ServiceError(response.status, message, retrySeconds);
}

function optionsOf(body) {
  const headers = { "X-What-If": "true" };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  const options = { headers, signal: AbortSignal.timeout(TIMEOUT), cache: "no-store" };
  if (body === undefined) return options;
  headers["Content-Type"] = "application/json";
  return { ...options, method: "POST", body: JSON.stringify(body) };
}
