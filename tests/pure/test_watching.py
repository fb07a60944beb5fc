"""A watch sees what has changed, whatever else lies in the directories."""

from crm_milter.config.sources import Disk
from crm_milter.daemon.watching import Watch


def test_a_file_beside_that_always_changes(tmp_path):
    rules, other = tmp_path / "rules.yaml", tmp_path / "table.db"
    rules.write_text("rules: []\n")
    other.write_text("")
    disk, watch = Disk(), Watch()
    disk.names(tmp_path)
    disk.open(rules).close()
    watch.begin(disk.seen, disk.folders)
    looks = []
    for number in range(4):
        other.write_text("x" * number)
        looks.append(watch.has_changed())
        if number == 1:
            rules.write_text("rules:\n")
    assert looks == [False, False, False, True]
