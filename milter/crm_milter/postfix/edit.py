"""One change of a parameter in main.cf or master.cf."""

from dataclasses import dataclass

from crm_milter.postfix.postconf import split_list


@dataclass(frozen=True, slots=True)
class Edit:
    """A parameter's new value, unexpanded; None removes it from the file.

    ``scope`` is a service such as ``smtp/inet``, or "" for main.cf.
    """

    scope: str
    name: str
    value: str | None

    @property
    def arguments(self) -> tuple[str, ...]:
        """Return the arguments of postconf that make the change."""
        target = f"{self.scope}/{self.name}" if self.scope else self.name
        if self.value is None:
            return ("-PX" if self.scope else "-X", target)
        if self.scope:
            return ("-P", f"{target}={without_blanks(self.value)}")
        return ("-e", f"{target} = {self.value}")


def without_blanks(value: str) -> str:
    """Return a list as postconf -P takes it, which refuses blanks in a value."""
    items = (
        "{" + without_blanks(item[1:-1]) + "}" if item.startswith("{") else item
        for item in split_list(value)
    )
    return ",".join(items).replace(",=,", "=").replace("=,", "=").replace(",=", "=")
