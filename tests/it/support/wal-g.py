#!/usr/bin/env python3
"""Stands in for WAL-G, which the tests cannot have: its commands, answers and exit codes as its documentation and its source
say them, over a directory that is laid out like its own. What it keeps is real: base backups and WAL of a real server.
"""
import datetime
import json
import lzma
import os
import re
import shutil
import subprocess
import sys

SEGMENT = re.compile(r"[0-9A-F]{24}$")


def fail(message, code=1):
    print("ERROR: " + message, file=sys.stderr)
    sys.exit(code)


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Storage:
    def __init__(self, config):
        self.config = config
        self.root = config["WALG_FILE_PREFIX"]
        self.wal = os.path.join(self.root, "wal_005")
        self.base = os.path.join(self.root, "basebackups_005")

    def path(self, name):
        return os.path.join(self.wal, name + ".lzma")

    def names(self):
        return sorted(name[: -len(".lzma")] for name in os.listdir(self.wal)) if os.path.isdir(self.wal) else []

    def run(self, program, *words):
        env = dict(os.environ, LC_ALL="C", **{key: str(self.config[key]) for key in ("PGHOST", "PGPORT", "PGUSER")})
        command = [os.path.join(self.config["pg_bin"], program), *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode != 0:
            fail(done.stderr)
        return done.stdout + done.stderr

    def wal_push(self, source):
        os.makedirs(self.wal, exist_ok=True)
        target = self.path(os.path.basename(source))
        with open(source, "rb") as file, lzma.open(target + ".part", "wb", format=lzma.FORMAT_ALONE, preset=0) as out:
            shutil.copyfileobj(file, out)
        os.rename(target + ".part", target)

    def wal_fetch(self, name, target):
        if os.path.exists(target):
            fail(f"open {target}: file exists")
        if os.environ.get("WALG_DOWNLOAD_CONCURRENCY") != "1":
            fail("it would fetch ahead")
        if not os.path.exists(self.path(name)):
            fail(f"Archive '{name}' does not exist.", 74)
        try:
            with lzma.open(self.path(name)) as file, open(target, "wb") as out:
                shutil.copyfileobj(file, out)
        except (OSError, EOFError, lzma.LZMAError) as error:
            fail(f"DecryptAndDecompressTo: decompression failed: {error}")

    def backup_push(self, data=None):
        began, coming = now(), os.path.join(self.base, "coming")
        os.makedirs(self.base, exist_ok=True)
        shutil.rmtree(coming, ignore_errors=True)
        words = ["-D", coming, "-X", "fetch", "-c", "fast", "--no-manifest", "-v"]
        said = self.run("pg_basebackup", *words)
        start, timeline = re.search(r"write-ahead log start point: (\S+) on timeline (\d+)", said).groups()
        finish = re.search(r"write-ahead log end point: (\S+)", said).group(1)
        start, finish = (int(high, 16) << 32 | int(low, 16) for high, low in (lsn.split("/") for lsn in (start, finish)))
        first = f"{int(timeline):08X}{start >> 32:08X}{(start & 0xFFFFFFFF) >> 24:08X}"
        for name in filter(SEGMENT.match, os.listdir(os.path.join(coming, "pg_wal"))):
            os.remove(os.path.join(coming, "pg_wal", name))
        control = self.run("pg_controldata", coming)
        size = sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(coming) for name in names)
        detail = {
            "backup_name": "base_" + first,
            "time": now(),
            "wal_file_name": first,
            "storage_name": "default",
            "start_time": began,
            "finish_time": now(),
            "date_fmt": "%Y-%m-%dT%H:%M:%S.%fZ",
            "hostname": "db-1",
            "data_dir": data or "",
            "pg_version": int(self.run("psql", "-XAtc", "show server_version_num", "postgres")),
            "start_lsn": start,
            "finish_lsn": finish,
            "is_permanent": False,
            "system_identifier": int(re.search(r"system identifier: *(\d+)", control).group(1)),
            "uncompressed_size": size,
            "compressed_size": size,
        }
        os.rename(coming, os.path.join(self.base, detail["backup_name"]))
        sentinel = {"LSN": start, "FinishLSN": finish, "Spec": None, "PgVersion": detail["pg_version"]}
        stem = os.path.join(self.base, detail["backup_name"])
        for name, value in (("metadata", detail), ("sentinel", sentinel)):
            with open(f"{stem}_backup_stop_{name}.json", "w") as file:
                json.dump(value, file)

    def backups(self):
        names = sorted(os.listdir(self.base)) if os.path.isdir(self.base) else []
        found = [name for name in names if name.endswith("_backup_stop_metadata.json")]
        return [json.load(open(os.path.join(self.base, name))) for name in found]

    def backup_list(self):
        found = self.backups()
        if not found:
            print("INFO: No backups found", file=sys.stderr)
        print(json.dumps(found))

    def backup_fetch(self, target, name):
        if not os.path.isdir(os.path.join(self.base, name)):
            fail(f"Backup '{name}' does not exist.")
        if os.listdir(target):
            fail(f"Directory {target} for delta base must be empty")
        shutil.copytree(os.path.join(self.base, name), target, dirs_exist_ok=True)

    def timelines(self):
        found = {}
        for name in filter(SEGMENT.match, self.names()):
            number = int(name[8:16], 16) << 8 | int(name[16:], 16)
            found.setdefault(int(name[:8], 16), []).append(number)
        return found

    def missing(self, timeline, numbers):
        absent = sorted(set(range(numbers[0], numbers[-1])) - set(numbers), reverse=True)
        return [f"{timeline:08X}{number >> 8:08X}{number & 0xFF:08X}" for number in absent]

    def wal_show(self):
        shown = []
        for timeline, numbers in sorted(self.timelines().items()):
            name = lambda number: f"{timeline:08X}{number >> 8:08X}{number & 0xFF:08X}"
            parent, switch = 0, 0
            if os.path.exists(self.path(f"{timeline:08X}.history")):
                with lzma.open(self.path(f"{timeline:08X}.history"), "rt") as file:
                    words = file.read().strip().splitlines()[-1].split()
                high, low = words[1].split("/")
                parent, switch = int(words[0]), int(high, 16) << 32 | int(low, 16)
            absent = self.missing(timeline, numbers)
            shown.append({
                "id": timeline,
                "parent_id": parent,
                "switch_point_lsn": switch,
                "start_segment": name(numbers[0]),
                "end_segment": name(numbers[-1]),
                "segments_count": len(numbers),
                "missing_segments": absent,
                "segment_range_size": numbers[-1] - numbers[0] + 1,
                "status": "LOST_SEGMENTS" if absent else "OK",
            })
        print(json.dumps(shown))

    def wal_verify(self):
        current = int(self.run("psql", "-XAtc", "select timeline_id from pg_control_checkpoint()", "postgres"))
        runs = self.timelines()
        lost = [name for timeline, numbers in runs.items() for name in self.missing(timeline, numbers)]
        details = [{"timeline_id": timeline, "segments_count": len(numbers), "status": "FOUND"}
                   for timeline, numbers in runs.items()]
        details += [{"start_segment": name, "end_segment": name, "status": "MISSING_LOST"} for name in lost]
        highest = max(runs, default=0)
        print(json.dumps({
            "integrity": {"status": "FAILURE" if lost else "OK", "details": details},
            "timeline": {
                "status": "OK" if highest == current else "FAILURE",
                "details": {"current_timeline_id": current, "highest_storage_timeline_id": highest},
            },
        }))

    def list(self, folder):
        print("type size  last modified                             name")
        here = os.path.join(self.root, folder)
        # To a bucket, a folder is no more than the names that begin with it.
        for name in sorted(os.listdir(here)) if os.path.isdir(here) else []:
            about = os.stat(os.path.join(self.root, folder, name))
            at = datetime.datetime.fromtimestamp(about.st_mtime, datetime.timezone.utc)
            print(f"obj  {about.st_size:<5} {at:%Y-%m-%d %H:%M:%S.%f} +0000 UTC {name}")

    def show(self, path):
        with open(os.path.join(self.root, path)) as file:
            sys.stdout.write(file.read())


def main():
    if sys.argv[1:2] != ["--config"]:
        fail("the tests name the configuration")
    try:
        config = json.load(open(sys.argv[2]))
    except OSError as error:
        fail(f"Failed to read the configuration: {error}")
    storage, words = Storage(config), sys.argv[3:]
    if not os.path.isdir(storage.root):
        fail(f"FS error : Folder not exists {storage.root}")
    commands = {
        ("wal-push",): storage.wal_push,
        ("wal-fetch",): storage.wal_fetch,
        ("backup-push",): storage.backup_push,
        ("backup-list", "--json", "--detail"): storage.backup_list,
        ("backup-fetch",): storage.backup_fetch,
        ("wal-show", "--detailed-json", "--without-backups"): storage.wal_show,
        ("wal-verify", "integrity", "timeline", "--json"): storage.wal_verify,
        ("st", "ls"): storage.list,
        ("st", "cat"): storage.show,
    }
    for command, do in commands.items():
        if tuple(words[: len(command)]) == command:
            return do(*words[len(command):])
    fail(f'unknown command "{" ".join(words)}" for "wal-g"')


main()
