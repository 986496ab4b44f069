"""Runs binaries as a user does, each in a process of its own; what they import is imported once.

Importing takes most of the time of a run that only refuses its flags. So one process imports the library, and forks for
every run, which is then that of `python -m`.
"""

import atexit
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

_ROOT = pathlib.Path(__file__).parents[2]
_LIBRARY = (
    "dal_jax.algorithm", "dal_jax.loop.run", "dal_jax.loop.prediction", "dal_jax.loop.report", "dal_jax.fits.fitting",
    "dal_jax.fits.output", "dal_jax.fits.export", "dal_jax.lifting.folder", "dal_jax.data.preparing",
    "dal_jax.synthetic.people", "dal_jax.evaluation.poses_3d", "trimesh", "pygltflib", "jinja2",
)  # fmt: skip
_SERVER = """
import gc, importlib, json, os, pathlib, runpy, sys
sys.path[0] = os.getcwd()
for name in sys.argv[1:]:
    importlib.import_module(name)
from dal_jax.loop import report
report.EXAMPLES, report.CARDS, report.TILE_PX = 1, 1, 64  # as in tests/conftest.py
gc.freeze()  # a fork that collected garbage would copy every page
tasks = pathlib.Path("/proc/self/task")
forks = tasks.exists() and len(list(tasks.iterdir())) == 1  # a process with threads cannot be forked safely
print("ready" if forks else "threads", flush=True)
for line in sys.stdin if forks else ():
    name, flags, out, err, folder = json.loads(line)
    child = os.fork()
    if child == 0:
        for path, stream in ((out, 1), (err, 2)):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, stream)
        os.close(0)
        os.chdir(folder)
        sys.argv = [name, *flags]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        sys.exit()
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


def run(name: str, *flags: object) -> subprocess.CompletedProcess:
    """Run `python -m NAME FLAGS` and return what it printed and its exit code."""
    command = [sys.executable, "-m", name, *map(str, flags)]
    server = _server()
    if server is None:
        return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        out, err = pathlib.Path(folder, "out"), pathlib.Path(folder, "err")
        job = [name, list(map(str, flags)), str(out), str(err), str(pathlib.Path.cwd())]
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(command, code, out.read_text(), err.read_text())


@functools.cache
def _server() -> subprocess.Popen | None:
    command = [sys.executable, "-c", _SERVER, *_LIBRARY]
    alone = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # NumPy's BLAS starts threads when it is imported
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT, env=alone)
    assert server.stdout is not None
    if server.stdout.readline().strip() == "ready":
        atexit.register(_stop, server)
        return server
    _stop(server)
    return None


def _stop(server: subprocess.Popen) -> None:
    server.kill()
    server.communicate()  # closes its pipes
