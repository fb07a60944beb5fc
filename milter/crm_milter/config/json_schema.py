"""The description of the configuration as JSON Schema, for editors that complete and check YAML.

Derived from ``keys``, which the validator reads by. A schema sees shapes only: what is wrong
between keys, rules and files is found by ``crm-milter check`` alone.
"""

from typing import Any, assert_never

from crm_milter.config.kinds import (
    Choice,
    Decimal,
    Either,
    Fields,
    FileText,
    Flag,
    Key,
    Kind,
    Several,
    Table,
    Text,
    Whole,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def json_schema(root: Table, title: str) -> Schema:
    """Return the schema of a file with the keys of ``root``."""
    return {"$schema": DIALECT, "title": title, **_schema(root)}


def _schema(kind: Kind) -> Schema:
    match kind:
        case Text() | FileText() | Whole() | Flag() | Decimal() | Choice():
            return _single(kind)
        case Several():
            return _several(kind)
        case Either():
            return {"anyOf": [_schema(kind.short), _schema(kind.table)]}
        case Fields():
            return {
                "type": ["object", "null"],
                "propertyNames": {"pattern": kind.name.shape},
                "additionalProperties": _schema(kind.value),
            }
        case Table():
            return _table(kind)
    assert_never(kind)


def _single(kind: Text | FileText | Whole | Flag | Decimal | Choice) -> Schema:
    match kind:
        case Text():
            types: Schema = {"type": ["string", "integer"] if kind.number else "string"}
            return {**types, "pattern": kind.shape} if kind.shape else types
        case FileText():
            return {"type": "string", "pattern": kind.shape or "."}
        case Whole():
            number = {"type": "integer", "minimum": kind.least, "maximum": kind.most}
            return {"anyOf": [number, {"const": kind.word}]} if kind.word else number
        case Flag():
            return {"type": "boolean"}
        case Decimal():
            return {"type": "number"}
    return {"enum": [each.value for each in kind.values]}


def _several(kind: Several) -> Schema:
    item = _schema(kind.item)
    items: Schema = {"type": "array", "items": item}
    if kind.least:
        items["minItems"] = kind.least
    if kind.one:
        return {"anyOf": [item, items]}
    return {**items, "type": ["array", "null"]}


def _table(kind: Table) -> Schema:
    schema: Schema = {
        "type": "object" if kind.required or kind.needs else ["object", "null"],
        "properties": {key.name: _key(key) for key in kind.keys.values()},
        "additionalProperties": False,
    }
    if kind.required:
        schema["required"] = list(kind.required)
    relations: list[Schema] = [
        {"anyOf": [{"required": [name]} for name in names]} for names in kind.needs
    ]
    relations += [{"not": {"required": list(pair)}} for pair in kind.apart]
    if relations:
        schema["allOf"] = relations
    return schema


def _key(key: Key) -> Schema:
    schema = _schema(key.kind)
    schema["description"] = key.doc
    if not key.required and key.default is not None:
        schema["default"] = list(key.default) if isinstance(key.default, tuple) else key.default
    return schema
