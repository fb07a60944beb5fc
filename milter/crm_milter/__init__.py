"""Email-to-case for Postfix: a milter that routes mail for help@ to a CRM."""

__version__ = "0.1.0"
