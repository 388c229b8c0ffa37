"""Backups of files, beside the versioned tools that are installed: whole processes by the wall clock, alternating, every
restore compared. Imported by bench.py."""
import os
import random
import shutil
import subprocess
import sys
import time

WORKS = ["first backup", "nothing changed", "1 % changed", "check, all data read", "restore"]


def change(data, seed):
    """Changes 1 %: bytes inserted into photographs, photographs replaced, records written anew."""
    choice = random.Random(f"change {seed}")
    paths = sorted(os.path.join(root, name) for root, _, names in os.walk(data) for name in names)
    photos = [path for path in paths if path.endswith(".jpg")]
    records = [path for path in paths if path.endswith(".json")]
    for number, path in enumerate(choice.sample(photos, len(photos) // 100)):
        with open(path, "rb") as file:
            contents = file.read()
        at = len(contents) // 3
        with open(path, "wb") as file:
            file.write(contents[:at] + b"inserted" + contents[at:] if number % 2 else choice.randbytes(len(contents)))
    for path in choice.sample(records, len(records) // 100):
        with open(path, "a") as file:
            file.write(" ")


def run(command, env):
    """Seconds and peak memory in MiB of a process."""
    begin = time.perf_counter()
    with subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begin
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)}: {process.returncode}\n{said.decode(errors='replace')}")
    return seconds, usage.ru_maxrss / 1024


def files_of(folder):
    return [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]


class Restic:
    name = "restic"

    def __init__(self, folder, data):
        self.env = {"RESTIC_REPOSITORY": f"{folder}/repository", "RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": f"{folder}/cache"}
        self.store, self.data, self.out = f"{folder}/repository", data, f"{folder}/out"
        run(["restic", "init"], self.env)

    def backup(self):
        return run(["restic", "backup", self.data], self.env)

    def check(self):
        return run(["restic", "check", "--read-data"], self.env)

    def restore(self):
        return run(["restic", "restore", "latest", "--target", self.out], self.env), f"{self.out}{self.data}"

    def end(self):
        pass


class Borg:
    name = "borg"

    def __init__(self, folder, data):
        self.env = {"BORG_REPO": f"{folder}/repository", "BORG_PASSPHRASE": "x", "BORG_BASE_DIR": folder, "BORG_FILES_CACHE_TTL": "99"}
        self.store, self.data, self.out, self.number = f"{folder}/repository", data, f"{folder}/out", 0
        run(["borg", "init", "--encryption", "repokey-blake2"], self.env)

    def backup(self):
        self.number += 1
        return run(["borg", "create", f"::{self.number}", self.data], self.env)

    def check(self):
        return run(["borg", "check", "--verify-data"], self.env)

    def restore(self):
        os.makedirs(self.out)
        here = os.getcwd()
        os.chdir(self.out)
        try:
            return run(["borg", "extract", f"::{self.number}"], self.env), f"{self.out}{self.data}"
        finally:
            os.chdir(here)

    def end(self):
        pass


class Lockstep:
    name = "lockstep"

    def __init__(self, folder, data, programs, server, sign_up):
        self.programs, self.data, self.out, self.folder = programs, data, f"{folder}/out", folder
        self.server, self.store = server, f"{folder}/data"
        self.home = sign_up(folder, server)

    def lockstep(self, *arguments):
        seconds, memory = run([f"{self.programs}/lockstep", "--home", self.home, *arguments], {})
        return seconds, memory

    def backup(self):
        return self.lockstep("backup", self.data)

    def check(self):
        return self.lockstep("check", "--read-data")

    def restore(self):
        return self.lockstep("restore", self.out), f"{self.out}/{os.path.basename(self.data)}"

    def end(self):
        self.server.stop()


def measure(work, data, runs, make_ours, same):
    """Figures of every tool: {tool: {work: [seconds]}}; memory, stored bytes and files of the store beside them."""
    peers = [peer for peer in (Restic, Borg) if shutil.which(peer.name)]
    times, beside = {}, {}
    for index in range(runs):
        for make in [make_ours, *peers]:
            folder = f"{work}/round"
            os.makedirs(folder)
            copy = f"{work}/set"
            subprocess.run(["cp", "-a", data, copy], check=True)
            tool = make(folder, copy)
            taken = times.setdefault(tool.name, {name: [] for name in WORKS})
            also = beside.setdefault(tool.name, {"memory": [], "store": [], "files": []})
            memory = 0.0

            def note(name, done):
                nonlocal memory
                taken[name].append(done[0])
                memory = max(memory, done[1])

            note("first backup", tool.backup())
            source = sum(os.path.getsize(path) for path in files_of(copy))
            note("nothing changed", tool.backup())
            stored = files_of(tool.store)
            also["files"].append(len(stored))
            note("check, all data read", tool.check())
            change(copy, index)
            note("1 % changed", tool.backup())
            done, place = tool.restore()
            note("restore", done)
            if not same(copy, place):
                sys.exit(f"{tool.name}: the restore differs")
            if tool.name == "lockstep":
                memory += tool.server.memory_mib()
            also["memory"].append(memory)
            tool.end()
            also["store"].append(sum(os.path.getsize(path) for path in files_of(tool.store)) / source)
            shutil.rmtree(folder)
            shutil.rmtree(copy)
    return times, beside
