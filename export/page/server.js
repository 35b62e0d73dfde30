// Asks the server: one place for the token, for what it refuses, and for how long it takes.

let token = sessionStorage.getItem("potstill-token") ?? "";

export class Refused extends Error {
  constructor(status, message, retrySeconds) {
    super(message);
    this.status = status;
    this.retrySeconds = retrySeconds;
  }
}

export function useToken(value) {
  token = value;
  sessionStorage.setItem("potstill-token", value);
}

// Returns {content, headers, milliseconds}; throws Refused, or TypeError when nobody answers.
export async function ask(path, content, signal) {
  const headers = { "x-timings": "1" };
  if (token) headers.authorization = `Bearer ${token}`;
  const options = { headers, signal };
  if (content !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(content);
    headers["content-type"] = "application/json";
  }
  const started = performance.now();
  const response = await fetch(path, options);
  const body = await response.text();
  const milliseconds = performance.now() - started;
  let found;
  try {
    found = JSON.parse(body);
  } catch {
    throw new Refused(response.status, `the server answered ${response.status} with no JSON`);
  }
  if (!response.ok) {
    throw new Refused(response.status, found.error ?? response.statusText, Number(response.headers.get("retry-after")));
  }
  return { content: found, headers: response.headers, milliseconds };
}

// Asks again while the server has too much to do.
export async function askPatiently(path, content, signal, tries = 20) {
  for (;;) {
    try {
      return await ask(path, content, signal);
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 429 || --tries <= 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retrySeconds || 1)));
      signal?.throwIfAborted();
    }
  }
}
