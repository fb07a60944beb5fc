"""Mail of every kind, and what it has to be counted as."""

from dataclasses import dataclass

CONFIG = """
unrouted_to: it@solarmora.com
authentication: mx.solarmora.com
spam:
  filter: amavis
  no_verdict: leave
rules:
  - name: support
    match: help@solarmora.com
    replace_with: support@crm.example
    also_deliver_to: [team@solarmora.com, {address: boss@solarmora.com, deliver_spam: true}]
  - name: open
    match: open@solarmora.com
    replace_with: open@crm.example
    also_deliver_to: [team@solarmora.com, {address: boss@solarmora.com, deliver_spam: true}]
    bypass_spam_filter: true
  - {name: copy, match: copy@solarmora.com, also_deliver_to: team@solarmora.com}
  - {name: reject, match: reject@solarmora.com, replace_with: r@crm.example, on_spam: reject}
  - {name: hold, match: hold@solarmora.com, replace_with: h@crm.example, on_spam: quarantine}
  - {name: drop, match: drop@solarmora.com, replace_with: d@crm.example, on_spam: discard}
  - {name: trial, match: trial@solarmora.com, replace_with: t@crm.example, mode: test}
  - {name: robot, match: robot@solarmora.com, replace_with: a@crm.example, automatic: leave}
  - {name: signed, match: signed@solarmora.com, replace_with: a@crm.example, on_unauthenticated: leave}
  - {name: small, match: small@solarmora.com, replace_with: s@crm.example, max_size: 1K}
  - {name: silent, match: silent@solarmora.com, replace_with: n@crm.example}
"""  # noqa: E501 - a rule a line

HAM, SPAM = ("X-Spam-Flag: NO",), ("X-Spam-Flag: YES",)
SUPPORT = {("support", "replaced"): 1, ("support", "added"): 2}


@dataclass(frozen=True)
class Kind:
    """A kind of message: to whom, header fields; message outcome, verdict, counts by rule."""

    to: tuple[str, ...]
    fields: tuple[str, ...]
    outcome: str
    verdict: str
    rules: dict[tuple[str, str], int]
    body: str = "hello"
    code: int = 250

    @property
    def rcpts(self) -> list[str]:
        return [f"<{each}@solarmora.com>" for each in self.to]

    @property
    def message(self) -> bytes:
        return "\n".join(["Subject: hello", *self.fields, "", self.body, ""]).encode()


KINDS = (
    Kind(("joe",), HAM, "passed", "", {}),
    Kind(("help",), HAM, "rerouted", "ham", SUPPORT),
    Kind(("help", "joe"), HAM, "rerouted", "ham", SUPPORT),
    Kind(("help",), SPAM, "left", "spam", {("support", "left_spam"): 1}),
    Kind(
        ("help", "open"),
        SPAM,
        "rerouted",
        "spam",
        {
            ("support", "left_spam"): 1,
            ("open", "replaced"): 1,
            ("open", "added"): 1,
            ("open", "withheld_spam"): 1,
        },
    ),
    Kind(("help",), HAM + SPAM, "left", "conflicting", {("support", "left_spam"): 1}),
    Kind(("silent",), (), "left", "none", {("silent", "left_no_verdict"): 1}),
    Kind(
        *(("copy",), HAM, "rerouted", "ham"),
        {("copy", "kept_with_copies"): 1, ("copy", "added"): 1},
    ),
    Kind(("reject",), SPAM, "rejected", "spam", {("reject", "rejected"): 1}, code=550),
    Kind(("reject", "joe"), SPAM, "left", "spam", {("reject", "left_spam"): 1}),
    Kind(("hold",), SPAM, "quarantined", "spam", {("hold", "quarantined"): 1}),
    Kind(("drop",), SPAM, "discarded", "spam", {("drop", "discarded"): 1}),
    Kind(("drop", "joe"), SPAM, "discarded", "spam", {("drop", "discarded"): 1}),
    Kind(("trial",), HAM, "left", "ham", {("trial", "test"): 1}),
    Kind(
        *(("robot",), (*HAM, "Auto-Submitted: auto-replied"), "left", "ham"),
        {("robot", "left_automatic"): 1},
    ),
    Kind(
        *(
            ("signed",),
            (*HAM, "Authentication-Results: mx.solarmora.com; dmarc=fail"),
            "left",
            "ham",
        ),
        {("signed", "left_unauthenticated"): 1},
    ),
    Kind(
        *(("small",), HAM, "left", "ham"),
        {("small", "left_oversize"): 1},
        body="x" * 900 + "\n" + "y" * 900,
    ),
    Kind(
        *(("silent",), (*HAM, "From: n@crm.example"), "left", "ham"),
        {("silent", "left_loop"): 1},
    ),
)
