"""Faults in a running crm-milter: with this folder in PYTHONPATH, Python reads this file first.

The sender chooses what fails at end of message: raise@, or add@, delete@ and header@ for
an edit that cannot be carried out. boom@ fails wherever it stands.
"""

from dataclasses import replace

from crm_milter import address
from crm_milter.routing.memory import Memory

resolve, normalise, sender = Memory.resolve, address.normalise, address.sender


class Changed:
    """A decision with other edits."""

    def __init__(self, decision, **changes):
        self.__dict__.update(changes)
        self._decision = decision

    def __getattr__(self, name):
        return getattr(self._decision, name)


def faulty_resolve(self, envelope, facts):
    kind = envelope.sender.partition("@")[0]
    if kind == "raise":
        raise RuntimeError("injected at the end of the message")
    resolution, headers = resolve(self, envelope, facts)
    decision = resolution.decision
    if kind == "add":
        resolution = replace(resolution, additions=(*resolution.additions, (None, None)))
    if kind == "delete":
        changed = Changed(decision, remove=(*decision.remove, "\udcff"))
        resolution = replace(resolution, decision=changed)
    if kind == "header":
        headers = (("X", None),)
    return resolution, headers


def failing(argument):
    if argument.strip("<").startswith("boom@"):
        raise ValueError("injected at an address")
    return argument


Memory.resolve = faulty_resolve
address.normalise = lambda text: normalise(failing(text))
address.sender = lambda argument: sender(failing(argument))
