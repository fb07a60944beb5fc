"""What a stranger could choose: the domain that mail is sent to, or whose mail is taken.

Mail goes to the domain of a target with this host's good name, so no sender may choose it
(an open relay), and a domain of which everybody may have an address is not this host's.
"""

import re
from collections.abc import Iterator

from crm_milter import address as addresses
from crm_milter.rules import regexes
from crm_milter.rules.pattern import AddressList, Exact, Glob, InDomain, Pattern, Regex
from crm_milter.rules.template import Template

_REFERENCE = re.compile(r"\\([1-9])")
_LITERALS = re.compile(r"(?:[a-z0-9_-]|\\[.-])+(?:\|(?:[a-z0-9_-]|\\[.-])+)*", re.IGNORECASE)
_NAMED_DOMAIN = re.compile(r"@((?:[\w-]|\\?[.-])+)")
# Providers where everybody may have an address, by the last labels of the domain.
_PUBLIC = frozenset(
    {
        *("gmail.com", "googlemail.com", "outlook.com", "hotmail.com", "live.com", "msn.com"),
        *("yahoo.com", "ymail.com", "rocketmail.com", "aol.com", "icloud.com", "me.com", "mac.com"),
        *("proton.me", "protonmail.com", "pm.me", "tutanota.com", "tuta.io", "fastmail.com"),
        *("zoho.com", "zohomail.com", "mail.com", "hey.com", "hushmail.com", "duck.com"),
        *(
            "gmx.com",
            "gmx.net",
            "gmx.de",
            "gmx.at",
            "gmx.ch",
            "web.de",
            "t-online.de",
            "freenet.de",
        ),
        *("posteo.de", "mailbox.org", "1und1.de", "arcor.de", "online.de"),
        *(
            "orange.fr",
            "free.fr",
            "laposte.net",
            "wanadoo.fr",
            "sfr.fr",
            "libero.it",
            "virgilio.it",
        ),
        *("tiscali.it", "alice.it", "seznam.cz", "centrum.cz", "wp.pl", "o2.pl", "onet.pl"),
        *(
            "mail.ru",
            "bk.ru",
            "inbox.ru",
            "list.ru",
            "rambler.ru",
            "yandex.ru",
            "yandex.com",
            "ya.ru",
        ),
        *("ukr.net", "qq.com", "163.com", "126.com", "sina.com", "foxmail.com", "aliyun.com"),
        *("naver.com", "daum.net", "hanmail.net", "rediffmail.com", "comcast.net", "verizon.net"),
        *("att.net", "sbcglobal.net", "cox.net", "btinternet.com", "sky.com", "bluewin.ch"),
        *("uol.com.br", "bol.com.br", "terra.com.br", "bigpond.com"),
    }
)
_PUBLIC_NAMES = re.compile(r"(?:yahoo|hotmail|live|outlook|gmx|aol)\.(?:[a-z]{2}|com?\.[a-z]{2})")


def is_public(domain: str) -> bool:
    """Tell whether everybody may have an address of this domain (A-labels, lower case)."""
    return domain in _PUBLIC or bool(_PUBLIC_NAMES.fullmatch(domain))


def domains_of(pattern: Pattern) -> set[str]:
    """Return the domains of the addresses that a pattern takes, as far as it names them."""
    match pattern:
        case Exact(address):
            return {addresses.domain_of(address)}
        case AddressList(_, listed):
            return set(map(addresses.domain_of, listed))
        case InDomain(domain) | Glob(_, _, domain):
            return {domain}
        case Regex(source):
            found = _NAMED_DOMAIN.findall(source)
            return {each.replace("\\", "").lower() for each in found}
    return set()


def free_reference(template: Template, pattern: Pattern) -> int | None:
    r"""Return the group by which a sender could choose the target's domain, None if there is none.

    A group of a regular expression that lists its alternatives, as ``(shop|help\.eu)``, leaves
    no choice.
    """
    if template.domain is None:
        return None
    wanted = {int(number) for number in _REFERENCE.findall(template.domain)}
    if not wanted:
        return None
    texts = dict(_groups(pattern.source[1:-1])) if isinstance(pattern, Regex) else {}
    free = (number for number in sorted(wanted) if not _LITERALS.fullmatch(texts.get(number, "")))
    return next(free, None)


def _groups(expression: str) -> Iterator[tuple[int, str]]:
    """Yield each capturing group of an expression of RE2, and its text; not those with flags."""
    if "\\Q" in expression:  # quotes parentheses as well
        return
    plain = regexes.blanked(expression)  # of the same length
    opened: list[tuple[int, int]] = []
    count = 0
    for at, character in enumerate(plain):
        if character == "(":
            captures = plain[at + 1 : at + 2] != "?"
            named = re.match(r"\(\?P?<\w+>", plain[at:])
            count += captures or bool(named)
            start = at + (named.end() if named else 1)
            opened.append((count if captures or named else 0, start))
        elif character == ")" and opened:
            number, start = opened.pop()
            if number:
                yield number, expression[start:at]
