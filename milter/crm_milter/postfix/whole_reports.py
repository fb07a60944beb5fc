"""What has to change in Postfix for a report to hold the whole message that the CRM rejected."""

from crm_milter.postfix.edit import Edit
from crm_milter.postfix.postconf import Service
from crm_milter.postfix.site import Site

_MESSAGE_SIZE, _BOUNCE_SIZE = "message_size_limit", "bounce_size_limit"
_LARGEST = 2**31 - 1  # what bounce_size_limit can be


def dead_letters(site: Site) -> list[str]:
    """Return the mailboxes for what targets reject, each once."""
    boxes = (rule.dead_letters or site.config.dead_letters for rule in site.rules if rule.replaces)
    return list(dict.fromkeys(filter(None, boxes)))


def bounce_size(site: Site) -> list[Edit]:
    """Return the edits that let a report hold the largest message that Postfix accepts."""
    if not dead_letters(site):
        return []
    limits = [site.postconf.value(_MESSAGE_SIZE, each) for each in _limiting(site)]
    sizes = [int(each) for each in limits if each.isdigit()]
    wanted = _LARGEST if 0 in sizes else min(max(sizes, default=0), _LARGEST)
    scopes = [] if wanted <= _number(site.postconf.value(_BOUNCE_SIZE)) else [""]
    scopes += [
        each.label
        for each in site.postconf.running_as("bounce")
        if _BOUNCE_SIZE in each.overrides
        and wanted > _number(site.postconf.value(_BOUNCE_SIZE, each))
    ]
    return [Edit(each, _BOUNCE_SIZE, str(wanted)) for each in scopes]


def _limiting(site: Site) -> list[Service | None]:
    """Return the services whose own limit of the size of a message counts, None for main.cf."""
    services = site.postconf.running_as("smtpd", "cleanup")
    return [None, *(each for each in services if _MESSAGE_SIZE in each.overrides)]


def _number(value: str) -> int:
    return int(value) if value.isdigit() else 0
