"""Runs the lines of a crontab, as a user, at their times for some minutes; prints what each came to as a line of JSON.

A cron in the foreground: croniter says when, /bin/sh runs, and a line that is still running does not keep the others.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

from croniter import croniter

path, minutes, user, group, home = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
whose = {"user": user, "group": group, "extra_groups": []} if os.geteuid() == 0 else {}
lines, running = [], []
for line in open(path):
    line = line.strip()
    if not line or line.startswith("#") or "=" in line.split()[0]:
        continue
    fields = line.split(" ", 5)
    lines.append((" ".join(fields[:5]), fields[5].replace("\\%", "%")))
until = time.time() + minutes * 60
due = [croniter(when, time.time()).get_next() for when, _ in lines]


def reap():
    for entry in running[:]:
        child, out, at, command = entry
        if child.poll() is not None:
            running.remove(entry)
            out.seek(0)
            said = out.read()[-4000:].decode(errors="replace")
            print(json.dumps({"at": at, "command": command, "exit": child.returncode, "said": said}), flush=True)


while time.time() < until:
    time.sleep(max(0.0, min(min(due), until) - time.time()))
    for number, (when, command) in enumerate(lines):
        if due[number] <= time.time():
            at = due[number]
            due[number] = croniter(when, at).get_next()
            out = tempfile.TemporaryFile()
            told = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT}
            environment = {**os.environ, "HOME": home}
            child = subprocess.Popen(["/bin/sh", "-c", command], cwd=home, env=environment, **told, **whose)
            running.append((child, out, at, command))
    reap()
while running:
    running[0][0].wait()
    reap()
