"""``crm-milter serve``: from the command line to a supervisor that runs.

Nothing is said on stdout. Under systemd each line has its priority, those before the start as well.
"""

import contextlib
import resource
import sys
from pathlib import Path

from crm_milter.cli.terminal import EX_CONFIG, EX_NO, EX_OK, say
from crm_milter.daemon import handover, lastgood
from crm_milter.daemon.child import Signals
from crm_milter.daemon.loading import Loader, RefusedError
from crm_milter.daemon.supervisor import Supervisor
from crm_milter.libmilter.listener import Listener
from crm_milter.libmilter.opening import ListenError
from crm_milter.log import Log, is_journal, stderr_log


def serve(path: Path, *, hand_over: bool, dry_run: bool) -> int:
    """Serve until told to stop and return the exit status."""
    given = handover.inherited()
    log = stderr_log()
    loader = Loader(path, lastgood.Store(lastgood.state_directory()), starting_log())
    try:
        loaded = loader.at_start()
    except RefusedError as refused:
        for line in refused.lines:
            starting_log()(line)
        return EX_CONFIG
    if dry_run:
        return EX_OK
    _allow_many_sessions()
    signals = Signals()  # first: who finds the socket may also send a signal
    store = handover.Store(hand_over)
    settings = loaded.config.milter
    try:
        listener = Listener(
            settings.listen, settings.socket_mode, settings.socket_group, given.listener
        )
    except ListenError as error:
        starting_log()(f"error: {error}")
        return EX_NO
    if given.listener and not listener.is_inherited:
        store.drop(handover.listener_name(given.listener[1]))
    supervisor = Supervisor(loader.saying(log), loaded, listener, signals, store, given, log)
    del loaded  # the rules of the start are not in force forever
    return supervisor.run()


def starting_log() -> Log:
    """Return the log for what is said before the start: to a person, if there is no journal."""
    if is_journal(sys.stderr.fileno()):
        return stderr_log()
    return lambda line: say(line.removeprefix("error: "))


def _allow_many_sessions() -> None:
    """Raise the limit of open descriptors: a session is one, and the default is low."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # then there may be fewer
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
