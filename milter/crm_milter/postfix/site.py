"""All that a check looks at: our configuration, the Postfix of this host, and the table between."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from crm_milter import address as addresses
from crm_milter.config.load import Config
from crm_milter.postfix.aliases import AliasError, alias_lines
from crm_milter.postfix.domains import Domains
from crm_milter.postfix.lookup import Tables
from crm_milter.postfix.milters import MilterEntry, OurSocket, parse
from crm_milter.postfix.postconf import Postconf, Service
from crm_milter.rules.rule import Mode, Rule
from crm_milter.rules.table import RuleTable


@dataclass(frozen=True)
class Site:
    """A valid configuration (``path`` names its file) and the Postfix that it is for."""

    config: Config
    path: Path
    postconf: Postconf

    @cached_property
    def tables(self) -> Tables:
        """Return the look-ups in this Postfix's tables."""
        return Tables(self.postconf)

    @cached_property
    def domains(self) -> Domains:
        """Return the look-ups of this Postfix's domains and recipients."""
        return Domains(self.postconf, self.tables)

    @cached_property
    def socket(self) -> OurSocket:
        """Return our socket as this Postfix names it."""
        return OurSocket(self.config.milter.listen, self.postconf)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Return the rules that act: one in test mode changes nothing."""
        return self.table.rules

    @property
    def tested(self) -> tuple[Rule, ...]:
        """Return the rules in test mode."""
        return tuple(each for each in self.config.policy.table.rules if each.mode is Mode.TEST)

    @cached_property
    def table(self) -> RuleTable:
        """Return the table of the rules that act."""
        return self.config.policy.table.enforced()

    @cached_property
    def alias_lines(self) -> list[str] | AliasError:
        """Return the lines of the generated table, or why there can be none."""
        try:
            return alias_lines(self.config.policy.table, self.config.unrouted_to)
        except AliasError as error:
            return error

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Return the entries of the generated table, wildcards and identities as well."""
        if isinstance(self.alias_lines, AliasError):
            return {}
        pairs = (line.split("  ", 1) for line in self.alias_lines if not line.startswith("#"))
        return {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2}

    @cached_property
    def routed(self) -> dict[str, str]:
        """Return each exact address that a rule takes from Postfix, and its ``unrouted_to``.

        Only in their ASCII spelling; the other one is the same address to a person.
        """
        return {
            key: mailbox
            for key, mailbox in self.aliases.items()
            if not key.startswith("@") and key.isascii() and not _is_same(key, mailbox)
        }

    @cached_property
    def copied(self) -> list[str]:
        """Return the exact addresses that stay in the envelope: mailboxes that get copies."""
        return [
            address
            for rule in self.rules
            for address in rule.addresses()
            if address not in self.aliases and address.isascii() and not rule.replaces
        ]

    def milters(self, service: Service, parameter: str = "smtpd_milters") -> list[MilterEntry]:
        """Return the milters that a service uses."""
        return parse(self.postconf.value(parameter, service))

    def ours(self, entries: list[MilterEntry]) -> list[int]:
        """Return the places in a list where our milter stands."""
        return [at for at, entry in enumerate(entries) if self.socket.is_ours(entry)]


def _is_same(key: str, mailbox: str) -> bool:
    return addresses.normalise(key) == addresses.normalise(mailbox)
