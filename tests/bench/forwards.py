"""How fast forwards are, against the rivals: `python -m tests.bench.forwards`.

Starts one sshd, the contenders and a load generator of its own on loopback, measures them in turn, round by round,
and prints ratios to `ssh -N -L -c aes128-gcm@openssh.com` as a Markdown table. Needs a C compiler, and what the tests
need. Rivals that are packages are installed into the account's cache; one that cannot be is left out, and named.

A full run takes about forty minutes. The machine should do nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests import sshd
from tests.bench import scenarios
from tests.bench.contenders import KINDS, LOCAL, Autossh, Contender, Proxy, Site, Ssh, Unavailable
from tests.bench.dashboard import Tunnelweb
from tests.bench.load import Load, LoadError
from tests.bench.packages import Asyncssh, NodeSsh2, Sshtunnel
from tests.bench.report import REFERENCE, Results
from tests.bench.scenarios import QUICK, SCENARIOS, Bench, Sizes

STOPPED = "The run was stopped before its end."
DELAY_EACH_WAY = 0.05
# Fresh processes say the same each time, and take long to start.
MOST_FRESH_ROUNDS = 3
# Some start 200 processes at once.
SSHD = "MaxStartups 1000\nMaxSessions 1000\n"


def everybody(load: Load) -> list[Contender]:
    return [
        Ssh(REFERENCE, "ssh aes128-gcm", "-c", "aes128-gcm@openssh.com"),
        Ssh("ssh", "ssh default cipher"),
        Autossh("autossh", "autossh"),
        NodeSsh2(),
        Sshtunnel(),
        Asyncssh(),
        Tunnelweb("tunnelweb", "Tunnelweb"),
        Tunnelweb("tunnelweb-plain", "Tunnelweb, TUNNELWEB_FAST_PATH=0", TUNNELWEB_FAST_PATH="0"),
        Proxy(load),
    ]


NAMES = [REFERENCE, "ssh", "autossh", "node-ssh2", "sshtunnel", "asyncssh", "tunnelweb", "tunnelweb-plain", "proxy"]
QUICK_NAMES = [REFERENCE, "ssh", "tunnelweb"]


def words(known: Sequence[str]):
    """Return a parser of a comma separated choice."""

    def parse(text: str) -> list[str]:
        chosen = [word.strip() for word in text.split(",") if word.strip()]
        if unknown := [word for word in chosen if word not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
        return chosen

    return parse


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a look within a minute: one round, small, few contenders")
    parser.add_argument("--rounds", type=int, help="5 unless told")
    parser.add_argument("--only", type=words(SCENARIOS), default=list(SCENARIOS), metavar=",".join(SCENARIOS))
    parser.add_argument("--contenders", type=words(NAMES), metavar=",".join(NAMES))
    parser.add_argument("--kinds", type=words(KINDS), metavar=",".join(KINDS))
    parser.add_argument("--seconds", type=float, help="of each measurement; 2 unless told")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures of all rounds there")
    chosen = parser.parse_args()
    chosen.rounds = chosen.rounds or (1 if chosen.quick else 5)
    chosen.kinds = chosen.kinds or ([LOCAL] if chosen.quick else list(KINDS))
    chosen.contenders = chosen.contenders or (QUICK_NAMES if chosen.quick else NAMES)
    return chosen


def sizes(chosen: argparse.Namespace) -> Sizes:
    found = QUICK if chosen.quick else Sizes()
    return dataclasses.replace(found, seconds=chosen.seconds) if chosen.seconds else found


def tell(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


class Run:
    """One run of the benchmark: what is measured goes into `results`, also when it is stopped half-way."""

    def __init__(self, bench: Bench, contenders: Sequence[Contender], rounds: int, results: Results) -> None:
        self.bench, self.contenders, self.rounds, self.results = bench, contenders, rounds, results

    def note(self, sentence: str) -> None:
        tell(sentence)
        self.results.note(sentence)

    def in_turn(self, chosen: Sequence[Contender], turn: int) -> list[Contender]:
        """Let another begin in each round: who comes after whom must not matter."""
        first = turn % len(chosen) if chosen else 0
        return [*chosen[first:], *chosen[:first]]

    def standing(self, kind: str, names: Sequence[str], bench: Bench) -> None:
        """Measure scenarios on forwards that run through all rounds."""
        chosen = [one for one in self.contenders if kind in one.kinds]
        if "far" in names:
            chosen = [one for one in chosen if one.encrypts]
        with ExitStack() as stack:
            tunnels = scenarios.stand(bench, chosen, kind, stack, self.note)
            chosen = [one for one in chosen if one.name in tunnels]
            for turn in range(self.rounds):
                tell(f"{kind}, {', '.join(names)}: round {turn + 1} of {self.rounds}")
                for number, probe in enumerate(probe for name in names for probe in scenarios.STANDING[name]):
                    for contender in self.in_turn(chosen, turn + number):
                        self.one(
                            kind, turn, contender, lambda probe=probe, one=contender: probe(bench, tunnels[one.name])
                        )

    def fresh(self, name: str) -> None:
        """Measure a scenario on forwards started for it."""
        chosen = [one for one in self.contenders if one.encrypts]
        for turn in range(min(self.rounds, MOST_FRESH_ROUNDS)):
            tell(f"{LOCAL}, {name}: round {turn + 1}")
            for contender in self.in_turn(chosen, turn):
                probe = scenarios.FRESH[name]
                self.one(LOCAL, turn, contender, lambda probe=probe, one=contender: probe(self.bench, one))

    def one(self, kind: str, turn: int, contender: Contender, probe) -> None:
        try:
            self.results.add(kind, turn, contender.name, probe())
        except (LoadError, Unavailable, OSError) as error:
            self.note(f"{contender.title} ({kind}), round {turn + 1}: {error}")

    def all(self, kinds: Sequence[str], only: Sequence[str], stack: ExitStack) -> None:
        for kind in kinds:
            names = [name for name in only if name in scenarios.EVERY_KIND[kind]]
            near = [name for name in names if name in scenarios.STANDING and name != "far"]
            if near:
                self.standing(kind, near, self.bench)
            if "far" in names:
                site = self.bench.site
                port = stack.enter_context(self.bench.load.delaying(site.port, DELAY_EACH_WAY))
                there = dataclasses.replace(self.bench, site=dataclasses.replace(site, port=port))
                self.standing(kind, ["far"], there)
            for name in names:
                if name in scenarios.FRESH:
                    self.fresh(name)


def ready(contenders: Sequence[Contender], note) -> list[Contender]:
    """Return those who can take part."""
    found = []
    for contender in contenders:
        try:
            contender.prepare()
        except Unavailable as error:
            note(str(error))
        else:
            found.append(contender)
    return found


def main() -> None:
    chosen = options()
    # Ended by another program, everything that was started is ended as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    wanted = {REFERENCE, *chosen.contenders}
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="tunnelweb-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            load = Load(folder)
        except LoadError as error:
            sys.exit(str(error))
        results = Results({})
        contenders = ready([one for one in everybody(load) if one.name in wanted], results.note)
        results.titles.update({one.name: one.title for one in contenders})
        server = stack.enter_context(sshd.running(SSHD))
        targets = [stack.enter_context(load.serving()) for _ in range(2)]
        bench = Bench(load, Site(server, server.port, folder), targets, sizes(chosen))
        run = Run(bench, contenders, chosen.rounds, results)
        try:
            run.all(chosen.kinds, chosen.only, stack)
        except KeyboardInterrupt:
            # Whoever is impatient now must not keep what was started from being ended.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            run.note(STOPPED)
    measured = {"rounds": chosen.rounds, **dataclasses.asdict(bench.sizes)}
    if chosen.json:
        chosen.json.write_text(results.json(measured))
    print(results.markdown(measured))
    if STOPPED in results.notes:
        sys.exit(130)


if __name__ == "__main__":
    main()
