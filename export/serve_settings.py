"""What a server is told at its start: which bundles, where to listen, and the limits that keep it standing."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr

TOKEN_VARIABLE = "POTSTILL_TOKEN"


class ServeSettings(BaseModel):
    """Settings of one server; every worker process holds the same.

    The first of `bundles` (folders by the name they are served under) answers where a request names no model. Every
    field but `bundles` and `token` is an option of `distill serve`, described here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bundles: dict[str, Path] = Field(min_length=1)
    token: SecretStr | None = None
    host: str = Field("127.0.0.1", description="the address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="the port to listen on; 0: any free one")
    workers: int | None = Field(None, ge=1, le=1024, description="processes of one session each; else one a core")
    max_queue: int = Field(512, ge=1, description="texts that may wait in one worker; above: 429")
    max_wait_ms: float = Field(20.0, gt=0, description="predicted wait of a request; above: 429")
    timeout_ms: float | None = Field(None, gt=0, description="deadline of a request without x-timeout-ms")
    max_body_bytes: int = Field(1_000_000, ge=1, description="bytes of one request")
    max_texts: int = Field(128, ge=1, description="texts of one request")
    max_characters: int = Field(20_000, ge=1, description="characters of one text")
    batching: bool = Field(False, description="texts of one request share a run where that is predicted to be sooner")
    watch_seconds: float = Field(2.0, ge=0, description="how often to look for new versions; 0: only on SIGHUP")
    drain_delay_seconds: float = Field(1.0, ge=0, description="on SIGTERM: not ready, but still accepting, for so long")
    drain_seconds: float = Field(30.0, gt=0, description="how long accepted requests may take after that")
    doubt: Path | None = Field(None, description="a YAML file: abstain, ask a teacher, capture")
