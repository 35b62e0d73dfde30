"""Why a request has no answer: one type, one shape on the wire.

The shape is text-embeddings-inference's `{"error", "error_type"}`; Open Inference Protocol clients read `error`.
"""

from export.errors import ExportError

STATUS = {
    "validation": 422,
    "malformed": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method": 405,
    "too_large": 413,
    "overloaded": 429,
    "internal": 500,
    "backend": 503,
    "unhealthy": 503,
    "timeout": 504,
}


class RequestError(ExportError):
    """A request that is not answered; `kind` is a key of STATUS, `retry_after_seconds` says when to come back."""

    def __init__(self, kind: str, message: str, retry_after_seconds: int | None = None) -> None:
        """Keep what goes to the client."""
        super().__init__(message)
        self.kind = kind
        self.retry_after_seconds = retry_after_seconds

    @property
    def status(self) -> int:
        """The HTTP status code."""
        return STATUS[self.kind]

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with the status."""
        headers = {}
        if self.retry_after_seconds is not None:
            headers["retry-after"] = str(self.retry_after_seconds)
        if self.kind == "unauthorized":
            headers["www-authenticate"] = "Bearer"
        if self.kind == "method":
            headers["allow"] = "POST"
        return headers

    @property
    def content(self) -> dict[str, str]:
        """The body as JSON values."""
        return {"error": str(self), "error_type": self.kind}
