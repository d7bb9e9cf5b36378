"""JSON Schemas as this package uses them: checked first, and never followed to elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trilith.extras import need


class Validator:
    """Says what a value lacks of a schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Take the schema; draft 2020-12 where it names none.

        Raises:
            ValueError: it is no JSON Schema.
            MissingExtra: jsonschema is not installed.
        """
        library = need("jsonschema", extra="evals")
        referencing = need("referencing", extra="evals")
        made = library.validators.validator_for(schema, default=library.Draft202012Validator)
        try:
            made.check_schema(schema)
        except library.SchemaError as error:
            raise ValueError(f"not a JSON Schema: {error.json_path}: {error.message}") from None
        self._unresolvable = referencing.exceptions.Unresolvable
        # With an empty registry a `$ref` to elsewhere is not fetched: who writes data must not make us call.
        self._validator = made(schema, registry=referencing.Registry())

    def faults(self, value: Any) -> Iterator[Any]:
        """Yield jsonschema's `ValidationError`s.

        Raises:
            ValueError: the schema refers to what does not stand in it.
        """
        try:
            yield from self._validator.iter_errors(value)
        except self._unresolvable as error:
            raise ValueError(
                f"the schema refers to {error.ref}, which does not stand in it; write it under $defs"
            ) from None
