"""Mail that the CRM rejects for good: whether any mailbox of ours has it."""

from crm_milter import address as addresses
from crm_milter.config.build import RuleEntry
from crm_milter.config.place import Section
from crm_milter.rules.rule import Rule
from crm_milter.rules.strangers import domains_of
from crm_milter.wording import abridged


def check(entries: tuple[RuleEntry, ...], root: Section) -> None:
    """Note, in one sentence, the rules of a valid file whose mail would be gone."""
    if root["dead_letters"]:
        return
    rules = [entry.rule for entry in entries]
    open_ended = [each for each in rules if each.replaces and not each.is_test]
    open_ended = [each for each in open_ended if not each.dead_letters]
    domains = _domains(rules, root) if any(each.copies for each in open_ended) else set()
    names = [f'"{each.name}"' for each in open_ended if not _keeps_copy(each, domains)]
    if names:
        of = "rule" if len(names) == 1 else "rules"
        message = (
            f"mail that the CRM rejects is lost for {of} {abridged(names)}: name a mailbox for it"
            ' with "dead_letters", or send a copy to one (also_deliver_to)'
        )
        root.place.warn(("dead_letters",), message)


def _keeps_copy(rule: Rule, domains: set[str]) -> bool:
    return any(addresses.ascii_domain(each.address.rpartition("@")[2]) in domains
               for each in rule.copies)  # fmt: skip


def _domains(rules: list[Rule], root: Section) -> set[str]:
    """Return the domains that the file shows to be this host's."""
    found: set[str] = set()
    for rule in rules:
        for pattern in rule.match:
            found |= domains_of(pattern)
        if rule.address_map is not None:
            found.update(map(addresses.domain_of, rule.address_map.targets))
    boxes = [root["unrouted_to"], *(rule.unrouted_to for rule in rules)]
    return found | {addresses.domain_of(each) for each in boxes if each}
