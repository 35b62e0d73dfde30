"""Requests that nobody should send: instances of a JSON schema, good and spoilt, and bytes that are no JSON at all."""

import json
import random
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

_WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, -1e-308, 2**63, 10**30, "", "\x00", "a" * 3000, "ß漢字🎉", "\u202e", [], {}, [[]], [None],
    {"a": {"b": []}}, ["a", 1], "../../etc/passwd", "%00", "' OR 1=1 --",
)  # fmt: skip
_WORDS = ("card", "lost", "my", "has not", "arrived", "ß", "🎉", "\n", " ", "", "\x00", "a" * 200, "漢字", "-")


class Sampler:
    """Draws instances of the schemas of one OpenAPI document."""

    def __init__(self, document: Mapping[str, Any], seed: int) -> None:
        """Draw the same for the same `seed`."""
        self._document = document
        self._random = random.Random(seed)

    def request(self, path: str, operation: Mapping[str, Any]) -> tuple[str, dict[str, str], bytes | None]:
        """Return path, headers and body of one request to an operation, one in two of them spoilt."""
        headers: dict[str, str] = {}
        for parameter in operation.get("parameters", ()):
            value = str(self._random.choice([self.instance(parameter["schema"]), self._random.choice(_WRONG)]))
            if parameter["in"] == "path":
                known = self._random.choice(["fuzz", "1", value]) or "x"
                path = path.replace(f"{{{parameter['name']}}}", quote(known, safe=""))
            elif self._random.random() < 0.2:
                headers[parameter["name"]] = "".join(letter for letter in value if " " < letter <= "~")
        if "requestBody" not in operation:
            return path, headers, None
        content = self.instance(operation["requestBody"]["content"]["application/json"]["schema"])
        if self._random.random() < 0.5:
            content = self._spoil(content)
        return path, headers, json.dumps(content).encode()

    def raw(self, sound: bytes) -> bytes:
        """Return a body that is mostly no JSON: noise, `sound` cut or with changed bytes, or nested too deep."""
        draw = self._random
        match draw.randrange(6):
            case 0:
                return draw.randbytes(draw.randrange(300))
            case 1:
                return sound[: draw.randrange(len(sound) + 1)]
            case 2:
                changed = bytearray(sound)
                for _ in range(draw.randrange(1, 5)):
                    changed[draw.randrange(len(changed))] = draw.randrange(256)
                return bytes(changed)
            case 3:
                depth = draw.choice([10, 1000, 100_000])
                return b"[" * depth + draw.choice([b"", b"]" * depth])
            case 4:
                return b'{"inputs": "' + draw.choice([rb"\ud800", rb"\u0000", b"\xff", rb"\x", b"\xed\xa0\x80"]) + b'"}'
        return b'{"inputs": ' + draw.choice(
            [b"1e999", b"NaN", b"-", b'"' + b"a" * 1_100_000 + b'"', b"[" + b'"a",' * 999]
        )

    def instance(self, schema: Mapping[str, Any]) -> Any:
        """Return a value that `schema` allows."""
        if "$ref" in schema:
            return self.instance(self._document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        if "anyOf" in schema:
            return self.instance(self._random.choice(schema["anyOf"]))
        if "const" in schema or "enum" in schema:
            return self._random.choice(schema.get("enum", [schema.get("const")]))
        return self._of_type(schema)

    def _of_type(self, schema: Mapping[str, Any]) -> Any:
        draw = self._random
        match schema.get("type"):
            case "object":
                known = schema.get("properties", {})
                wanted = [name for name in known if name in schema.get("required", ()) or draw.random() < 0.3]
                return {name: self.instance(known[name]) for name in wanted}
            case "array":
                few = schema.get("minItems", 0)
                count = draw.randint(few, schema.get("maxItems", few + 3))
                return [self.instance(schema.get("items", {})) for _ in range(count)]
            case "integer" | "number":
                return draw.choice([0, 1, 2, 3, 50, 10_000])
            case "boolean":
                return draw.random() < 0.5
            case "null":
                return None
        return " ".join(draw.choices(_WORDS, k=draw.randrange(8)))

    def _spoil(self, content: Any) -> Any:
        """Return `content` with one value somewhere in it replaced, dropped or added."""
        draw = self._random
        if isinstance(content, dict) and content and draw.random() < 0.8:
            name = draw.choice(sorted(content))
            action = draw.randrange(4)
            if action == 0:
                return {key: value for key, value in content.items() if key != name}
            if action == 1:
                return {**content, draw.choice(["x", "", "__class__", "model"]): draw.choice(_WRONG)}
            return {**content, name: self._spoil(content[name])}
        if isinstance(content, list) and content and draw.random() < 0.8:
            place = draw.randrange(len(content))
            return [*content[:place], self._spoil(content[place]), *content[place + 1 :]]
        return draw.choice(_WRONG)
