"""The description of the configuration as JSON Schema, for editors that complete and check YAML.

A schema sees shapes only: what is wrong between keys, rules and files is found by
``crm-milter check`` alone.
"""

from crm_milter.config.kinds import Table
from crm_milter.config.scalars import Schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(root: Table, title: str) -> Schema:
    """Return the schema of a file with the keys of ``root``."""
    return {"$schema": DIALECT, "title": title, **root.schema()}
