"""What a server is told at its start: which bundles, where to listen, and the limits that keep it standing."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from export.doubt_settings import DoubtSettings

TOKEN_VARIABLE = "POTSTILL_TOKEN"


class ServeSettings(BaseModel):
    """Settings of one server; every worker process holds the same.

    The first of `bundles` (folders by the name they are served under) answers where a request names no model.
    `max_wait_ms` is the predicted wait above which a request is refused, so that those accepted are answered in
    time; `timeout_ms` is the deadline of a request that brings none. None switches a limit or a feature off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    bundles: dict[str, Path] = Field(min_length=1)
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    workers: int = Field(1, ge=1, le=1024)
    token: SecretStr | None = None
    max_queue: int = Field(512, ge=1, description="texts that may wait in one worker")
    max_wait_ms: float = Field(20.0, gt=0)
    timeout_ms: float | None = Field(None, gt=0)
    max_body_bytes: int = Field(1_000_000, ge=1)
    max_texts: int = Field(128, ge=1, description="texts of one request")
    max_characters: int = Field(20_000, ge=1, description="characters of one text")
    batching: bool = Field(False, description="share a run between texts when that is predicted to be sooner")
    watch_seconds: float | None = Field(2.0, gt=0, description="how often to look for a new version of a bundle")
    drain_delay_seconds: float = Field(0.0, ge=0, description="how long to go on accepting when told to stop")
    drain_seconds: float = Field(30.0, gt=0, description="how long accepted requests may take after that")
    doubt: DoubtSettings | None = Field(None, description="what to do with doubtful texts")
