"""What the stand-ins have in common: their files, and the ways in which a test steers them."""

import fcntl
import json
import sys
from pathlib import Path

# Where it was called by: a test calls it by a link in a directory of its own.
HERE = Path(sys.argv[0]).absolute().parent


class Refused(Exception):
    """What goes to standard error, and the exit code."""

    def __init__(self, said, code):
        super().__init__(said)
        self.said, self.code = said, code


def path_of(name):
    return HERE / "instances" / f"{name}.json"


def load(name):
    path = path_of(name)
    return json.loads(path.read_text()) if path.exists() else None


def save(name, instance):
    path = path_of(name)
    path.parent.mkdir(exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(instance, indent=1))
    fresh.rename(path)


def plan(name, states):
    """The states that the next looks show, one each; the last one stays."""
    if (HERE / "slow").exists():
        states = states[:1]
    path_of(name).with_suffix(".states").write_text("\n".join(states))


def next_state(name):
    path = path_of(name).with_suffix(".states")
    if not path.exists():
        return None
    states = path.read_text().splitlines()
    if len(states) > 1:
        path.write_text("\n".join(states[1:]))
    return states[0] if states else None


def ignored(command):
    return (HERE / "ignore" / command).exists()


def options(args):
    """`--name value …` as lists; a bare `--name` is an empty one."""
    found, last = {}, None
    for arg in args:
        if arg.startswith("--"):
            name, equals, value = arg[2:].partition("=")
            last = found.setdefault(name, [])
            if equals:
                last.append(value)
        elif last is not None:
            last.append(arg)
    return found


def run(words, answer):
    """`words`: how many of the arguments name the command; `answer(command, options)` gives what is printed."""
    args = sys.argv[1:]
    command = args[words - 1]
    with open(HERE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(HERE / "calls", "a") as calls:
            calls.write(json.dumps(args) + "\n")
        try:
            for failing in [HERE / "fail" / command, *(HERE / "fail" / f"{command}@{arg}" for arg in args[words:] if len(arg) < 100)]:
                if "/" in failing.name or not failing.exists():
                    continue
                said = failing.read_text()
                left = failing.with_name(failing.name + ".calls")
                calls = int(left.read_text()) if left.exists() else 1
                if calls > 1:
                    left.write_text(str(calls - 1))
                else:
                    failing.unlink()
                raise Refused(said, 254)
            printed = answer(command, options(args[words:]), args[words:])
        except Refused as refused:
            sys.stderr.write(refused.said + "\n")
            sys.exit(refused.code)
    gate = HERE / "gate" / command
    if gate.exists():
        # Not over the directory that a test removes.
        gate.read_text()
    if printed is not None:
        print(printed if isinstance(printed, str) else json.dumps(printed, indent=4))
