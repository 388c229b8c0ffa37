#!/usr/bin/env python3
"""The measuring part of scripts/bench. Whole processes are timed by the wall clock; peers and we alternate; every
restore is compared; medians are printed with their range. Python 3.9 or later, standard library only."""
import filecmp
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import bench_backup

PROGRAMS, WANTED = sys.argv[1], sys.argv[2:] or ["reference", "backup", "records"]
PHOTOS, RECORDS = int(os.environ.get("PHOTOS", 2000)), int(os.environ.get("RECORDS", 20000))
RUNS = int(os.environ.get("RUNS", 3))
HERE = os.path.dirname(os.path.abspath(__file__))


def run(*command, env=None, check=True, stdin=None):
    done = subprocess.run(command, env={**os.environ, **(env or {})}, input=stdin, capture_output=True)
    if check and done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.returncode}\n{done.stdout.decode()}\n{done.stderr.decode()}")
    return done.stdout


def timed(*command, **options):
    begin = time.perf_counter()
    run(*command, **options)
    return time.perf_counter() - begin


def row(name, ours, theirs=None, unit="s"):
    def figure(values):
        return f"{statistics.median(values):9.3f} {unit} ({min(values):.3f} to {max(values):.3f})"

    text = f"{name:34} {figure(ours)}"
    if theirs:
        ratio = statistics.median(ours) / statistics.median(theirs)
        text += f"   restic {figure(theirs)}   ratio {ratio:.2f}"
    print(text, flush=True)


class Server:
    """A server on its embedded default in a folder, on a free port of loopback."""

    def __init__(self, folder):
        self.log = open(os.path.join(folder, "server.log"), "wb")
        env = {**os.environ, "LOCKSTEP_LISTEN": "127.0.0.1:0", "LOCKSTEP_DATA": os.path.join(folder, "data"), "LOCKSTEP_LOG": "warn"}
        self.process = subprocess.Popen([f"{PROGRAMS}/lockstep-server", "serve"], env=env, stdout=subprocess.PIPE, stderr=self.log)
        line = self.process.stdout.readline().decode()
        self.url = line[line.index("(") + 1 : line.index(")")]

    def memory_mib(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def lockstep(home, *arguments, **options):
    return timed(f"{PROGRAMS}/lockstep", "--home", home, *arguments, **options)


def sign_up(work, server):
    with open(f"{work}/passphrase", "w") as file:
        file.write("a passphrase for measuring\n")
    home = f"{work}/home"
    lockstep(home, "signup", "--server", server.url, "--name", "bench", "--passphrase-file", f"{work}/passphrase", "--kit", f"{work}/kit")
    return home


def same(left, right):
    """Whether two trees hold the same names and bytes."""
    compared = filecmp.dircmp(left, right)
    if compared.left_only or compared.right_only or compared.funny_files:
        return False
    _, differ, errors = filecmp.cmpfiles(left, right, compared.common_files, shallow=False)
    return not differ and not errors and all(same(f"{left}/{name}", f"{right}/{name}") for name in compared.common_dirs)


def reference(work):
    print("\nReference: this machine in this run")
    block = os.urandom(1 << 20)

    def write():
        begin = time.perf_counter()
        with open(f"{work}/sequential", "wb") as file:
            for _ in range(512):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        return 512 / (time.perf_counter() - begin)

    def fsync():
        with open(f"{work}/fsync", "wb") as file:
            begin = time.perf_counter()
            for _ in range(200):
                file.write(b"x")
                file.flush()
                os.fsync(file.fileno())
            return (time.perf_counter() - begin) / 200 * 1000

    row("sequential write, synced", [write() for _ in range(RUNS)], unit="MiB/s")
    row("fsync", [fsync() for _ in range(RUNS)], unit="ms")
    os.remove(f"{work}/sequential")


def backup(work):
    data = f"{work}/data"
    run(sys.executable, f"{HERE}/generate", data, str(PHOTOS), str(RECORDS))
    size = sum(os.path.getsize(os.path.join(root, name)) for root, _, names in os.walk(data) for name in names)
    print(f"\nBackup: {PHOTOS} photographs and {RECORDS} small files, {size / 2**30:.2f} GiB, warm page cache")

    def ours(folder, copy):
        return bench_backup.Lockstep(folder, copy, PROGRAMS, Server(folder), sign_up)

    times, beside = bench_backup.measure(work, data, RUNS, ours, same)
    median = statistics.median
    for name in bench_backup.WORKS:
        peers = {tool: median(taken[name]) for tool, taken in times.items() if tool != "lockstep"}
        ratio = f"   ratio {median(times['lockstep'][name]) / min(peers.values()):.2f}" if peers else ""
        figures = "   ".join(f"{tool} {median(taken[name]):.2f} s ({min(taken[name]):.2f} to {max(taken[name]):.2f})" for tool, taken in times.items())
        print(f"{name:24} {figures}{ratio}", flush=True)
    for name, unit in (("memory", "MiB at most"), ("store", "of the source, after the change"), ("files", "files in the store after the first backup")):
        figures = "   ".join(f"{tool} {median(found[name]):.3f}" for tool, found in beside.items())
        print(f"{name:24} {figures}   {unit}", flush=True)
    for peer in ("restic", "borg"):
        if shutil.which(peer):
            print(run(peer, "version" if peer == "restic" else "--version").decode().strip())


def records(work, count=10_000):
    """Small files make one record each: a folder of them is a push and a pull of records."""
    print(f"\nRecords: {count} records of about 500 bytes")
    data = f"{work}/records"
    os.makedirs(data)
    for index in range(count):
        with open(f"{data}/{index:06d}.json", "w") as file:
            json.dump({"index": index, "text": "0123456789" * 45}, file)
    push, pull = [], []
    for index in range(RUNS):
        round_dir = f"{work}/records{index}"
        os.makedirs(round_dir)
        server = Server(round_dir)
        home = sign_up(round_dir, server)
        push.append(count / lockstep(home, "backup", data))
        other = f"{round_dir}/other"
        lockstep(other, "login", "--server", server.url, "--name", "bench", "--passphrase-file", f"{round_dir}/passphrase")
        pull.append(count / lockstep(other, "snapshots"))
        server.stop()
        shutil.rmtree(round_dir)
    row("push, scan included", push, unit="/s")
    row("pull, verified and stored", pull, unit="/s")


def sync(work):
    """The client library against the server program, in one process that prints its own rows."""
    done = subprocess.run([f"{PROGRAMS}/lockstep-bench"], env={**os.environ, "BENCH_DIR": os.environ.get("BENCH_DIR", work)})
    if done.returncode != 0:
        sys.exit("lockstep-bench failed")


with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
    for name in WANTED:
        {"reference": reference, "backup": backup, "records": records, "sync": sync}[name](folder)
