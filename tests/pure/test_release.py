"""Held messages are released, however many there are."""

import json
from subprocess import CompletedProcess

from crm_milter.cli.pause import _release

NUMBER = 100_000


class Postconf:
    """A Postfix with so many messages on hold."""

    def __init__(self):
        self.released = []

    def run(self, tool, *arguments, stdin=""):
        if tool == "postqueue":
            held = {"queue_name": "hold", "arrival_time": 1000}
            lines = [json.dumps({"queue_id": f"4bXq1Z{each}", **held}) for each in range(NUMBER)]
            return CompletedProcess(tool, 0, "\n".join(lines), "")
        assert (tool, arguments) == ("postsuper", ("-H", "-"))
        self.released += stdin.splitlines()
        return CompletedProcess(tool, 0, "", "")


def test_more_than_the_arguments_of_a_command_may_be():
    postfix = Postconf()
    noted = {f"4bXq1Z{each}": 1000.0 for each in range(NUMBER - 1)}
    assert _release(postfix, noted) == NUMBER - 1
    assert postfix.released == list(noted)
