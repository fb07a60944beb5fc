"""Faults in a running crm-milter: with this folder in PYTHONPATH, Python reads this file first.

The sender chooses what fails at end of message: raise@, or add@, delete@ and header@ for
an edit that cannot be carried out. boom@ fails wherever it stands.
"""

from crm_milter import address
from crm_milter.libmilter import session

decide, normalise = session.decide, address.normalise


class Changed:
    """A decision with other edits."""

    def __init__(self, decision, **changes):
        self.__dict__.update(changes)
        self._decision = decision

    def __getattr__(self, name):
        return getattr(self._decision, name)


def faulty_decide(policy, envelope, fields):
    kind = envelope.sender.partition("@")[0]
    if kind == "raise":
        raise RuntimeError("injected at the end of the message")
    decision = decide(policy, envelope, fields)
    if kind == "add":
        decision = Changed(decision, add=(*decision.add, None))
    if kind == "delete":
        decision = Changed(decision, remove=(*decision.remove, "\udcff"))
    if kind == "header":
        decision = Changed(decision, headers=(("X", None),))
    return decision


def faulty_normalise(text):
    if text.startswith("boom@"):
        raise ValueError("injected at an address")
    return normalise(text)


session.decide, address.normalise = faulty_decide, faulty_normalise
